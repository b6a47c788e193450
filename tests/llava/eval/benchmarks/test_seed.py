import json

import pytest

from llava.eval.benchmark import Answer
from llava.eval.benchmarks.seed import Seed
from llava.eval.reading import MissingDataError
from tests.llava.eval.benchmarks.choices import run_export, run_score
from tests.llava.eval.conftest import read_lines, write_lines
from tests.llava.eval.golden import unpack


@pytest.fixture
def golden(tmp_path):
    expected = unpack("seed", tmp_path)
    return tmp_path, expected, tmp_path / "seed_bench" / "answers" / "golden-model" / "merge.jsonl"


def test_accuracies_are_those_of_the_original(golden):
    root, expected, answers = golden
    scores = run_score("seed", root, answers)
    names = {
        "accuracy": "Total accuracy",
        "image_accuracy": "image accuracy",
        "video_accuracy": "video accuracy",
    }
    printed = {names.get(name, name): f"{value:.2f}" for name, value in scores["metrics"].items()}
    assert printed == {name: f"{value:.2f}" for name, value in expected["accuracies"].items()}
    assert scores["protocol"] == "seed_all"


def test_export_writes_the_upload_of_the_original(golden):
    root, expected, answers = golden
    assert read_lines(run_export("seed", root, answers, root / "up" / "seed.jsonl")) == expected["upload"]


def test_answers_to_images_alone_are_complete_and_labelled(golden):
    root, _, answers = golden
    write_lines(answers, [row for row in read_lines(answers) if not str(row["question_id"]).startswith("v")])
    scores = run_score("seed", root, answers)
    assert (scores["protocol"], scores["num_questions"]) == ("seed_image", 6)
    assert "video_accuracy" not in scores["metrics"]
    assert len(read_lines(run_export("seed", root, answers, root / "seed.jsonl"))) == 6


def test_a_missing_answer_is_wrong_and_exported_empty(golden):
    root, _, answers = golden
    write_lines(answers, read_lines(answers)[1:])
    with pytest.raises(SystemExit, match=r"1 question\(s\) without an answer \(101\)"):
        run_score("seed", root, answers)
    assert run_score("seed", root, answers, "--allow_missing")["metrics"]["Scene Understanding"] == 0.0
    upload = read_lines(run_export("seed", root, answers, root / "seed.jsonl"))
    assert upload[0] == {"question_id": "101", "prediction": ""}


def test_a_type_without_a_hit_scores_zero_instead_of_failing(golden):
    root, _, _ = golden
    questions = Seed().references(root)
    metrics = Seed().score(questions, [Answer("no letter", is_missing=False)] * len(questions))
    assert set(metrics.values()) == {0.0}


def with_question_file(root):
    lines = [
        {
            "question_id": 101,
            "image": "SEED-Bench-image/1_2",
            "text": "q?",
            "category": "Scene Understanding",
        },
        {"question_id": "v1", "image": "SEED-Bench-video-image/10_1.png", "text": "q?"},
    ]
    write_lines(root / "seed_bench" / "llava-seed-bench.jsonl", lines)
    return root / "seed_bench"


def test_videos_are_asked_only_where_their_frames_are(golden):
    folder = with_question_file(golden[0])
    assert [question.id for question in Seed().questions(golden[0])] == [101]
    (folder / "SEED-Bench-video-image").mkdir()
    questions = Seed().questions(golden[0])
    assert [question.image for question in questions] == [
        folder / "SEED-Bench-image" / "1_2",
        folder / "SEED-Bench-video-image" / "10_1.png",
    ]
    assert questions[1].category == "Action Recognition"


def test_a_question_of_another_release_is_refused(golden):
    folder = with_question_file(golden[0])
    write_lines(folder / "llava-seed-bench.jsonl", [{"question_id": 9, "image": "x", "text": "q"}])
    with pytest.raises(ValueError, match=r"question 9 is not in SEED-Bench\.json"):
        Seed().questions(golden[0])


def test_only_videos_without_frames_is_missing_data(golden):
    folder = with_question_file(golden[0])
    write_lines(folder / "llava-seed-bench.jsonl", [{"question_id": "v1", "image": "x", "text": "q"}])
    with pytest.raises(MissingDataError, match="only questions about videos"):
        Seed().questions(golden[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], 'an object with a list "questions"'),
        ({"questions": [], "question_type": {}}, 'an object with a list "questions"'),
        ({"questions": [{"answer": "A"}], "question_type": {}}, "question 1: expected an object with answer"),
        ({"questions": ["A"], "question_type": {}}, "question 1: expected an object with answer"),
        (
            {
                "questions": [
                    {"answer": "A", "data_type": "audio", "question_id": "1", "question_type_id": 1}
                ],
                "question_type": {"Scene Understanding": 1},
            },
            "question 1: data_type 'audio'",
        ),
    ],
)
def test_broken_annotations_are_refused_by_question(golden, content, message):
    root, _, answers = golden
    (root / "seed_bench" / "SEED-Bench.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        run_score("seed", root, answers)
