import base64
import io
import json
import sys

import pytest
from openpyxl import load_workbook
from PIL import Image

from llava.eval.benchmarks.mmbench import MmBench, chosen_letter
from llava.eval.benchmarks.mmbench_data import asked_questions, read_table
from llava.eval.reading import MissingDataError
from tests.llava.eval.benchmarks.choices import answer_line, run_export, run_score
from tests.llava.eval.conftest import read_lines, write_lines
from tests.llava.eval.golden import FOLDER, unpack

TSV = "mmbench/mmbench_dev_20230712.tsv"
ANSWERS = "mmbench/answers/mmbench_dev_20230712/golden-model.jsonl"
COLUMNS = ("index", "question", "A", "B", "C", "D", "answer", "category", "l2-category")
DRIVERS = json.loads((FOLDER / "drivers" / "expected.json").read_text())


def write_table(path, rows, columns=COLUMNS):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns)]
    lines += ["\t".join(str(row.get(name) or "") for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def circular(tmp_path):
    """The golden rows of the circular evaluation, as a TSV file and a file of answers."""
    expected = unpack("mmbench_circular", tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    write_table(tmp_path / TSV, [row | {"l2-category": row["L2-category"]} for row in rows])
    write_lines(tmp_path / "a.jsonl", [answer_line(row["index"], row["prediction"]) for row in rows])
    return tmp_path, expected, rows


def test_a_question_counts_if_every_rotation_is_right(circular):
    root, expected, _ = circular
    scores = run_score("mmbench", root, root / "a.jsonl")
    theirs = {
        "accuracy": expected["overall"],
        **{f"category/{name}": value for name, value in expected["category"].items()},
        **{f"l2/{name}": value for name, value in expected["l2"].items()},
    }
    assert scores["metrics"] == {name: 100 * value for name, value in theirs.items()} | {"num_undecided": 0}
    assert scores["protocol"] == "mmbench_dev_circular_rules"


def test_letters_are_those_of_the_original_rules(circular):
    _, expected, rows = circular
    for row in rows:
        options = {letter: row[letter] for letter in "ABCD" if row[letter] is not None}
        assert chosen_letter(row["prediction"], options) == (expected["prefetch"][str(row["index"])] or None)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("B is it", "B"),
        ("A cat sits there", "A"),  # the article doesn't count, the option's text does
        ("A bird sits there", None),
        ("A bird sits on B.", "B"),
        ("A or B", None),
        ("(A) or (B)", None),
        ("answer :B,", "B"),
        ("b", None),
        ("E", "E"),
        ("F", None),
        ("the DOG", "B"),
        ("dog and cat", None),
        ("B: a cat", "B"),
        ("A. or (B)", "A"),
        ("", None),
    ],
)
def test_letters_words_and_option_texts_are_told_apart(answer, letter):
    assert chosen_letter(answer, {"A": "cat", "B": "dog"}) == letter


def test_undecided_rows_are_counted_and_wrong(circular):
    root, _, rows = circular
    rows[2]["prediction"] = "none of them"
    write_lines(root / "a.jsonl", [answer_line(row["index"], row["prediction"]) for row in rows])
    metrics = run_score("mmbench", root, root / "a.jsonl")["metrics"]
    assert metrics["num_undecided"] == 1
    assert metrics["accuracy"] == 75.0  # that question was wrong before


def test_the_later_release_has_a_label_of_its_own(circular):
    root, _, _ = circular
    (root / TSV).rename(root / "mmbench" / "mmbench_dev_en_20231003.tsv")
    protocol = "mmbench_dev_en_20231003_circular_rules"
    assert run_score("mmbench", root, root / "a.jsonl")["protocol"] == protocol
    chosen = run_score("mmbench", root, root / "a.jsonl", "--split", "dev_en_20231003")
    assert chosen["protocol"] == protocol


def test_rows_without_public_answers_are_not_scored(circular):
    root, _, rows = circular
    columns = [name for name in COLUMNS if name != "answer"]
    write_table(root / "mmbench" / "mmbench_test_en_20231003.tsv", rows, columns)
    with pytest.raises(SystemExit, match=r"mmbench_test_en_20231003: its right answers aren't public"):
        run_score("mmbench", root, root / "a.jsonl", "--split", "test_en_20231003")


@pytest.fixture
def conversion(tmp_path):
    return tmp_path, unpack("mmbench_conversion", tmp_path)


def cells(path):
    workbook = load_workbook(path)
    (sheet,) = workbook.worksheets
    return sheet.title, [[cell.value for cell in row] for row in sheet.iter_rows()], sheet


def test_the_workbook_is_that_of_the_original_converter(conversion):
    root, expected = conversion
    title, rows, _ = cells(run_export("mmbench", root, root / ANSWERS, root / "new" / "up.xlsx"))
    assert title == expected["sheet_title"]
    assert rows == [expected["columns"], *expected["rows"]]


def test_a_prediction_never_becomes_a_formula_or_breaks_the_sheet(conversion):
    root, _ = conversion
    answers = read_lines(root / ANSWERS)
    answers[0]["text"] = '=HYPERLINK("http://x")'
    answers[1]["text"] = "A\x00\x1b\ud800"
    write_lines(root / ANSWERS, answers)
    _, rows, sheet = cells(run_export("mmbench", root, root / ANSWERS, root / "up.xlsx"))
    assert [row[6] for row in rows[1:3]] == ['=HYPERLINK("http://x")', "A"]
    assert sheet["G2"].data_type == "s"


def test_numeric_options_stay_text(tmp_path):
    row = {"index": 1, "question": "q", "A": "1", "B": "2.50", "answer": "A"}
    write_table(tmp_path / TSV, [row])
    write_lines(tmp_path / "a.jsonl", [answer_line(1, "A")])
    _, rows, _ = cells(run_export("mmbench", tmp_path, tmp_path / "a.jsonl", tmp_path / "up.xlsx"))
    assert rows[1][2:4] == ["1", "2.50"]


def test_an_output_that_cannot_be_written_is_refused(conversion):
    root, _ = conversion
    (root / "up.xlsx").mkdir()
    with pytest.raises(SystemExit, match=r"can't write .*up\.xlsx"):
        run_export("mmbench", root, root / ANSWERS, root / "up.xlsx")


def test_without_openpyxl_the_error_says_how_to_get_it(conversion, monkeypatch):
    root, _ = conversion
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(SystemExit, match=r"needs openpyxl; install it with: scripts/setup\.sh"):
        run_export("mmbench", root, root / ANSWERS, root / "up.xlsx")


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("mmbench_single_pred", {}),
        ("mmbench_no_prompt", {"suffix": ""}),
        ("mmbench_all_rounds", {"all_rounds": True}),
    ],
)
def test_prompts_and_rounds_are_those_of_the_original_driver(case, options):
    questions = asked_questions(read_table(FOLDER / "drivers" / "mmbench.tsv"), **options)
    prompts = [f"<BOS>{{SYSTEM}} USER: <IMG>\n{question.text} ASSISTANT:" for question in questions]
    assert prompts == DRIVERS[case]["prompts"]
    rows = [
        {"question_id": question.id, "prompt": question.stored_prompt, **question.extra}
        for question in questions
    ]
    theirs = [{key: row[key] for key in rows[0]} for row in DRIVERS[case]["answers"]]
    assert rows == theirs


