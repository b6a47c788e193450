"""The table of docs/rivals.md is what the methods say of themselves."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dpn.method import FixedRateConfig, FrontConfig
from dpn.methods import METHODS
from dpn.parse import parse_reduction
from dpn.projectors.build import PROJECTORS
from dpn.projectors.options import parse_projector
from dpn.selection import kept_of
from dpn.selectors.visionzip import VisionZipConfig

PAGE = Path(__file__).parents[2] / "docs" / "rivals.md"
BY_CONTENT = ("dpn", "prumerge_plus")
"""Methods whose counts depend on what is seen."""


def rows():
    """Cells of every row of the table, by method."""
    lines = re.findall(r"^\| `?(\w+)`? \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    cells = {name: [cell.strip() for cell in rest.split("|")] for name, rest in lines if name != "method"}
    names = ("acts", "plain", "trains", "command", "tokens", "source", "chosen")
    return {name: dict(zip(names, each, strict=True)) for name, each in cells.items()}


def tokens_of(config):
    """Tokens of 576 in every stage, by the configuration."""
    if isinstance(config, VisionZipConfig):
        return [sum(config.amounts(576))]
    if isinstance(config, FrontConfig):
        return [(config.image_side(336, 14) // 14) ** 2]
    counts = [576]
    for share in config.shares:
        counts.append(kept_of(counts[-1], share) if share else 0)
    return counts


def test_every_method_and_every_projector_has_a_row():
    assert set(rows()) == {"dense", *METHODS, *PROJECTORS}


@pytest.mark.parametrize("name", METHODS)
def test_a_row_says_what_the_method_is(name):
    row = rows()[name]
    words = row["command"].strip("`").split()
    assert words[:2] == ["--reduction", name]
    shown, default = parse_reduction(words[1:]), METHODS[name].from_fields()
    named = {word.partition("=")[0] for word in words[2:]}
    assert name == "dpn" or named == {field.name for field in fields(default)}
    for field in named:
        found, expected = getattr(shown, field), getattr(default, field)
        assert found == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)
    if name not in BY_CONTENT:
        assert row["tokens"] == ", ".join(map(str, tokens_of(shown)))
    is_front = isinstance(default, FrontConfig)
    assert row["acts"].startswith("between layers") != is_front
    assert row["trains"] == ("no" if is_front and not default.trains else "yes")
    assert row["plain"] == ("forced routes only" if name == "dpn" else "yes")
    assert is_front or name == "dpn" or isinstance(default, FixedRateConfig)


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_row_says_what_the_projector_is(name):
    words = rows()[name]["command"].strip("`").split()
    assert words[:3] == ["--mm_projector_type", name, "--mm_projector_options"]
    shown, default = parse_projector(name, words[3:]), PROJECTORS[name].config_class()
    assert shown == default
    assert int(rows()[name]["tokens"]) == shown.num_tokens((24, 24))


def test_the_page_names_the_fields_that_may_change_after_training():
    text = " ".join(PAGE.read_text().split())
    for name, config in METHODS.items():
        if isinstance(config, type) and issubclass(config, FixedRateConfig) and config.may_change:
            changing = " and ".join(f"`{field}`" for field in config.may_change)
            assert f"{changing} of `{name}`" in text
