"""A file that isn't a comparison's is refused, and the fields that are wrong are named."""

import copy
import json

import pytest

from llava.bench.compare.fields import ListOf, MapOf, integer, problems, text
from llava.bench.compare.schema import check, read


def test_what_a_run_wrote_follows_the_schema(comparison):
    assert read(comparison.folder / "compare.json") == comparison.document


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: d.pop("versions"), "run.json doesn't follow the schema .*: versions: missing"),
        (lambda d: d.update(extra=1), "extra: unknown field"),
        (lambda d: d.update(tolerance="0.03"), "tolerance: expected number, found '0.03'"),
        (lambda d: d.update(tolerance=float("nan")), "tolerance: expected number, found nan"),
        (lambda d: d["contract"].update(rounds=2.5), r"contract\.rounds: expected integer, found 2\.5"),
        (lambda d: d["cases"][0]["rows"][2].pop("kv_bytes"), r"cases\[0\]\.rows\[2\]\.kv_bytes: missing"),
        (lambda d: d["cases"][0]["rows"][0].update(tokens=3), r"rows\[0\]\.tokens: expected a list, found 3"),
        (lambda d: d["cases"][0]["rows"].pop(0), r"cases\[0\]\.rows: none of them is dense"),
        (lambda d: d.update(schema="llava.bench.compare/0"), "'llava.bench.compare/0', expected"),
    ],
)
def test_a_field_that_is_wrong_is_named(comparison, break_it, message):
    document = copy.deepcopy(comparison.document)
    check(document, "run.json")
    break_it(document)
    with pytest.raises(ValueError, match=message):
        check(document, "run.json")


def test_a_result_of_another_mode_and_a_file_that_is_no_json_are_refused(tmp_path):
    (tmp_path / "prefill.json").write_text(json.dumps({"mode": "prefill"}))
    with pytest.raises(ValueError, match=r"prefill.json has the schema None"):
        read(tmp_path / "prefill.json")
    (tmp_path / "cut.json").write_text('{"schema": ')
    with pytest.raises(ValueError, match=r"cut.json can't be read as JSON"):
        read(tmp_path / "cut.json")
    with pytest.raises(ValueError, match=r"absent.json can't be read"):
        read(tmp_path / "absent.json")


def test_lists_and_open_objects_are_looked_through():
    spec = {"batch": ListOf(integer("samples")), "names": MapOf(text("of a package"))}
    assert problems({"batch": [1], "names": {"torch": "2"}}, spec) == []
    found = problems({"batch": [1, True], "names": {"torch": 2}}, spec)
    assert found == ["batch[1]: expected integer, found True", "names.torch: expected text, found 2"]