def test_the_image_is_decoded_from_its_cell():
    question = asked_questions(read_table(FOLDER / "drivers" / "mmbench.tsv"))[0]
    assert Image.open(io.BytesIO(question.image)).size == (6, 4)


def test_chinese_files_get_the_chinese_suffix(tmp_path):
    text = (FOLDER / "drivers" / "mmbench.tsv").read_text()
    folder = tmp_path / "mmbench_cn"
    folder.mkdir()
    (folder / "mmbench_dev_cn_20231003.tsv").write_text(text)
    questions = MmBench().of_split("dev_cn_20231003").questions(tmp_path)
    prompts = [f"<BOS>{{SYSTEM}} USER: <IMG>\n{question.text} ASSISTANT:" for question in questions]
    assert prompts == DRIVERS["mmbench_cn"]["prompts"]


HEADER = "index\tquestion\tA\tB\timage\n"
IMAGE = base64.b64encode(b"x").decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: no column index, question, A, B"),
        ("question_id,text\n1,2\n", ":1: no column index, question, A, B"),
        (HEADER, "no question"),
        (f"{HEADER}1\tq\tx\ty\t{IMAGE}\n2\tq\tx\n", ":3: 3 cells, expected 5 as in line 1"),
        (f'{HEADER}1\t"q\nr\tx\ty\t{IMAGE}\n', ":3: 2 cells, expected 5"),
        (f"{HEADER}one\tq\tx\ty\t{IMAGE}\n", ":2: index 'one'; expected a whole number"),
        (f"{HEADER}1\tq\tx\ty\t{IMAGE}\n1\tq\tx\ty\t{IMAGE}\n", ":3: index '1'"),
        (f"{HEADER}1\tq\tnan\ty\t{IMAGE}\n", ":2: no question, or no option A"),
        (f"{HEADER}1\tq\tx\ty\t\n", ":2: no image"),
        (f"{HEADER}1\tq\tx\ty\tno base64!\n", ":2: the image is not base64"),
    ],
)
def test_a_broken_table_is_refused_by_line(tmp_path, content, message):
    (tmp_path / "mmbench").mkdir()
    (tmp_path / TSV).write_text(content)
    with pytest.raises(ValueError, match=rf"mmbench_dev_20230712\.tsv(?s:.*){message}"):
        MmBench().questions(tmp_path)


def test_bytes_that_are_no_text_are_refused_by_name(tmp_path):
    (tmp_path / "mmbench").mkdir()
    (tmp_path / TSV).write_bytes(b"index\tquestion\tA\tB\n1\t\xff\xfe\tx\ty\n")
    with pytest.raises(ValueError, match=r"20230712\.tsv: can't be read"):
        MmBench().questions(tmp_path)


def test_an_absent_table_is_missing_data(tmp_path):
    with pytest.raises(MissingDataError, match=r"mmbench_dev_20230712\.tsv: no such file"):
        MmBench().questions(tmp_path)
