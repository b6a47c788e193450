"""One table in its three forms."""

from dataclasses import replace

import pytest
from PIL import Image

from dpn.analysis.picture import draw
from dpn.analysis.render import Table, escape, latex, markdown

TABLE = Table(
    title="Scores & costs",
    groups=(("", ("row",)), ("GQA", ("paper", "ours")), ("", ("speed",))),
    rows=(("protocol", "a_b", "≠ a|b", ""), ("DPN", "63.2", "62.10 [61.00, 63.20]", "5 %")),
    notes=("made up", "† not a number"),
)


def test_markdown_joins_group_and_heading_and_escapes_bars():
    assert markdown(TABLE).splitlines() == [
        "**Scores & costs**",
        "",
        "| row | GQA: paper | GQA: ours | speed |",
        "| --- | ---: | ---: | ---: |",
        r"| protocol | a_b | ≠ a\|b |   |",
        "| DPN | 63.2 | 62.10 [61.00, 63.20] | 5 % |",
        "",
        "* made up",
        "* † not a number",
    ]


def test_latex_has_two_storeys_and_as_many_cells_in_every_row():
    lines = latex(TABLE).splitlines()
    assert r"\caption{Scores \& costs}" in lines
    assert r" & \multicolumn{2}{c}{GQA} &  \\" in lines
    assert r"\cmidrule(lr){2-3}" in lines
    assert r"protocol & a\_b & $\neq$ a|b &  \\" in lines
    assert r"DPN & 63.2 & 62.10 [61.00, 63.20] & 5 \% \\" in lines
    assert r"\begin{tabular}{lrrr}" in lines
    assert r"\par\footnotesize $\dagger$ not a number" in lines


def test_a_group_without_heading_spans_its_columns_in_latex():
    table = Table(title="t", groups=(("", ("a", "b", "c")), ("G", ("d",))), rows=(("1", "2", "3", "4"),))
    assert r" &  &  & \multicolumn{1}{c}{G} \\" in latex(table).splitlines()


def test_latex_without_groups_has_one_storey():
    table = Table(title="t", groups=(("", ("a", "b")),), rows=())
    assert "multicolumn" not in latex(table)
    assert "cmidrule" not in latex(table)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            r"50% & $x_1 {y} #~^\a",
            r"50\% \& \$x\_1 \{y\} \#\textasciitilde{}\textasciicircum{}\textbackslash{}a",
        ),
        ("p < 0.01", "p $<$ 0.01"),
    ],
)
def test_latex_shows_what_was_meant(text, written):
    assert escape(text) == written


def test_white_space_in_a_cell_is_one_space():
    table = Table(title="a\nb", groups=(("", ("x\ny",)),), rows=(("one\r\n\ntwo\tthree",),), notes=("n\nm",))
    assert markdown(table).splitlines() == [
        "**a b**",
        "",
        "| x y |",
        "| --- |",
        "| one two three |",
        "",
        "* n m",
    ]
    assert r"one two three \\" in latex(table).splitlines()
    assert r"\caption{a b}" in latex(table)


def test_a_bracket_or_star_behind_a_line_break_is_no_option_of_it_in_latex():
    table = Table(
        title="t", groups=(("", ("[x]", "y")),), rows=(("[mine]", "[1]"), ("*star", ""), ("a", "*"))
    )
    lines = latex(table).splitlines()
    for line in (r"{}[x] & y \\", r"{}[mine] & [1] \\", r"{}*star &  \\", r"a & * \\"):
        assert line in lines


def test_a_picture_grows_with_the_table(tmp_path):
    draw(TABLE, tmp_path / "small.png")
    large = Table(title="t", groups=TABLE.groups, rows=TABLE.rows * 10)
    draw(large, tmp_path / "large.png")
    sizes = [Image.open(tmp_path / f"{name}.png").size for name in ("small", "large")]
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] > 3 * sizes[0][1]
    with Image.open(tmp_path / "small.png") as image:
        assert len(image.convert("L").getcolors()) > 20  # text, not a blank page


def test_rows_must_fit_the_headings():
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        Table(title="t", groups=(("", ("a", "b")),), rows=(("1",),))


@pytest.mark.parametrize("times", [1, 12])
def test_a_title_of_any_length_stays_on_the_picture(tmp_path, times):
    table = replace(TABLE, title=f"Table 1 ({'Comparison with existing methods ' * times})")
    draw(table, tmp_path / "long.png")
    with Image.open(tmp_path / "long.png") as picture:
        page = picture.convert("L")
        margin = page.crop((page.width - 10, 0, page.width, page.height))
        assert margin.getextrema() == (255, 255)
