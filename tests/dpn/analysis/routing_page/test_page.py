import base64
import fnmatch
import hashlib
import json
import re
import tomllib
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from dpn.analysis.routing_page.__main__ import main
from dpn.analysis.routing_page.page import SCRIPTS, STYLES, script_json
from tests.dpn.analysis.routing_page.conftest import make_row

PACKAGE = "dpn.analysis.routing_page"
HOSTILE = (
    '</script><script>alert(1)</script><!-- <img src="//evil.example/x" onerror=alert(1)> &lt; \u2028 \ud800'
)


class Reader(HTMLParser):
    """Collects every tag with its attributes, and what stands in every script and style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.contents, self.is_inside = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.is_inside = tag in ("script", "style")
        if self.is_inside:
            self.contents.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self.is_inside = False

    def handle_data(self, data):
        if self.is_inside:
            self.contents[-1][2] += data

    def content(self, tag, **attributes):
        found = [
            text for name, given, text in self.contents if name == tag and attributes.items() <= given.items()
        ]
        assert len(found) == 1
        return found[0]

    @property
    def data(self):
        return json.loads(self.content("script", id="data"))


@pytest.fixture
def make_page(write_answers, image_folder, tmp_path):
    def make(rows, *flags, output="page.html"):
        path = write_answers(rows)
        main([str(path), "--image_folder", str(image_folder), "--output", str(tmp_path / output), *flags])
        return (tmp_path / output).read_text(encoding="utf-8")

    return make


def rows_of_all_kinds():
    images = ["gqa/square.png", "gqa/wide.png", "gqa/tall.jpg", None]
    return [
        make_row(number, images[number % 4], score=[1.0, 0.0, 0.3, None][number % 4]) for number in range(12)
    ]


def test_the_page_contains_every_sample(make_page, capsys):
    rows = rows_of_all_kinds()
    data = Reader(make_page(rows)).data
    kept = ("prompt", "text", "gold", "score", "grade", "route", "probabilities")
    for row, sample in zip(rows, data["samples"], strict=True):
        assert {key: sample[key] for key in kept} == {key: row[key] for key in kept}
        assert sample["id"] == row["question_id"]
        path = None if sample["image"] is None else data["images"][sample["image"]]["path"]
        assert path == row["image"]
    assert data["sources"][0]["run"] == "policy"
    assert "12 answers about 3 images" in capsys.readouterr().out


def test_the_page_can_be_limited(make_page):
    assert len(Reader(make_page(rows_of_all_kinds(), "--max_samples", "5")).data["samples"]) == 5


def test_text_from_files_stays_text(make_page, image_folder):
    changes = dict.fromkeys(("question_id", "prompt", "text", "gold", "grade", "category"), HOSTILE)
    plain, hostile = Reader(make_page([make_row()])), Reader(make_page([make_row(**changes)]))
    assert hostile.tags == plain.tags
    (sample,) = hostile.data["samples"]
    assert {sample[key] for key in ("id", "prompt", "text", "gold", "grade", "category")} == {HOSTILE}
    assert not re.search("[<>&\u2028\u2029]", hostile.content("script", id="data"))


def test_json_in_a_script_tag_neither_ends_it_nor_changes():
    value = {"</script>": ["<!--", "&amp;", "\u2028", 1.5, None]}
    assert not re.search("[<>&\u2028]", script_json(value))
    assert json.loads(script_json(value)) == value


def test_the_script_never_parses_text_as_html():
    text = "".join((files(PACKAGE) / "assets" / f"{name}.js").read_text() for name in SCRIPTS)
    forbidden = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    )
    assert [word for word in forbidden if word in text] == []


def test_the_page_needs_nothing_else(make_page):
    page = make_page(rows_of_all_kinds())
    reader = Reader(page)
    addresses = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses == ["data:,"]
    style, script = reader.content("style"), reader.content("script", type="module")
    assert not re.search(r"url\(|@import|https?:|//[a-z]", style)
    assert not re.search(r"https?:|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|\bimport\b", script)
    assert len(page) > len(style) + len(script) > 10_000


def test_the_policy_allows_this_script_and_style_and_no_network(make_page):
    reader = Reader(make_page([make_row()]))
    (policy,) = [
        given["content"] for tag, given in reader.tags if given.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    for rule, text in (
        ("script-src", reader.content("script", type="module")),
        ("style-src", reader.content("style")),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_the_same_answers_make_the_same_page(make_page):
    rows = rows_of_all_kinds()
    assert make_page(rows, output="a.html") == make_page(rows, output="b.html")


def test_every_file_of_the_page_is_used_and_shipped():
    names = {path.name for path in (files(PACKAGE) / "assets").iterdir()}
    assert names == {"page.html", *(f"{name}.js" for name in SCRIPTS), *(f"{name}.css" for name in STYLES)}
    root = Path(__file__).parents[4]
    shipped = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = shipped[PACKAGE]
    assert all(any(fnmatch.fnmatch(f"assets/{name}", pattern) for pattern in patterns) for name in names)


def test_elements_that_the_script_looks_up_are_there(make_page):
    reader = Reader(make_page([make_row()]))
    ids = {given["id"] for _, given in reader.tags if "id" in given}
    looked_up = set(re.findall(r'byId\("([\w-]+)"\)', reader.content("script", type="module")))
    assert len(looked_up) > 10
    assert looked_up <= ids


def test_what_is_wrong_ends_in_one_line(make_page, write_answers, image_folder, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"routing_page: --output \S+/folder is a folder"):
        make_page([make_row()], output="folder")
    with pytest.raises(SystemExit, match=r"routing_page: can't write --output \S+/file/page.html"):
        make_page([make_row()], output="file/page.html")
    with pytest.raises(SystemExit, match=r"routing_page: 1 of 1 images are missing"):
        make_page([make_row(image="gqa/gone.png")])
    with pytest.raises(SystemExit, match=r"routing_page: .*answers.jsonl, line 1: not valid JSON"):
        make_page(["not json"])
    assert not (tmp_path / "page.html").exists()


def test_answers_that_are_left_out_are_counted(make_page, capsys):
    make_page([make_row(), make_row(1, image=None, route=[], probabilities=[])])
    assert "gqa: 1 answers without a route are left out" in capsys.readouterr().out
