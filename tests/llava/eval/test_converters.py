"""Upstream's conversion scripts: their flags, and the files that the originals wrote."""

import json

import openpyxl
import pytest

from llava.eval import converters
from tests.llava.eval.golden import unpack

VQAV2_SPLIT = "llava_vqav2_mscoco_test-dev2015"


def read(path):
    return json.loads(path.read_text())


def found(folder, pattern):
    (path,) = folder.rglob(pattern)
    return str(path)


def test_vqav2_is_found_by_split_and_checkpoint(tmp_path):
    expected = unpack("vqav2_conversion", tmp_path)
    folder = tmp_path / "vqav2"
    words = ["--dir", str(folder), "--ckpt", "golden-model", "--split", VQAV2_SPLIT]
    converters.run(converters.vqav2, words)
    assert read(folder / "answers_upload" / VQAV2_SPLIT / "golden-model.json") == expected["output"]


def test_vizwiz_keeps_the_order_of_the_questions(tmp_path):
    expected = unpack("vizwiz_conversion", tmp_path)
    output = tmp_path / "upload" / "x.json"
    words = ["--annotation-file", found(tmp_path, "llava_test.jsonl")]
    words += ["--result-file", found(tmp_path, "golden-model.jsonl"), "--result-upload-file", str(output)]
    converters.run(converters.vizwiz, words)
    assert read(output) == expected["output"]


def test_gqas_predictions_are_lower_case_without_dots(tmp_path):
    expected = unpack("gqa", tmp_path)
    output = tmp_path / "predictions.json"
    converters.run(converters.gqa, ["--src", found(tmp_path, "merge.jsonl"), "--dst", str(output)])
    assert read(output) == expected["predictions"]


def test_mmvets_answers_are_keyed_for_the_grader(tmp_path):
    expected = unpack("mmvet", tmp_path)
    output = tmp_path / "results" / "x.json"
    converters.run(converters.mmvet, ["--src", found(tmp_path, "golden-model.jsonl"), "--dst", str(output)])
    assert read(output) == expected["converted"]


def test_seed_prints_accuracies_and_writes_the_upload(tmp_path, capsys):
    expected = unpack("seed", tmp_path)
    output = tmp_path / "upload.jsonl"
    words = ["--annotation-file", found(tmp_path, "SEED-Bench.json")]
    words += ["--result-file", found(tmp_path, "merge.jsonl"), "--result-upload-file", str(output)]
    converters.run(converters.seed, words)
    assert [json.loads(line) for line in output.read_text().splitlines()] == expected["upload"]
    assert capsys.readouterr().out.splitlines() == expected["stdout_lines"]


def test_mmbenchs_workbook_is_named_after_the_experiment(tmp_path):
    expected = unpack("mmbench_conversion", tmp_path)
    answers = found(tmp_path, "golden-model.jsonl")
    words = ["--annotation-file", found(tmp_path, "*.tsv"), "--result-dir", answers.rsplit("/", 1)[0]]
    words += ["--upload-dir", str(tmp_path / "upload"), "--experiment", "golden-model"]
    converters.run(converters.mmbench, words)
    sheet = openpyxl.load_workbook(tmp_path / "upload" / "golden-model.xlsx").active
    assert [list(row) for row in sheet.iter_rows(values_only=True)] == [
        expected["columns"],
        *expected["rows"],
    ]


@pytest.mark.parametrize(
    ("convert", "words", "message"),
    [
        (
            converters.gqa,
            ["--src", "missing.jsonl", "--dst", "x.json"],
            "convert_gqa: missing.jsonl: no such",
        ),
        (
            converters.seed,
            ["--annotation-file", "a.json", "--result-file", "b", "--result-upload-file", "c"],
            "convert_seed: --annotation-file a.json: expected a file called SEED-Bench.json",
        ),
    ],
)
def test_what_cannot_work_ends_in_one_line(convert, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        converters.run(convert, words)
