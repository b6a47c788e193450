import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from llava.eval.benchmark import Answer
from llava.eval.benchmarks.mmmu import Mmmu
from llava.eval.benchmarks.mmmu_answers import (
    chosen_letter,
    found_numbers,
    is_open_answer_right,
    normalised,
    open_values,
)
from llava.eval.benchmarks.mmmu_data import DOMAINS, Gold, options_of_prompt
from llava.eval.reading import MissingDataError
from tests.llava.eval.benchmarks.choices import answer_line, run_export, run_score
from tests.llava.eval.conftest import write_lines
from tests.llava.eval.golden import expected, unpack

EXPECTED = expected("mmmu")


@pytest.mark.parametrize("case", EXPECTED["multiple_choice"], ids=lambda case: case["response"])
def test_letters_are_those_of_the_original(case):
    assert chosen_letter(case["response"], case["options"]) == case["pred"]


@pytest.mark.parametrize("case", EXPECTED["open"], ids=lambda case: case["response"])
def test_open_answers_are_read_and_judged_as_in_the_original(case):
    values = open_values(case["response"])
    kinds = {(("str" if isinstance(value, str) else "num"), value) for value in values}
    assert kinds == {(value["t"], value["v"]) for value in case["parsed"]}
    assert is_open_answer_right(values, case["gold"]) == case["correct"]


@pytest.mark.parametrize("case", EXPECTED["extract_and_normalize"], ids=lambda case: case["text"])
def test_numbers_are_found_and_texts_normalised_as_in_the_original(case):
    assert found_numbers(case["text"]) == case["numbers"]
    assert list(normalised(case["text"])) == case["normalized"]


@pytest.mark.parametrize(
    ("response", "values"),
    [
        ("so 5 =", {"so 5 =", 5.0}),  # the empty tail of "=" undoes the one before it
        ("so :", {"so :"}),  # a mark alone is no phrase
        ("=5\nno", {"=5\nno", 5.0}),  # "=" leads on the last line only
        ("", {""}),
    ],
)
def test_odd_open_answers_have_defined_values(response, values):
    assert open_values(response) == values


def test_the_option_named_last_wins_and_the_first_of_one_place():
    assert chosen_letter("it could well be a cat or a dog", ["a dog", "a cat"]) == "A"
    assert chosen_letter("it could well be a cat or dogs", ["dog", "dogs"]) == "A"


@pytest.fixture
def golden(tmp_path):
    """LLaVA-HR's files: right answers in MMMU/, its outputs as a file of answers."""
    unpack("mmmu", tmp_path)
    (tmp_path / "eval_only").rename(tmp_path / "MMMU")
    outputs = json.loads((tmp_path / "MMMU" / "output.json").read_text())
    write_lines(tmp_path / "a.jsonl", [answer_line(name, text) for name, text in outputs.items()])
    return tmp_path, outputs


def test_scores_per_subject_and_domain_are_those_of_the_original(golden):
    root, _ = golden
    metrics = run_score("mmmu", root, root / "a.jsonl")["metrics"]
    theirs = {
        name: 100 * entry["acc"] for name, entry in EXPECTED["eval_only_result"].items() if entry["num"]
    }
    assert metrics.pop("num_random_fallback") == 0
    names = {"accuracy": "Overall", **{f"domain/{name}": f"Overall-{name}" for name in DOMAINS}}
    assert {names.get(name, name) for name in metrics} == set(theirs)
    for name, value in metrics.items():
        assert value == pytest.approx(theirs[names.get(name, name)], abs=0.05)  # they round to 3 decimals
    assert metrics["accuracy"] == pytest.approx(100 * 6 / 7)


def test_export_writes_letters_and_raw_text_by_id(golden):
    root, outputs = golden
    exported = json.loads(run_export("mmmu", root, root / "a.jsonl", root / "val.json").read_text())
    assert exported == outputs
    assert run_score("mmmu", root, root / "val.json") == run_score("mmmu", root, root / "a.jsonl")


def test_a_missing_answer_is_wrong_and_draws_no_letter(golden):
    root, outputs = golden
    del outputs["validation_Accounting_1"]
    write_lines(root / "a.jsonl", [answer_line(name, text) for name, text in outputs.items()])
    with pytest.raises(SystemExit, match="validation_Accounting_1"):
        run_score("mmmu", root, root / "a.jsonl")
    metrics = run_score("mmmu", root, root / "a.jsonl", "--allow_missing")["metrics"]
    assert (metrics["Accounting"], metrics["num_random_fallback"]) == (0.0, 0)
    exported = json.loads(run_export("mmmu", root, root / "a.jsonl", root / "val.json").read_text())
    assert exported == outputs


def write_subject(root, rows, subject="Accounting"):
    path = root / "MMMU" / subject / "validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def row(number, *, options="['x', 'y']", answer="A", kind="multiple-choice", subject="Accounting", **changes):
    return {
        "id": f"validation_{subject}_{number}",
        "question": "Which is <image 1>?",
        "options": options,
        "answer": answer,
        "question_type": kind,
        "image_1": {"bytes": b"image file", "path": "1.png"},
        "image_2": None,
    } | changes


