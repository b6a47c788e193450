"""A table of text cells, as Markdown and as LaTeX (dpn/analysis/picture.py draws it)."""

from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "≠": r"$\neq$",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text cells under headings, which stand alone or in groups."""

    title: str
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Heading of each group of columns, "" for columns without one, and the headings of its columns."""
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that don't fit the headings."""
        width = len(self.headings)
        for row in self.rows:
            if len(row) != width:
                raise ValueError(f"table {self.title!r}: a row of {len(row)} cells under {width} headings")

    @property
    def headings(self) -> tuple[tuple[str, str], ...]:
        """Return (group, heading) of every column."""
        return tuple((group, heading) for group, headings in self.groups for heading in headings)


def markdown(table: Table) -> str:
    """Return the table in Markdown, its title above and its notes below."""
    header = [": ".join(filter(None, pair)) for pair in table.headings]
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [_markdown_line(row) for row in (header, rule, *table.rows)]
    notes = [f"* {one_line(note)}" for note in table.notes]
    return "\n".join([f"**{one_line(table.title)}**", "", *lines, *([""] if notes else []), *notes]) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    shown = (one_line(cell).replace("|", r"\|") or " " for cell in cells)
    return f"| {' | '.join(shown)} |"


def latex(table: Table) -> str:
    """Return a LaTeX `table` for the packages booktabs and graphicx; it shrinks to the width of the page."""
    spans, first = [], 1
    for group, headings in table.groups:
        spans.append((group, first, first + len(headings) - 1))
        first += len(headings)
    grouped: list[str] = []
    for group, start, end in spans:
        width = end - start + 1
        grouped += [f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}"] if group else [""] * width
    rules = [f"\\cmidrule(lr){{{start}-{end}}}" for group, start, end in spans if group]
    has_groups = any(group for group, _ in table.groups)
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape(table.title)}}}",
        r"\resizebox{\linewidth}{!}{%",
        f"\\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
        r"\toprule",
        *([" & ".join(grouped) + r" \\", " ".join(rules)] if has_groups else []),
        _latex_line([heading for _, heading in table.headings]),
        r"\midrule",
        *map(_latex_line, table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        *(f"\\par\\footnotesize {escape(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    r"""Join cells; a "[" or "*" at the start would be an option of the line above, \\ or \midrule."""
    line = " & ".join(map(escape, cells)) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line


def escape(text: str) -> str:
    """Write text in one line so that LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def one_line(text: str) -> str:
    """Make one space of any white space: a cell that holds a line break would end its row."""
    return " ".join(text.split())
