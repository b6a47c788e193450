import pytest

from llava.eval.reading import (
    MissingDataError,
    read_answers,
    read_answers_leniently,
    read_json,
    read_question_lines,
)

GOOD = '{"question_id": 1, "prompt": "", "text": "a"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"question_id"', ":2: not valid JSON"),
        (GOOD + "\n" + '{"question_id": 2, "te', ":3: not valid JSON"),
        ('{"question_id": 1, "text": "a"}\n', ":1: no prompt"),
        ("[1, 2]\n", ":1: no question_id, prompt, text"),
        ("17\n", ":1: no question_id, prompt, text"),
        ('{"question_id": 1, "prompt": "", "text": 3}\n', ":1: text is 3; expected a string"),
        ('{"question_id": 1, "prompt": "", "text": null}\n', ":1: text is None; expected a string"),
        ('{"question_id": [1], "prompt": "", "text": "a"}\n', r":1: question_id is \[1\]; expected"),
        ('{"question_id": 1.5, "prompt": "", "text": "a"}\n', ":1: question_id is 1.5; expected a string or"),
        ('{"question_id": ' + "9" * 5000 + ', "prompt": "", "text": "a"}\n', ":1: not valid JSON"),
        ("[" * 100_000 + "\n", ":1: not valid JSON"),
        ("\n", "empty"),
        ("", "empty"),
    ],
)
def test_a_broken_answers_file_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_answers(path)


def test_a_missing_file_is_refused_with_its_purpose(tmp_path):
    with pytest.raises(MissingDataError, match=r"nowhere.jsonl: no such file; expected answers"):
        read_answers(tmp_path / "nowhere.jsonl")


def test_a_folder_and_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        read_answers(tmp_path)
    (tmp_path / "image.jsonl").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"image.jsonl:1: not UTF-8 text"):
        read_answers(tmp_path / "image.jsonl")


def test_a_byte_that_is_not_utf_8_is_found_by_its_line(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(GOOD.encode() + '{"text": "Männer"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.jsonl:2: not UTF-8 text"):
        read_answers(tmp_path / "latin.jsonl")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "answers.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.strip().encode() + b"\r\n\r\n")
    assert [row["text"] for row in read_answers(tmp_path / "answers.jsonl").rows] == ["a"]


def test_reading_leniently_keeps_what_is_wrong_with_the_lines_left_out(tmp_path):
    (tmp_path / "answers.jsonl").write_text(GOOD + '{"question_id": 4, "text": "trunc\n\n')
    answers = read_answers_leniently(tmp_path / "answers.jsonl")
    assert [row["question_id"] for row in answers.rows] == [1]
    assert [line.split(":")[1] for line in answers.bad_lines] == ["2", "3"]


@pytest.mark.parametrize("content", ["", "\n\n", "oops\n"])
def test_reading_leniently_refuses_a_file_without_one_answer(tmp_path, content):
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(ValueError, match="no line of this file is an answer"):
        read_answers_leniently(tmp_path / "answers.jsonl")


def test_a_question_line_of_wrong_types_is_refused_with_its_line(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "image": 7, "text": "a"}\n')
    with pytest.raises(ValueError, match=r"q.jsonl:1: image is 7; expected a string"):
        read_question_lines(tmp_path / "q.jsonl")


def test_a_json_file_is_refused_with_the_line_where_it_breaks(tmp_path):
    (tmp_path / "a.json").write_text('{\n "a": 1,\n oops}')
    with pytest.raises(ValueError, match=r"a.json:3: not valid JSON .* expected annotations"):
        read_json(tmp_path / "a.json", "annotations")


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_json_file_is_called_empty(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.json: empty; expected annotations"):
        read_json(tmp_path / "a.json", "annotations")
