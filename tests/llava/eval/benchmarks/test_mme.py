import shutil

import pytest

from llava.eval.benchmark import CHOICE_ANSWER, SHORT_ANSWER
from llava.eval.benchmarks.mme import Mme, said
from llava.eval.reading import MissingDataError
from tests.llava.eval.benchmarks.choices import answer_line, run_export, run_score
from tests.llava.eval.conftest import draw, read_lines, write_lines
from tests.llava.eval.golden import unpack

RELEASE = "MME/MME_Benchmark_release_version"


@pytest.fixture
def golden(tmp_path):
    expected = unpack("mme", tmp_path)
    return tmp_path, expected, tmp_path / "MME" / "answers" / "golden-model.jsonl"


def test_points_are_those_of_the_official_calculator(golden):
    root, expected, answers = golden
    metrics = run_score("mme", root, answers)["metrics"]
    official = {"perception": expected["scores"]["Perception"], "cognition": expected["scores"]["Cognition"]}
    for half, points in official.items():
        assert metrics[half] == pytest.approx(points.pop("total"), abs=1e-6)
        for category, value in points.items():
            assert metrics[category] == pytest.approx(value, abs=1e-6)
    assert len(metrics) == 2 + 14


def test_export_writes_the_files_of_the_original_converter(golden):
    root, expected, answers = golden
    folder = run_export("mme", root, answers, root / "results" / "golden")
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert written == expected["converted_files"]


def test_shuffled_answers_score_alike_and_export_the_lines_of_an_image_together(golden):
    root, _, answers = golden
    before = run_score("mme", root, answers)
    rows = read_lines(answers)
    write_lines(answers, rows[::2] + rows[1::2][::-1])
    assert run_score("mme", root, answers) == before
    lines = (run_export("mme", root, answers, root / "out") / "existence.txt").read_text().splitlines()
    names = [line.split("\t")[0] for line in lines]
    assert names[::2] == names[1::2]


def test_a_missing_answer_is_refused_since_the_calculator_pairs_lines(golden):
    root, _, answers = golden
    write_lines(answers, read_lines(answers)[1:])
    with pytest.raises(SystemExit, match=r"1 question\(s\) without an answer \(existence/000001"):
        run_export("mme", root, answers, root / "out")
    scores = run_score("mme", root, answers, "--allow_missing")
    assert scores["num_missing"] == 1
    assert scores["metrics"]["existence"] == pytest.approx(100 * 2 / 6)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Yes", "yes"),
        ("nO", "no"),
        ("  no", "no"),
        ("   no", "other"),
        ("\nyes", "yes"),
        ("none", "no"),
        ("I know", "other"),
        ("know", "no"),
        ("unknown", "other"),
        ("y", "other"),
        ("n", "other"),
        ("eyes", "yes"),
        ("", "other"),
    ],
)
def test_answers_are_read_from_their_first_four_characters(answer, label):
    assert said(answer) == label


def test_answers_with_tabs_and_line_breaks_keep_to_their_cell(golden):
    root, _, answers = golden
    rows = read_lines(answers)
    rows[0]["text"] = "Yes\tof\ncourse\ud800"
    write_lines(answers, rows)
    lines = (run_export("mme", root, answers, root / "out") / "existence.txt").read_text().split("\n")
    assert lines[0].split("\t")[2:] == ["Yes", "Yes of course"]
    assert len(lines) == 7


def test_a_category_of_neither_yes_nor_no_scores_zero(golden):
    root, _, answers = golden
    rows = read_lines(answers)
    for row in rows:
        row["text"] = "unsure" if row["question_id"].startswith("color/") else row["text"]
    write_lines(answers, rows)
    assert run_score("mme", root, answers)["metrics"]["color"] == 0.0


def test_without_a_question_file_the_official_answers_give_the_same_prompts(golden):
    root, _, answers = golden
    draw(root / RELEASE / "existence" / "000001.png")
    questions = Mme().questions(root)
    prompts = {(q.id.rsplit(".", 1)[0], q.text) for q in questions}
    rows = read_lines(answers)
    assert prompts == {(row["question_id"].rsplit(".", 1)[0], row["prompt"]) for row in rows}
    assert questions[0].image == root / RELEASE / "existence" / "000001.png"
    assert questions[-1].image == root / RELEASE / "code_reasoning" / "0001.jpg"


def test_the_question_file_sets_the_order_and_finds_nested_images(golden):
    root, _, answers = golden
    rows = read_lines(answers)[::-1]
    lines = [
        {"question_id": row["question_id"], "image": row["question_id"], "text": row["prompt"]}
        for row in rows
    ]
    write_lines(root / "MME" / "llava_mme.jsonl", lines)
    questions = Mme().questions(root)
    assert [question.id for question in questions] == [row["question_id"] for row in rows]
    artwork = next(question for question in questions if question.category == "artwork")
    assert artwork.image.relative_to(root / RELEASE).parts[:2] == ("artwork", "images")


def test_a_question_of_another_release_is_refused(golden):
    root, _, _ = golden
    line = {"question_id": "count/000010.jpg", "image": "count/000010.jpg", "text": f"Is it?{SHORT_ANSWER}"}
    write_lines(root / "MME" / "llava_mme.jsonl", [line])
    with pytest.raises(ValueError, match=r"question count/000010.jpg .* is not in MME_Benchmark_release"):
        Mme().questions(root)


def test_official_answers_that_are_none_are_refused_by_line(golden):
    root, _, answers = golden
    path = root / RELEASE / "color" / "0000.txt"
    path.write_text("Is it red? Please answer yes or no.\tYes\n\nIs it blue? Please answer yes or no. No\n")
    with pytest.raises(SystemExit, match=r"color/0000\.txt:3: .*expected a question, a tab"):
        run_score("mme", root, answers)


def test_a_category_that_is_not_there_is_missing_data(golden):
    root, _, _ = golden
    shutil.rmtree(root / RELEASE / "posters")
    with pytest.raises(MissingDataError, match="all fourteen categories"):
        Mme().questions(root)


def test_answers_of_another_benchmark_are_refused(golden):
    root, _, answers = golden
    write_lines(answers, [answer_line(7, "A", f"q{CHOICE_ANSWER}")])
    with pytest.raises(SystemExit, match="of another benchmark"):
        run_score("mme", root, answers)
