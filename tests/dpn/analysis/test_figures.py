"""`python -m dpn.analysis.figures fig4` on questions and answers that are hard to write down."""

import json

import pytest

from dpn.analysis.figures import main
from tests.dpn.analysis.conftest import GRADES

ONE_ROUTE = {grade: [["2x2", "2x2", "2x2"]] for grade in GRADES}


@pytest.fixture
def fig4(make_run, data_root, tmp_path):
    """Draw one pair and one route of a run whose every answer is changed; give the folder written to."""

    def draw(**changes):
        folder = make_run("hard", routes=ONE_ROUTE)
        for path in folder.glob("*/answers.jsonl"):
            rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ["--runs", f"dpn={folder}", "--data_root", str(data_root), "--pairs", "gqa:8,0"]
        main(["fig4", *words, "--output", str(tmp_path / "out")])
        return tmp_path / "out"

    return draw


def test_dollars_are_no_formula_and_line_breaks_end_no_row(fig4):
    out = fig4(prompt="Is it $5^ or $6_ {x?\nAnswer.", text="$a^ $b_\ntwo | three\n\n\tfour")
    (row, _) = (line for line in (out / "fig4.md").read_text().splitlines() if line.startswith("| gqa/"))
    assert r"| Is it $5^ or $6_ {x? | $a^ $b_ two \| three four |" in row
    (line, _) = (line for line in (out / "fig4.tex").read_text().splitlines() if line.startswith("gqa/"))
    assert r"\$a\textasciicircum{} \$b\_ two | three four &" in line
    assert line.endswith(r"\\")
    for name in ("fig4_routes.png", "fig4_questions.png"):
        assert (out / name).stat().st_size > 10_000


def test_answers_without_an_image_are_refused_in_words(fig4):
    with pytest.raises(SystemExit, match="no answer with a route and an image has the id 8"):
        fig4(image=None)


def test_an_image_that_can_not_be_read_is_named(fig4, data_root):
    (data_root / "gqa" / "images" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    with pytest.raises(SystemExit, match=r"gqa/images/0.png: the image can't be read"):
        fig4(image="gqa/images/0.png")


def test_an_image_path_that_no_file_can_have_is_named(fig4):
    with pytest.raises(SystemExit, match=r"/a{100,}.*: the image can't be read .*File name too long"):
        fig4(image="a" * 5000)
