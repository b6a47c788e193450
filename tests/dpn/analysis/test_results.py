"""Result folders that aren't as the evaluation writes them: each is named with its place, in one line."""

import json

import pytest

from dpn.analysis import figures, tables
from dpn.analysis.results import load_run
from tests.dpn.analysis.scored import write_run

MISSING = object()


@pytest.fixture
def folder(tmp_path):
    """One benchmark of a run, to be broken."""
    write_run(tmp_path / "run", {"gqa": [1.0, 0.0, 1.0]})
    return tmp_path / "run" / "gqa"


def message_of(folder):
    with pytest.raises(ValueError, match=r"; evaluate it again$") as caught:
        load_run(str(folder.parent))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder}/")
    return message.removeprefix(f"{folder}/")


def line(**changes):
    return json.dumps({"question_id": 1, "prompt": "p", "score": 1.0} | changes)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('{"question_id": "x", "pro', "not valid JSON (Unterminated string starting at)"),
        ("[1, 2]", "a list, expected an object"),
        ("null", "null, expected an object"),
        ('{"score": 1.0, "prompt": "p"}', "no question_id"),
        (line(score="1"), "score is '1', expected a number or null"),
        (line(score=float("nan")), "score is nan, expected a number or null"),
        (line(score=True), "score is True, expected a number or null"),
        (line(question_id=[1]), "question_id is [1], expected a string or a number"),
        (line(grade={"a": 1}), "grade is {'a': 1}, expected a string"),
        (line(route=["2x2", "big"]), "route is ['2x2', 'big'], expected kernels"),
        ("[" * 100_000, "not readable as JSON"),
    ],
)
def test_a_line_that_is_no_answer_is_named_with_its_number(folder, added, message):
    path = folder / "answers.jsonl"
    path.write_text(f"{path.read_text()}{added}\n")
    assert message_of(folder).startswith(f"answers.jsonl, line 4: {message}")


def test_blank_lines_are_passed_over_as_the_evaluation_does(folder):
    path = folder / "answers.jsonl"
    path.write_text(path.read_text().replace("\n", "\r\n", 1) + "  \n\n")
    assert len(load_run(str(folder.parent)).answers) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8 text (invalid start byte)"),
        (b"", "empty, expected an answer per line"),
        (b" \n", "empty, expected an answer per line"),
    ],
)
def test_a_file_without_answers_is_named(folder, content, message):
    (folder / "answers.jsonl").write_bytes(content)
    assert message_of(folder).startswith(f"answers.jsonl: {message}")


def test_a_missing_file_of_answers_is_named(folder):
    (folder / "answers.jsonl").unlink()
    assert message_of(folder).startswith("answers.jsonl: no such file beside scores.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "scores.json: a list, expected an object"),
        (b"", "scores.json: not valid JSON (Expecting value)"),
        (b'{"a": 1,\n"b": }', "scores.json, line 2: not valid JSON (Expecting value)"),
        (b"\xff\xfe\x00", "scores.json: not UTF-8 text (invalid start byte)"),
    ],
)
def test_scores_that_are_no_object_are_named(folder, content, message):
    (folder / "scores.json").write_bytes(content)
    assert message_of(folder).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("protocol", MISSING, ": no protocol"),
        ("metrics", MISSING, ": no metrics"),
        ("headline", MISSING, ": no headline"),
        ("headline", "f1", ": the headline 'f1' is none of its metrics"),
        ("protocol", ["a"], ": protocol is ['a'], expected a string"),
        ("metrics", [], ": metrics is [], expected an object of numbers"),
        ("metrics", {"accuracy": None}, ", metrics: accuracy is None, expected a finite number"),
        ("metrics", {"accuracy": float("nan")}, ", metrics: accuracy is nan, expected a finite number"),
        ("metrics", {"accuracy": 1, "b": float("inf")}, ", metrics: b is inf, expected a finite number"),
        ("flops_ratio", {"paper": "x"}, ": flops_ratio is {'paper': 'x'}, expected an object of numbers"),
        ("flops_ratio", {"paper": None}, ": flops_ratio is {'paper': None}, expected an object of numbers"),
        ("seconds_per_sample", 0, ": seconds_per_sample is 0, expected a number above 0, or null"),
        ("visual_tokens", -1, ": visual_tokens is -1, expected a number of 0 or more"),
        ("reduction", "fastv", ": reduction is 'fastv', expected an object with a method, or null"),
        ("reduction", {"layers": [2]}, ": reduction is {'layers': [2]}, expected an object with a method"),
        ("by_grade", {"fine": 3}, ": by_grade is {'fine': 3}, expected an object of numbers per grade"),
        ("device", ["cpu"], ": device is ['cpu'], expected a string or null"),
    ],
)
def test_a_score_that_is_none_is_named(folder, key, value, message):
    path = folder / "scores.json"
    scores = json.loads(path.read_text()) | {key: value}
    path.write_text(json.dumps({name: found for name, found in scores.items() if found is not MISSING}))
    assert message_of(folder).startswith(f"scores.json{message}")


@pytest.mark.parametrize(
    ("program", "words"), [(tables, ["table4", "--runs", "dpn={}"]), (figures, ["fig3", "--runs", "dpn={}"])]
)
def test_the_commands_end_with_that_line(folder, tmp_path, program, words):
    (folder / "scores.json").write_text("[]")
    words = [word.format(folder.parent) for word in words]
    with pytest.raises(SystemExit, match=r"scores.json: a list, expected an object; evaluate it again$"):
        program.main([*words, "--output", str(tmp_path / "out")])
