"""docs/known_bugs.md lists every known bug of the original, and the tests that it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "known_bugs.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]


def test_every_known_bug_is_listed():
    assert {int(row[0].split()[0]) for row in ROWS} == set(range(1, 50))


def test_every_row_names_a_test_that_exists():
    for row in ROWS:
        file, found = None, 0
        for path, name in re.findall(r"([\w/]+\.py)?::(\w+)", row[3]):
            file = path or file
            assert f"def {name}(" in (ROOT / file).read_text(), (row[0], path, name)
            found += 1
        assert found, row[0]
