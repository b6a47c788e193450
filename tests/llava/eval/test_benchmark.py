import pytest

from llava.eval.benchmark import match_answers, read_answers
from llava.eval.benchmarks import BENCHMARKS
from tests.llava.eval.conftest import write_lines

POPE = BENCHMARKS["pope"]


def rows_for(questions):
    return [{"question_id": q.id, "prompt": q.text, "text": str(q.id)} for q in questions]


def test_the_order_of_answers_does_not_matter(data_root):
    questions = POPE.questions(data_root)
    matched = match_answers(POPE, questions, rows_for(questions)[::-1])
    assert matched.texts == [str(question.id) for question in questions]


def test_missing_duplicate_and_unknown_answers_are_named(data_root):
    questions = POPE.questions(data_root)
    rows = rows_for(questions)
    rows[0] = {"question_id": 77, "prompt": "?", "text": "yes"}
    matched = match_answers(POPE, questions, [*rows, rows[-1] | {"text": "later"}])
    assert matched.texts[0] == ""
    assert matched.texts[-1] == "later"
    with pytest.raises(ValueError, match=r"1 question.* \(1\); 1 .*twice or more \(20000006\); 1 .*\(77\)"):
        matched.require_complete("answers.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question_id": 1, "prompt": "", "text": "a"}\n{"question_id"', ":2: not valid JSON"),
        ('{"question_id": 1, "text": "a"}\n', ":1: no prompt"),
        ("[1, 2]\n", ":1: no question_id, prompt, text"),
        ('{"question_id": 1, "prompt": "", "text": 3}\n', "prompt and text must be strings"),
        ("\n", "empty"),
    ],
)
def test_a_broken_answers_file_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_answers(path)


def test_a_missing_file_is_refused_with_its_purpose(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.jsonl: no such file; expected answers"):
        read_answers(tmp_path / "nowhere.jsonl")


def test_every_benchmark_is_listed_under_its_name(data_root):
    write_lines(
        data_root / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl",
        [{"question_id": "img_a5", "image": "a.jpg", "text": "Price?\nShort."}],
    )
    for name, benchmark in BENCHMARKS.items():
        question = benchmark.questions(data_root)[0]
        assert benchmark.name == name
        assert benchmark.correctness(question, benchmark.gold_text(question)) == 1.0
