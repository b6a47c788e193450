"""Good files become records; bad ones are refused with file, sample, finding and expectation."""

import json
import re

import pytest

from llava.data.records import read_records

QUESTION = {"from": "human", "value": "What?"}
SHOWN = {"from": "human", "value": "<image>\nWhat?"}
ANSWER = {"from": "gpt", "value": "A cat."}


@pytest.fixture
def write(tmp_path):
    """Write samples to a file and return its path."""

    def write_file(samples):
        path = tmp_path / "data.json"
        path.write_text(samples if isinstance(samples, str) else json.dumps(samples))
        return path

    return write_file


def test_samples_become_records(write):
    path = write(
        [
            {"id": 7, "image": "a/b.jpg", "conversations": [SHOWN, ANSWER]},
            {"conversations": [QUESTION, ANSWER], "model": "x"},
        ]
    )
    first, second = read_records(path)
    assert (first.id, first.image, first.conversations) == ("7", "a/b.jpg", (SHOWN, ANSWER))
    assert (second.id, second.image, second.source) == ("#1", None, str(path))


def test_image_tags_inside_a_text_only_dialogue_are_ordinary_text(write):
    code = {"from": "human", "value": "Parse this: <rss><image>logo.png</image></rss>"}
    assert read_records(write([{"id": "a", "conversations": [code, ANSWER]}]))[0].image is None


@pytest.mark.parametrize(
    "conversations",
    [
        pytest.param([ANSWER, SHOWN, ANSWER], id="gpt first"),
        pytest.param([QUESTION, ANSWER, SHOWN, ANSWER], id="image in a later question"),
    ],
)
def test_what_upstream_accepts_is_accepted(write, conversations):
    assert len(read_records(write([{"id": "a", "image": "b.jpg", "conversations": conversations}]))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"id": "a"}, "holds a JSON dict, but training data is a list of samples"),
        ([], "is an empty list: training needs at least one sample"),
        ("[" * 100_000, "is nested too deep to be read"),
        (f"[{'1' * 10_000}]", "is not valid JSON (Exceeds the limit"),
        ('{"id": 1}\n{"id": 2}', "is not valid JSON (Extra data: line 2 column 1 (char 10)); it must be one"),
    ],
)
def test_a_file_that_is_no_list_of_samples_is_refused(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")):
        read_records(path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "a", "conversations": [QUESTION, ANSWER]}]), encoding="utf-8-sig")
    assert [record.id for record in read_records(path)] == ["a"]


def test_an_id_with_half_a_character_can_be_printed(write):
    record = read_records(write([{"id": "a\ud800", "conversations": [QUESTION, ANSWER]}]))[0]
    assert record.id.encode() == rb"a\ud800"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json does not exist: check --data_path"):
        read_records(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("text", "sample #0: found a str, expected an object"),
        ({"id": "a"}, "sample a: found no `conversations`, only ['id']; expected a list of messages"),
        ({"id": "a", "conversations": []}, "sample a: `conversations` must be a list of messages, found []"),
        (
            {"id": "a", "conversations": [QUESTION, {"from": "gpt"}]},
            "sample a: message 1 is {'from': 'gpt'}, expected",
        ),
        (
            {"id": "a", "conversations": [{"from": "system", "value": "x"}, ANSWER]},
            "sample a: message 0 is from 'system', expected human or gpt",
        ),
        (
            {"id": "a", "conversations": [QUESTION, {"from": "gpt", "value": "x\ud800"}]},
            r"sample a: message 1 holds '\ud800' at character 1, half of a character; expected Unicode text",
        ),
        (
            {"id": "a", "image": "\udfff.jpg", "conversations": [SHOWN, ANSWER]},
            r"sample a: `image` holds '\udfff' at character 0, half of a character",
        ),
        (
            {"id": "a", "conversations": [QUESTION, QUESTION, ANSWER]},
            "sample a: message 1 is from human, expected gpt: human and gpt must take turns",
        ),
        (
            {"id": "a", "conversations": [ANSWER, ANSWER]},
            "sample a: message 1 is from gpt, expected human",
        ),
        (
            {"id": "a", "conversations": [QUESTION, ANSWER, QUESTION]},
            "sample a: the last message must be an answer from gpt",
        ),
        (
            {"id": "a", "conversations": [ANSWER]},
            "sample a: the last message must be an answer from gpt",
        ),
        (
            {"id": "a", "image": "b.jpg", "conversations": [QUESTION, ANSWER]},
            "sample a: found `<image>` 0 times (from: nobody), expected it once, in a human message",
        ),
        (
            {"id": "a", "image": "b.jpg", "conversations": [SHOWN, ANSWER, SHOWN, ANSWER]},
            "sample a: found `<image>` 2 times (from: human, human), expected it once",
        ),
        (
            {
                "id": "a",
                "image": "b.jpg",
                "conversations": [{"from": "human", "value": "<image>\n<image> <image> which?"}, ANSWER],
            },
            "sample a: found `<image>` 3 times (from: human, human, human), expected it once",
        ),
        (
            {"id": "a", "image": "b.jpg", "conversations": [QUESTION, {"from": "gpt", "value": "<image>"}]},
            "sample a: found `<image>` 1 times (from: gpt), expected it once, in a human message",
        ),
        (
            {"id": "a", "conversations": [SHOWN, ANSWER]},
            "sample a: a human message begins or ends with `<image>`, but the sample has no `image`",
        ),
        (
            {"id": "a", "image": ["b.jpg"], "conversations": [SHOWN, ANSWER]},
            "sample a: `image` is ['b.jpg'], expected one path",
        ),
        (
            {"id": "a", "image": None, "conversations": [QUESTION, ANSWER]},
            "sample a: `image` is None, expected one path; leave the key out in a text-only sample",
        ),
    ],
)
def test_a_bad_sample_is_refused_by_its_id(write, sample, message):
    path = write([sample, {"id": "good", "conversations": [QUESTION, ANSWER]}])
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}: 1 of 2 samples can't be used")


def test_one_error_lists_many_bad_samples(write):
    path = write([{"id": f"s{index}", "conversations": [QUESTION]} for index in range(13)])
    with pytest.raises(ValueError, match="13 of 13 samples") as caught:
        read_records(path)
    assert "sample s9:" in str(caught.value)
    assert str(caught.value).endswith("... and 3 more")
