import pytest

from llava.eval.benchmark import match_answers, some
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.reading import MissingDataError

POPE = BENCHMARKS["pope"]


def rows_for(questions):
    return [{"question_id": q.id, "prompt": q.text, "text": str(q.id)} for q in questions]


def test_the_order_of_answers_does_not_matter(data_root):
    questions = POPE.questions(data_root)
    matched = match_answers(POPE, questions, rows_for(questions)[::-1])
    assert [answer.text for answer in matched.answers] == [str(question.id) for question in questions]


def test_missing_duplicate_and_unknown_answers_are_named(data_root):
    questions = POPE.questions(data_root)
    rows = rows_for(questions)
    rows[0] = {"question_id": 77, "prompt": "?", "text": "yes"}
    matched = match_answers(POPE, questions, [*rows, rows[-1] | {"text": "later"}])
    assert matched.answers[0].is_missing
    assert matched.answers[-1].text == "later"
    with pytest.raises(ValueError, match=r"1 question.* \(1\); 1 .*twice or more \(20000006\); 1 .*\(77\)"):
        matched.require_complete("answers.jsonl")


def test_where_a_file_asks_one_thing_twice_the_answers_go_in_order(data_root):
    question = POPE.questions(data_root)[0]
    rows = rows_for([question, question])
    rows[0]["text"], rows[1]["text"] = "first", "second"
    answers = match_answers(POPE, [question, question], rows).answers
    assert [answer.text for answer in answers] == ["first", "second"]


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_every_benchmark_says_where_its_published_values_come_from(benchmark):
    assert BENCHMARKS[benchmark.name] is benchmark
    assert set(benchmark.published) == {"llava-1.5-7b", "dpn-llava-7b"}
    assert benchmark.published_protocol


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_a_benchmark_that_isnt_there_names_the_file_it_wants(benchmark, tmp_path):
    with pytest.raises(MissingDataError, match=f"{tmp_path}/{benchmark.folder}[/:].*no .*; expected"):
        benchmark.questions(tmp_path)


def test_a_benchmark_with_one_split_and_no_judge_takes_no_other():
    with pytest.raises(ValueError, match="pope has no split 'val' to choose"):
        POPE.of_split("val")
    with pytest.raises(ValueError, match="pope takes no grades"):
        POPE.of_grades("grades.json")


def test_an_id_that_a_terminal_would_obey_is_quoted():
    assert some(["1", "\x1b[2J", "x" * 999, "4"], named=3).startswith("1, '\\x1b[2J', 'xxx")
    assert some(["1", "2"], named=1) == "1 and 1 more"
