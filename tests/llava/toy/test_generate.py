"""The files of the small world: same seed same bytes, real schemas, formats of the real benchmarks."""

import hashlib
import json
import subprocess
import sys

import pytest

from llava.toy.generate import BASE, Sizes, generate
from llava.toy.photos import write_photos
from llava.toy.questions import SUFFIX

SIZES = Sizes(stage1_images=6, stage2_images=6, stage1=8, stage2=60, evaluation=18, small=6)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    generate(folder, seed=0, sizes=SIZES)
    return folder


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_seed_writes_the_same_bytes(world, tmp_path):
    generate(tmp_path, seed=0, sizes=SIZES)
    assert digests(tmp_path) == digests(world)


def test_another_seed_changes_images_questions_and_order_but_not_the_models(world, tmp_path):
    generate(tmp_path, seed=1, sizes=SIZES)
    ours, theirs = digests(world), digests(tmp_path)
    same = {name for name in ours if ours[name] == theirs.get(name)}
    assert ours.keys() == theirs.keys()
    alike = {name for name in ours if name.endswith(("pid_splits.json", ".txt"))}  # ids; MME's two lines
    assert all(name.startswith(("clip-tiny/", "vicuna-tiny/")) for name in same - alike)


@pytest.mark.parametrize(("name", "count"), [("stage1.json", 8), ("stage2.json", 60)])
def test_records_have_llavas_schema(world, name, count):
    records = json.loads((world / name).read_text())
    assert len(records) == count
    assert len({record["id"] for record in records}) == count
    for record in records:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        tags = [turn["value"].count("<image>") for turn in turns]
        assert tags == [int("image" in record), *[0] * (len(turns) - 1)]
        assert "image" not in record or (world / "images" / record["image"]).is_file()


def test_stage_2_has_dialogues_and_text_only_records(world):
    records = json.loads((world / "stage2.json").read_text())
    assert any("image" not in record for record in records)
    assert any(len(record["conversations"]) > 2 for record in records)


def test_gqa_files_fit_together(world):
    folder = world / "eval" / "gqa"
    lines = read_lines(folder / "llava_gqa_testdev_balanced.jsonl")
    official = json.loads((folder / "data" / "testdev_balanced_questions.json").read_text())
    assert [line["question_id"] for line in lines] == list(official)
    assert len(lines) == 18
    for line in lines:
        entry = official[line["question_id"]]
        assert line["text"] == entry["question"] + SUFFIX
        assert (folder / "images" / line["image"]).is_file()
        assert entry["answer"] == entry["answer"].lower().rstrip(".")
        assert entry["isBalanced"]
        assert {"structural", "semantic", "detailed"} <= entry["types"].keys()
        assert (entry["answer"] in ("yes", "no")) == (entry["types"]["structural"] != "query")


def test_pope_labels_stand_in_the_order_of_the_questions(world):
    folder = world / "eval" / "pope"
    lines = read_lines(folder / "llava_pope_test.jsonl")
    assert {path.name for path in (folder / "coco").iterdir()} == {
        f"coco_pope_{category}.json" for category in ("adversarial", "popular", "random")
    }
    assert [line["category"] for line in lines] == ["adversarial"] * 6 + ["random"] * 6 + ["popular"] * 6
    for category in ("adversarial", "popular", "random"):
        asked = [line for line in lines if line["category"] == category]
        labels = read_lines(folder / "coco" / f"coco_pope_{category}.json")
        assert [label["question_id"] for label in labels] == [line["question_id"] for line in asked]
        assert [label["text"] + SUFFIX for label in labels] == [line["text"] for line in asked]
        assert [label["label"] for label in labels].count("yes") == len(labels) / 2
        assert all((folder / "val2014" / line["image"]).is_file() for line in asked)


def test_textvqa_questions_are_found_by_image_and_text(world):
    folder = world / "eval" / "textvqa"
    lines = read_lines(folder / "llava_textvqa_val_v051_ocr.jsonl")
    annotations = json.loads((folder / "TextVQA_0.5.1_val.json").read_text())["data"]
    answers = {(entry["image_id"], entry["question"].lower()): entry["answers"] for entry in annotations}
    assert len(answers) == len(annotations) == len(lines)
    for line in lines:
        question, ocr, instruction = line["text"].split("\n")
        assert ocr == "Reference OCR token: "
        assert "\n" + instruction == SUFFIX
        assert len(answers[line["question_id"], question.lower()]) == 10
        assert (folder / "train_images" / line["image"]).is_file()


def test_every_question_has_its_grade(world):
    for path in (world / "eval").glob("*/*.jsonl"):
        assert {line["grade"] for line in read_lines(path)} <= {"coarse", "medium", "fine"}


def test_the_base_is_small():
    assert sum(path.stat().st_size for path in BASE.rglob("*") if path.is_file()) <= 3 * 2**20
    assert "--seed" in (BASE / "PROVENANCE.md").read_text()


def test_photographs_come_from_installed_packages(tmp_path):
    paths = write_photos(tmp_path)
    names = [line["image"] for line in read_lines(tmp_path / "questions.jsonl")]
    assert names == [path.name for path in paths]
    assert "grace_hopper.jpg" in names


def test_a_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="stage2 must be at least 1, got 0"):
        Sizes(stage2=0)


def test_an_output_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "taken"
    path.write_text("")
    command = [sys.executable, "-m", "llava.toy", "--output", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "can't be made into a folder" in result.stderr
