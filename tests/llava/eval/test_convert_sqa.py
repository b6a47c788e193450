import json

import pytest

from llava.eval.convert_sqa import main, record
from tests.llava.eval.golden import expected, unpack

CASES = expected("sqa_conversion")


@pytest.fixture
def folder(tmp_path):
    unpack("sqa_conversion", tmp_path)
    return tmp_path


@pytest.mark.parametrize("prompt_format", CASES)
def test_records_and_lines_are_the_originals(folder, prompt_format):
    words = ["--base-dir", str(folder), "--split", "test", "--prompt-format", prompt_format]
    main(["convert_to_llava", *words])
    main(["convert_to_jsonl", *words])
    records = json.loads((folder / f"llava_test_{prompt_format}.json").read_text())
    lines = (folder / f"scienceqa_test_{prompt_format}.jsonl").read_text().splitlines()
    assert records == CASES[prompt_format]["llava_json"]
    assert [json.loads(line) for line in lines] == CASES[prompt_format]["jsonl"]


@pytest.mark.parametrize("prompt_format", ["QCM", "QMC-A", "QCM-B", "QCM-P", ""])
def test_an_unknown_format_is_refused(folder, prompt_format):
    problem = json.loads((folder / "problems.json").read_text())["1"]
    with pytest.raises(ValueError, match="expected one like QCM-LEA"):
        record("1", problem, prompt_format)


def test_an_unknown_split_ends_in_one_line(folder):
    with pytest.raises(SystemExit, match="convert_sqa_to_llava: --split dev: there are test, train, val"):
        main(["convert_to_llava", "--base-dir", str(folder), "--split", "dev"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("answer", 7, "problem 1: expected choices as strings, and as answer the place of one of them"),
        ("choices", [None, "rock"], "problem 1: expected choices as strings"),
        ("lecture", 3, "problem 1: lecture is 3; expected a string"),
        (None, "text", "problem 1 is 'text'; expected an object with question, choices"),
    ],
)
def test_a_problem_that_is_none_ends_in_one_line(folder, key, value, message):
    problems = json.loads((folder / "problems.json").read_text())
    problems["1"] = value if key is None else problems["1"] | {key: value}
    (folder / "problems.json").write_text(json.dumps(problems))
    with pytest.raises(SystemExit, match=message):
        main(["convert_to_llava", "--base-dir", str(folder), "--split", "test"])
