"""A generation_config.json that contradicts itself is repaired, one that can't be read is told of."""

import json

import pytest
from transformers import GenerationConfig

from llava.model.builder import load_pretrained_model


@pytest.fixture(scope="module")
def load(tiny_base, tmp_path_factory):
    """Give a function that loads a language model with this text in generation_config.json."""
    folder = tmp_path_factory.mktemp("models") / "base"
    folder.mkdir()
    for file in tiny_base.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()

    def load(text):
        (folder / "generation_config.json").write_text(text)
        return load_pretrained_model(str(folder), None, device="cpu", device_map=None)[1]

    return load


def tied_fields():
    """List the numeric fields that transformers doesn't save without do_sample or several beams."""
    tied = []
    for name in vars(GenerationConfig()):
        config = GenerationConfig()
        setattr(config, name, 0.25)
        try:
            config.validate(strict=True)
        except (ValueError, TypeError, AttributeError) as error:
            tied += [name] if "do_sample" in str(error) or "num_beams" in str(error) else []
    return sorted(tied)


@pytest.mark.parametrize("name", tied_fields())
def test_every_field_that_transformers_refuses_to_save_is_reset(load, tmp_path, caplog, name):
    value = True if name == "early_stopping" else 0.25
    model = load(json.dumps({name: value, "bos_token_id": 1}))
    assert f"generation_config sets {name}, which belongs to" in caplog.text
    assert model.generation_config.bos_token_id == 1
    model.save_pretrained(tmp_path)


def test_several_fields_are_reset_at_once(load, tmp_path, caplog):
    load('{"eta_cutoff": 0.1, "typical_p": 0.2, "length_penalty": 2.0}').save_pretrained(tmp_path)
    assert "generation_config sets " in caplog.text
    assert all(name in caplog.text for name in ("eta_cutoff", "typical_p", "length_penalty"))


@pytest.mark.parametrize(
    "fields",
    [
        {"do_sample": True, "temperature": 0.9, "top_p": 0.6},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
        {"temperature": 1.0, "early_stopping": False},
    ],
)
def test_what_belongs_together_stays(load, tmp_path, caplog, fields):
    model = load(json.dumps(fields))
    model.save_pretrained(tmp_path)
    assert {name: getattr(model.generation_config, name) for name in fields} == fields
    assert "generation_config" not in caplog.text


@pytest.mark.parametrize("text", ["{", "", "\x00"])
def test_a_file_that_cannot_be_read_is_told_of(load, caplog, text):
    load(text)
    assert "generation_config.json can't be read as JSON" in caplog.text
