import json

import pytest

from llava.train.engine_file import engine_sections


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_our_own_files_are_read(name):
    assert engine_sections(f"scripts/{name}.json")["zero_optimization"]["stage"] == int(name[4])


def test_a_file_without_zero_has_an_empty_section(tmp_path):
    (tmp_path / "zero.json").write_text("{}")
    assert engine_sections(str(tmp_path / "zero.json")) == {"zero_optimization": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds a list; expected an object"),
        ({"zero_optimization": []}, r"must be one of \(0, 1, 2, 3\), found \[\]"),
        ({"zero_optimization": {"stage": "auto"}}, "must be one of .* found 'auto'"),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": "cpu"}},
            "offload_optimizer must be an object",
        ),
    ],
)
def test_what_deepspeed_would_stumble_over_is_named(content, message, tmp_path):
    (tmp_path / "zero.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        engine_sections(str(tmp_path / "zero.json"))


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "zero.json").write_text("{")
    with pytest.raises(ValueError, match="can't be read"):
        engine_sections(str(tmp_path / "zero.json"))