def test_prompts_are_those_of_the_original(tmp_path):
    unpack("mmmu", tmp_path)
    samples = json.loads((tmp_path / "samples.json").read_text())
    for sample in samples:
        subject = sample["id"].split("_")[1]
        write_subject(tmp_path, [sample | {"image_1": {"bytes": b"image file", "path": None}}], subject)
    questions = Mmmu().questions(tmp_path)
    assert [question.category for question in questions] == ["Accounting", "Art", "Math"]
    prompts = {question.id: question.text for question in questions}
    assert prompts == {entry["id"]: entry["final_input_prompt"] for entry in EXPECTED["prompts"]}
    assert {question.image for question in questions} == {b"image file"}
    for entry in EXPECTED["prompts"]:
        options = entry.get("index2ans", {})
        assert options_of_prompt(entry["final_input_prompt"]) == tuple(options.values())


def test_letters_are_drawn_as_by_the_seeded_original_whatever_the_order_of_the_file(tmp_path):
    sequence = EXPECTED["random_fallback_seed42"]["sequence"]
    rows = [row(n, options=str(list("wxyz")[: case["n_choices"]])) for n, case in enumerate(sequence)]
    write_subject(tmp_path, rows[:2])
    write_subject(
        tmp_path, [line | {"id": f"validation_Art_{n}"} for n, line in enumerate(rows[2:], 2)], "Art"
    )
    lines = [
        answer_line(question.id, case["response"])
        for question, case in zip(Mmmu().references(tmp_path), sequence, strict=True)
    ]
    write_lines(tmp_path / "a.jsonl", lines[::-1])
    exported = json.loads(run_export("mmmu", tmp_path, tmp_path / "a.jsonl", tmp_path / "o.json").read_text())
    assert list(exported.values()) == EXPECTED["random_fallback_seed42"]["preds"]
    scores = run_score("mmmu", tmp_path, tmp_path / "a.jsonl")
    assert scores["metrics"]["num_random_fallback"] == 6
    assert scores["metrics"]["accuracy"] == pytest.approx(100 * 4 / 6)
    assert scores["protocol"] == "mmmu_val_seed42"


def test_without_the_data_set_options_come_from_the_stored_prompt(golden):
    root, outputs = golden
    prompt = "Which?\n(A) 5 (B)\n(B) x\ny\n\nAnswer with the option's letter from the given choices directly."
    assert options_of_prompt(prompt) == ("5 (B)", "x\ny")
    lines = [answer_line(name, text) for name, text in outputs.items()]
    lines[1] |= {"text": "no idea", "prompt": prompt}
    write_lines(root / "a.jsonl", lines)
    assert run_score("mmmu", root, root / "a.jsonl")["metrics"]["num_random_fallback"] == 1


def test_right_answers_of_the_dictionary_go_before_those_of_the_data_set(golden):
    root, _ = golden
    write_subject(root, [row(1, answer="A"), row(2, answer="A")])
    assert [question.gold.truth for question in Mmmu().references(root)] == ["B", "C"]
    write_subject(root, [row(7)])
    with pytest.raises(
        ValueError, match=r"answer_dict_val\.json: no answer for question validation_Accounting_7"
    ):
        Mmmu().references(root)


def test_an_open_question_may_have_several_right_answers(tmp_path):
    write_subject(tmp_path, [row(1, kind="open", options="[]", answer="['1/2', '0.5']")])
    (question,) = Mmmu().questions(tmp_path)
    assert question.gold == Gold(("1/2", "0.5"), None)
    assert Mmmu().gold_text(question) == "1/2 | 0.5"
    assert Mmmu().correctness(question, "it is .5") == 1.0
    assert Mmmu().score([question], [Answer("2", is_missing=False)])["accuracy"] == 0.0


def test_an_answer_that_names_no_letter_is_wrong_on_its_own(tmp_path):
    write_subject(tmp_path, [row(1)])
    (question,) = Mmmu().questions(tmp_path)
    assert [Mmmu().correctness(question, text) for text in ("(A)", "B", "neither")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "validation_Accounting_1"}], "no column answer, image_1, options"),
        ([row(1), row(2, options="x, y")], "row 2: options 'x, y'"),
        ([row(1, options="__import__('os').getcwd()")], "row 1: options "),
        ([row(1, kind="essay")], "row 1: question_type 'essay'"),
        ([row(1, id="validation_Cooking_1")], "no subject 'Cooking'"),
        ([row(1) | {"image_1": {"bytes": None, "path": "1.png"}}], "row 1: image_1 holds no image"),
    ],
)
def test_a_broken_data_set_is_refused_by_row(tmp_path, rows, message):
    path = write_subject(tmp_path, rows)
    with pytest.raises(ValueError, match=message) as caught:
        Mmmu().questions(tmp_path)
    assert str(path) in str(caught.value) or "Cooking" in message


def test_a_file_that_is_not_parquet_is_refused_by_name(tmp_path):
    write_subject(tmp_path, [row(1)]).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"validation-00000-of-00001\.parquet: not a readable parquet file"):
        Mmmu().questions(tmp_path)


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    write_subject(tmp_path, [row(1)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow.*scripts/setup\.sh eval"):
        Mmmu().questions(tmp_path)


@pytest.mark.parametrize(
    "content",
    [[], {"validation_Art_1": "A"}, {"validation_Art_1": {"question_type": "open", "ground_truth": 3}}],
)
def test_a_broken_dictionary_of_answers_is_refused(tmp_path, content):
    (tmp_path / "MMMU").mkdir()
    (tmp_path / "MMMU" / "answer_dict_val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"answer_dict_val\.json: .*expected"):
        Mmmu().references(tmp_path)


def test_absent_data_is_missing_data(tmp_path):
    with pytest.raises(MissingDataError, match="expected the data set MMMU/MMMU"):
        Mmmu().questions(tmp_path)
    with pytest.raises(MissingDataError, match=r"answer_dict_val\.json: no such file"):
        Mmmu().references(tmp_path)
