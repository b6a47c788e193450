"""Ids and labels equal the original's where it understood the sample, and are right where it gave up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.data.encode import encode_conversation, encode_uncut, image_to_front, training_segments
from llava.mm_utils import tokenizer_image_token

EMPTY_OR_OPEN = ("c08_empty_answer", "c25_ends_with_human")
"""Conversations without anything to learn, or without an answer to the last question."""


def encoded(record, cases, tokenizer_of):
    case = cases[record["case"]]
    result = encode_conversation(
        case["conversations"],
        tokenizer_of(record["tokenizer"]),
        version=record["version"],
        has_image=case["has_image"],
    )
    return result.input_ids.tolist(), result.labels.tolist()


def learned_text(result, tokenizer):
    return tokenizer.decode(result.labels[result.labels != IGNORE_INDEX])


def test_prompts_equal_the_originals(golden, cases):
    num_compared = 0
    for version, prompts in json.loads((golden / "train_data/prompts.json").read_text()).items():
        for name, prompt in prompts.items():
            if name in EMPTY_OR_OPEN and version != "plain":
                continue  # nothing to train on
            case = cases[name]
            pieces = training_segments(
                case["conversations"], conv_templates[version], has_image=case["has_image"]
            )
            assert "".join(piece.text for piece in pieces) == prompt, (version, name)
            num_compared += 1
    assert num_compared == 109


def test_ids_and_labels_equal_the_originals(expected_encodings, cases, tokenizer_of):
    records = [record for record in expected_encodings if record.get("mismatch") is False]
    assert len(records) == 239
    for record in records:
        ids, labels = encoded(record, cases, tokenizer_of)
        where = record["version"], record["case"], record["tokenizer"]
        assert ids == record["input_ids"], where
        assert labels == record["labels"], where


def test_a_batch_of_text_is_that_of_the_original(golden, cases, tokenizer_of):
    batches = json.loads((golden / "train_data/preprocess_batched_text.json").read_text())
    assert len(batches) == 2
    for batch in batches:
        tokenizer = tokenizer_of(batch["tokenizer"])
        for name, ids, labels in zip(batch["cases"], batch["input_ids"], batch["labels"], strict=True):
            result = encode_conversation(
                cases[name]["conversations"], tokenizer, version=batch["version"], has_image=False
            )
            length = len(result.input_ids)
            assert ids == result.input_ids.tolist() + [0] * (len(ids) - length), name
            assert labels == result.labels.tolist() + [IGNORE_INDEX] * (len(ids) - length), name


def test_where_the_original_gave_up_ids_are_its_own_and_exactly_the_answers_are_learned(
    expected_encodings, cases, tokenizer_of
):
    records = [record for record in expected_encodings if record.get("mismatch")]
    records = [record for record in records if record["case"] not in EMPTY_OR_OPEN]
    assert len(records) == 132
    for record in records:
        case, tokenizer = cases[record["case"]], tokenizer_of(record["tokenizer"])
        ids, labels = encoded(record, cases, tokenizer_of)
        where = record["version"], record["case"], record["tokenizer"]
        assert ids == record["input_ids"], where
        pieces = training_segments(
            case["conversations"], conv_templates[record["version"]], has_image=case["has_image"]
        )
        answers = "".join("".join(piece.text for piece in pieces if piece.is_answer).split())
        learned = "".join(tokenizer.decode([label for label in labels if label != IGNORE_INDEX]).split())
        is_cut = len(ids) == tokenizer.model_max_length
        assert answers.startswith(learned) if is_cut else learned == answers, where


def test_text_is_cut_at_the_tokenizers_length_and_a_sample_with_an_image_is_not(cases, tokenizer_of):
    tokenizer = tokenizer_of("slow_nonlegacy")
    lengths = {
        name: len(
            encode_conversation(
                cases[name]["conversations"], tokenizer, version="v1", has_image=cases[name]["has_image"]
            ).input_ids
        )
        for name in ("c13_very_long_text", "c12_very_long_image")
    }
    assert lengths["c13_very_long_text"] == tokenizer.model_max_length == 256
    assert lengths["c12_very_long_image"] > 256


def test_what_the_original_crashed_on_is_refused(expected_encodings, cases, tokenizer_of):
    # its AttributeError is no fault of the sample: it asked a fast tokenizer for a field that it lacked
    crashed = [
        record for record in expected_encodings if record.get("error") in ("AssertionError", "KeyError")
    ]
    assert crashed
    for record in crashed:
        with pytest.raises(ValueError, match=r"expected|needs one human message|must be an answer"):
            encoded(record, cases, tokenizer_of)


@pytest.mark.parametrize("legacy", ["slow_legacy", "slow_nonlegacy"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c16_eos_in_answer", "one</s> two</s> three</s>"),
        ("c17_role_words_in_answer", "USER: hi ASSISTANT: hello [INST] x [/INST] y</s> Thanks.</s>"),
        ("c26_unk_in_text", "It is the unknown token.</s> fine</s>"),
        ("c09_empty_answer_middle", "Two.</s>"),
    ],
)
def test_difficult_answers_are_learned_whole_and_alone(cases, tokenizer_of, legacy, name, text):
    tokenizer = tokenizer_of(legacy)
    result = encode_conversation(cases[name]["conversations"], tokenizer, version="v1", has_image=True)
    assert learned_text(result, tokenizer).split() == text.split()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c08_empty_answer", "every gpt message is empty, expected at least one answer to learn from"),
        ("c25_ends_with_human", "the last message must be an answer from gpt to a human message, found none"),
    ],
)
def test_a_conversation_without_anything_to_learn_is_refused(cases, tokenizer, name, message):
    with pytest.raises(ValueError, match=message):
        encode_conversation(cases[name]["conversations"], tokenizer, version="v1", has_image=True)


@pytest.mark.parametrize("name", EMPTY_OR_OPEN)
def test_training_refuses_what_teaches_nothing_although_the_original_has_labels(cases, tokenizer, name):
    conversations = cases[name]["conversations"]
    with pytest.raises(ValueError, match=r"every gpt message is empty|last message must be an answer"):
        encode_uncut(conversations, tokenizer, version="mpt", has_image=True)


@pytest.mark.parametrize("version", ["v1", "llava_llama_2"])
def test_an_open_question_is_accepted_only_behind_the_cut(tokenizer_of, human, gpt, version):
    tokenizer = tokenizer_of("slow_nonlegacy")
    limit = tokenizer.model_max_length
    closed = [human("<image>\nWhat?"), gpt("the cat " * limit)]
    answered = encode_conversation(closed, tokenizer, version=version, has_image=True)
    result = encode_conversation([*closed, human("Why?")], tokenizer, version=version, has_image=True)
    length = len(answered.input_ids)
    assert result.input_ids[:length].equal(answered.input_ids)
    assert result.labels[:length].equal(answered.labels)
    assert len(result.labels) > length
    assert (result.labels[length:] == IGNORE_INDEX).all()
    with pytest.raises(ValueError, match="the last message must be an answer from gpt"):
        encode_conversation(
            [human("<image>"), gpt("a"), human("Why?")], tokenizer, version=version, has_image=True
        )


def test_an_image_in_an_answer_is_a_label_as_in_the_original_but_not_in_training(tokenizer, human, gpt):
    conversations = [human("Show me."), gpt("Here <image>")]
    ids, labels = encode_conversation(conversations, tokenizer, version="v1", has_image=True)
    assert labels[ids == IMAGE_TOKEN_INDEX].tolist() == [IMAGE_TOKEN_INDEX]
    trained = encode_uncut(conversations, tokenizer, version="v1", has_image=True)
    assert trained.input_ids.equal(ids)
    assert trained.labels.equal(labels.where(ids != IMAGE_TOKEN_INDEX, IGNORE_INDEX))


def test_an_image_tag_in_a_caption_moves_to_its_front_as_in_the_original(tokenizer, human, gpt):
    conversations = [human("<image>\nq"), gpt("a <image> b")]
    result = encode_conversation(conversations, tokenizer, version="plain", has_image=True)
    assert result.input_ids.tolist() == [1, -200, -200, 894, 13, 898, 894, 268, 13]
    assert result.labels.tolist() == [-100, -100, -200, 894, 13, 898, 894, 268, 13]
    pieces = training_segments(
        conversations, conv_templates["plain"], has_image=True, mm_use_im_start_end=True
    )
    assert pieces == [("<image>", False), ("<im_start><image><im_end>\na  b\n", True)]


def test_chatml_learns_each_answer_with_its_end_token(cases, tokenizer_of):
    tokenizer = tokenizer_of("chatml_slow_nonlegacy")
    conversations = cases["c15_images_two_turns"]["conversations"]
    result = encode_conversation(conversations, tokenizer, version="mpt", has_image=True)
    assert learned_text(result, tokenizer) == "A lamp.<|im_end|>A clock.<|im_end|>"


def test_chatml_labels_are_the_originals_where_its_count_adds_up(cases, tokenizer_of):
    tokenizer = tokenizer_of("chatml_slow_legacy")
    conversations = cases["c15_images_two_turns"]["conversations"]
    result = encode_conversation(conversations, tokenizer, version="mpt", has_image=True)
    assert learned_text(result, tokenizer) == "\nA lamp.A clock.<|im_end|>"


SAYINGS = st.lists(
    st.sampled_from(
        ["the cat", " ", "\n", "12", "é", "猫", "😀", "?", "USER:", " ASSISTANT: ", "</s>", "<unk>"]
    ),
    min_size=1,
    max_size=6,
).map("".join)


@pytest.mark.parametrize("legacy", ["slow_legacy", "slow_nonlegacy", "fast"])
@pytest.mark.parametrize("version", ["v1", "llava_v1", "llava_llama_2"])
@given(turns=st.lists(st.tuples(SAYINGS, SAYINGS), min_size=1, max_size=3), has_image=st.booleans())
def test_the_prompt_is_encoded_once_and_exactly_the_answers_are_learned(
    tokenizer_of, legacy, version, turns, has_image
):
    tokenizer = tokenizer_of(legacy)
    conversations = [
        {"from": speaker, "value": text}
        for turn in turns
        for speaker, text in zip(("human", "gpt"), turn, strict=True)
    ]
    conversations[0]["value"] += "<image>" if has_image else ""
    result = encode_conversation(conversations, tokenizer, version=version, has_image=has_image)
    pieces = training_segments(conversations, conv_templates[version], has_image=has_image)
    prompt = "".join(piece.text for piece in pieces)
    assert result.input_ids.tolist() == tokenizer_image_token(prompt, tokenizer)
    is_learned = result.labels != IGNORE_INDEX
    assert (result.labels[is_learned] == result.input_ids[is_learned]).all()
    learned = "".join(piece.text for piece in pieces if piece.is_answer)
    assert "".join(learned_text(result, tokenizer).split()) == "".join(learned.split())


def test_an_image_is_one_sentinel_that_is_never_learned(tokenizer, human, gpt):
    conversations = [human("Is <image> this <image>?"), gpt("no")]
    result = encode_conversation(conversations, tokenizer, version="v1", has_image=True)
    place = (result.input_ids == IMAGE_TOKEN_INDEX).nonzero()
    assert len(place) == 1
    assert result.labels[place[0]] == IGNORE_INDEX


def test_an_image_tag_in_a_text_only_sample_is_text(cases, tokenizer):
    conversations = cases["c24_literal_placeholder_text_only"]["conversations"]
    result = encode_conversation(conversations, tokenizer, version="v1", has_image=False)
    assert "What does <image> mean?" in tokenizer.decode(result.input_ids)


def test_image_tags_move_to_the_front_as_in_the_original(golden, cases):
    records = json.loads((golden / "train_data/preprocess_multimodal.json").read_text())
    plain = [
        r for r in records if r["version"] == "v1" and r["is_multimodal"] and not r["mm_use_im_start_end"]
    ]
    assert len(plain) == 22
    for record in plain:
        messages = cases[record["case"]]["conversations"]
        assert [image_to_front(message["value"]) for message in messages] == record["values"]


@pytest.mark.parametrize(
    ("version", "start_end", "expected"),
    [
        ("v1", True, "USER: <im_start><image><im_end>\nWhat? ASSISTANT:"),
        ("v1_mmtag", False, "USER: <Image><image></Image>\nWhat? ASSISTANT:"),
        ("v1_mmtag", True, "USER: <Image><im_start><image><im_end></Image>\nWhat? ASSISTANT:"),
    ],
)
def test_image_tags_are_wrapped_as_template_and_model_ask(version, start_end, expected, human, gpt):
    pieces = training_segments(
        [human("What?\n<image>"), gpt("A cat.")],
        conv_templates[version],
        has_image=True,
        mm_use_im_start_end=start_end,
    )
    assert pieces[0].text.endswith(expected)


def test_a_template_is_chosen_per_call_and_nothing_is_remembered(cases, tokenizer):
    conversations = cases["c04_multi3"]["conversations"]

    def ids(version):
        result = encode_conversation(conversations, tokenizer, version=version, has_image=True)
        return result.input_ids.tolist()

    first = {version: ids(version) for version in ("v1", "llava_v0", "llava_llama_2")}
    assert {version: ids(version) for version in reversed(first)} == first
    assert len({tuple(found) for found in first.values()}) == 3


def test_an_unknown_version_is_refused(tokenizer, human, gpt):
    with pytest.raises(ValueError, match="unknown conversation version 'v9': choose one of v1, vicuna_v1"):
        encode_conversation([human("a"), gpt("b")], tokenizer, version="v9", has_image=False)


def test_the_plain_format_refuses_a_dialogue(tokenizer, human, gpt):
    conversations = [human("<image>"), gpt("a"), human("b"), gpt("c")]
    with pytest.raises(ValueError, match="needs one human message with `<image>` and one caption, found 4"):
        encode_conversation(conversations, tokenizer, version="plain", has_image=True)
