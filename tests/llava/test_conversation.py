"""Prompts equal upstream's; segments rebuild them and mark what is learned; routing tokens end questions."""

import builtins
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.conversation import conv_templates, default_conversation, segments, with_routing_token
from tests.golden_data import case_folder

REFERENCE = json.loads((case_folder("misc") / "conversations.json").read_text())
TURNS = REFERENCE["turns"]
DIALOGUE_TEMPLATES = sorted(name for name in conv_templates if "plain" not in name)


def conversation_of(name, turns, *, is_open=False):
    conversation = conv_templates[name].copy()
    for question, answer in turns:
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], answer)
    if is_open:
        conversation.messages[-1][1] = None
    return conversation


def reference_conversation(name, kind):
    if kind == "no_messages":
        return conv_templates[name].copy()
    if kind in ("first_message_none", "starts_with_assistant"):
        conversation = conv_templates[name].copy()
        is_first = kind == "first_message_none"
        conversation.append_message(conversation.roles[0 if is_first else 1], None if is_first else "hello")
        return conversation
    if kind == "image_tuple_second_turn":
        return conversation_of(name, [TURNS[0], (("x <image> y", None, "Crop"), None)])
    num_turns = 1 if kind == "open_first_answer" else 3
    is_closed = kind in ("complete_3_turns", "empty_second_answer")
    conversation = conversation_of(name, TURNS[:num_turns], is_open=not is_closed)
    if kind == "empty_second_answer":
        conversation.messages[3][1] = ""
    if kind == "image_tuple_first":
        conversation.messages[0][1] = (REFERENCE["image_tuple_text"], None, "Crop")
    return conversation


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        pytest.param(prompts["template"], kind, text, id=f"{prompts['template']}-{kind}")
        for prompts in REFERENCE["prompts"]
        for kind, text in prompts.items()
        if kind != "template"
    ],
)
def test_prompts_equal_the_originals_and_its_refusals_stay_refusals(name, kind, expected):
    conversation = reference_conversation(name, kind)
    if isinstance(expected, dict):
        with pytest.raises(ValueError, match=r"conversation must start with|holds one caption") as caught:
            conversation.get_prompt()
        assert isinstance(caught.value, getattr(builtins, expected["error"]))
    else:
        assert conversation.get_prompt() == expected


def test_the_default_conversation_is_the_one_of_the_recipe():
    assert default_conversation is conv_templates["v1"] is conv_templates["vicuna_v1"]


def test_a_copy_does_not_share_its_messages():
    first = conv_templates["v1"].copy()
    second = first.copy()
    first.append_message("USER", "hi")
    assert not second.messages
    assert not conv_templates["v1"].messages


@given(
    name=st.sampled_from(DIALOGUE_TEMPLATES),
    turns=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4),
)
def test_segments_joined_are_the_prompt_and_hold_every_answer(name, turns):
    pieces = segments(turns, conv_templates[name])
    assert "".join(piece.text for piece in pieces) == conversation_of(name, turns).get_prompt()
    learned = [piece.text for piece in pieces if piece.is_answer]
    assert len(learned) == len(turns)
    for (_, answer), text in zip(turns, learned, strict=True):
        before, _, end = text.partition(answer)
        assert before.strip() == ""
        assert len(before) + len(end) <= len(" <|im_end|>")


def test_an_answer_is_learned_with_its_end_token_and_its_leading_space():
    pieces = segments([("Q?", "A."), ("R?", "B.")], conv_templates["v1"])
    assert [piece.text for piece in pieces if piece.is_answer] == [" A.</s>", " B.</s>"]
    assert pieces[2].text == "USER: R? ASSISTANT:"


def test_training_asks_in_the_words_of_inference():
    trained = segments([("Q?", "A.")], conv_templates["llava_v0"])[0].text
    asked = conversation_of("llava_v0", [("Q?", None)]).get_prompt()
    assert trained == asked
    assert asked.endswith("###Human: Q?###Assistant:")


@pytest.mark.parametrize("name", ["llava_llama_2", "mistral_instruct"])
def test_a_question_keeps_the_characters_that_it_shares_with_a_begin_token(name):
    prompt = conversation_of(name, [("<s>s> hi", None)]).get_prompt()
    assert prompt.startswith("[INST] ")
    assert prompt.endswith("<s>s> hi [/INST]")


def test_an_empty_answer_has_nothing_to_learn():
    pieces = segments([("Q?", ""), ("R?", "B.")], conv_templates["v1"])
    assert [piece.text for piece in pieces if piece.is_answer] == [" B.</s>"]


def test_an_open_last_question_ends_the_prompt_in_a_segment_of_its_own():
    pieces = segments([("Q?", "A."), ("R?", None)], conv_templates["v1"])
    assert pieces[-1] == ("USER: R? ", False)
    assert pieces[:-1] == segments([("Q?", "A.")], conv_templates["v1"])


def test_a_caption_is_learned_with_its_newline():
    assert segments([("<image>", "a cat")], conv_templates["plain"]) == [
        ("<image>", False),
        ("a cat\n", True),
    ]


TWO_QUESTIONS = [
    {"from": "human", "value": "hello"},
    {"from": "gpt", "value": "hi"},
    {"from": "human", "value": "<image>\nWhat?"},
    {"from": "gpt", "value": "A cat."},
]


@pytest.mark.parametrize(
    ("placement", "expected"),
    [("first_turn", ["hello", "<image>\nWhat?<R>"]), ("every_turn", ["hello<R>", "<image>\nWhat?<R>"])],
)
def test_the_routing_token_ends_the_chosen_questions(placement, expected):
    marked = with_routing_token(TWO_QUESTIONS, token="<R>", placement=placement)
    assert [message["value"] for message in marked if message["from"] == "human"] == expected
    assert [message["value"] for message in marked if message["from"] == "gpt"] == ["hi", "A cat."]
    assert TWO_QUESTIONS[2]["value"] == "<image>\nWhat?"


@pytest.mark.parametrize("placement", ["first_turn", "every_turn"])
def test_a_text_only_sample_gets_no_routing_token(placement):
    assert with_routing_token(TWO_QUESTIONS[:2], token="<R>", placement=placement) == TWO_QUESTIONS[:2]


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="first_turn or every_turn, got 'last'"):
        with_routing_token(TWO_QUESTIONS, token="<R>", placement="last")
