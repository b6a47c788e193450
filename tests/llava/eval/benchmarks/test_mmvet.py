import json

import pytest

from llava.eval.benchmarks.mmvet import MmVet
from llava.eval.export import main as export
from llava.eval.score import main as score
from tests.llava.eval.conftest import write_lines
from tests.llava.eval.golden import expected, unpack

ANSWERS = "mm-vet/answers/golden-model.jsonl"
GRADES = "mm-vet/results/golden-model_gpt-4-0613-grade-1runs.json"


@pytest.fixture
def root(tmp_path):
    unpack("mmvet", tmp_path)
    return tmp_path


def run(program, root, *flags, answers=ANSWERS):
    words = ["--data_root", str(root), "--answers", str(root / answers), "--output", str(root / "out.json")]
    program(["mmvet", *words, *map(str, flags)])
    return json.loads((root / "out.json").read_text())


def test_the_graders_file_is_that_of_the_original_converter(root):
    assert run(export, root) == expected("mmvet")["converted"]


@pytest.mark.parametrize("answers", [ANSWERS, GRADES])
def test_grades_add_up_as_in_the_official_aggregation(root, answers):
    scores = run(score, root, answers=answers)
    assert scores["protocol"] == "mmvet+judge_gpt-4-0613"
    golden = expected("mmvet")
    for name, value in golden["cap_score"].items():
        if name != "runs":
            assert round(scores["metrics"][name], 1) == value
    integrations = golden["cap_integration_score_sorted_keys"]
    for name in integrations.keys() - {"total", "std", "runs"}:
        assert round(scores["metrics"][f"integration/{name}"], 1) == integrations[name]


def test_without_grades_the_error_says_how_to_get_them(root):
    (root / GRADES).unlink()
    with pytest.raises(
        SystemExit, match=r"6 of 6 MM-Vet answers have no grade .*llava.eval.export mmvet.*--grades"
    ):
        run(score, root)
    questions = MmVet().questions(root)
    assert MmVet().protocol(questions, []) == "mmvet-ungraded"
    assert MmVet().correctness(questions[0], "x") is None


def test_grades_of_several_runs_are_averaged_and_their_spread_is_told(root):
    grades = json.loads((root / GRADES).read_text())
    for entry in grades.values():
        entry["score"].append(1.0)
    (root / "three.json").write_text(json.dumps(grades))
    scores = run(score, root, "--grades", root / "three.json")
    assert scores["protocol"] == "mmvet+judge_unknown_2runs"
    assert scores["metrics"]["total"] == pytest.approx((100 * 2.9 / 6 + 100) / 2)
    assert scores["metrics"]["std"] == pytest.approx((100 - 100 * 2.9 / 6) / 2)


def test_grades_of_a_model_whose_name_only_starts_alike_are_not_taken(root):
    (root / GRADES).rename(root / "mm-vet/results/golden-model_lora_gpt-4-0613-grade-1runs.json")
    with pytest.raises(SystemExit, match="have no grade"):
        run(score, root)


def test_grades_lie_beside_the_answers_under_the_submissions_name(root):
    run = root / "results" / "some-checkpoint" / "mmvet"
    run.mkdir(parents=True)
    (root / ANSWERS).rename(run / "answers.jsonl")
    (root / GRADES).rename(run / f"{MmVet.submission.removesuffix('.json')}_gpt-4-grade-1run.json")
    words = ["--data_root", str(root), "--answers", str(run / "answers.jsonl")]
    score(["mmvet", *words, "--output", str(run / "scores.json")])
    assert json.loads((run / "scores.json").read_text())["protocol"] == "mmvet+judge_gpt-4"


def test_grades_in_the_folder_of_the_answers_are_found_once(root):
    (root / ANSWERS).rename(root / "mm-vet" / "results" / "golden-model.jsonl")
    assert run(score, root, answers="mm-vet/results/golden-model.jsonl")["num_missing"] == 0


def test_two_judges_are_not_chosen_between(root):
    (root / "mm-vet/results/golden-model_gpt-5-grade-1runs.json").write_text((root / GRADES).read_text())
    with pytest.raises(SystemExit, match=r"there are 2 grade files .*name one with --grades"):
        run(score, root)
    assert run(score, root, "--grades", root / GRADES)["protocol"] == "mmvet+judge_gpt-4-0613"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grades: grades.pop("v1_3"), r"1 of 6 MM-Vet answers have no grade \(3\)"),
        (lambda grades: grades["v1_3"].update(score=[2]), r"v1_3: expected .score.: a list of numbers in"),
        (lambda grades: grades["v1_3"].update(score=[]), "v1_3 have fewer than 1 grades"),
        (lambda grades: grades["v1_3"].update(score="os.system"), "v1_3: expected .score."),
    ],
)
def test_an_incomplete_or_broken_grade_file_is_refused(root, change, message):
    grades = json.loads((root / GRADES).read_text())
    change(grades)
    (root / GRADES).write_text(json.dumps(grades))
    with pytest.raises(SystemExit, match=message):
        run(score, root)


def test_llavas_question_file_sets_order_and_wording(root):
    lines = [
        {"question_id": i, "image": f"v1_{i}.png", "text": f"Asked {i}", "category": "conv"} for i in (5, 0)
    ]
    write_lines(root / "mm-vet" / "llava-mm-vet.jsonl", lines)
    questions = MmVet().questions(root)
    assert [question.text for question in questions] == ["Asked 5", "Asked 0"]
    assert MmVet().gold_text(questions[1]) == "-1<AND>-5"
    write_lines(root / "mm-vet" / "llava-mm-vet.jsonl", [lines[0] | {"question_id": 99}])
    with pytest.raises(ValueError, match=r"1 questions are not in mm-vet.json \(99\)"):
        MmVet().questions(root)
