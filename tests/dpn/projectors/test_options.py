"""Options come as words or as an object of config.json, and only what is meant literally is read."""

import pytest

from dpn.projectors.build import PROJECTORS
from dpn.projectors.options import did_you_mean, parse_projector, projector_from_dict, projector_to_dict
from dpn.projectors.token_packer import TokenPackerConfig


def test_words_are_typed_and_the_rest_has_its_defaults():
    assert parse_projector("token_packer", ["layers=12,-2"]) == TokenPackerConfig(scale=2, layers=(12, -2))
    assert parse_projector("token_packer", []) == TokenPackerConfig()


@pytest.mark.parametrize("name", PROJECTORS)
def test_options_survive_config_json(name):
    config = PROJECTORS[name].config_class()
    assert projector_from_dict(name, projector_to_dict(config)) == config
    assert projector_from_dict(name, {}) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scale"], "takes FIELD=VALUE words, got 'scale'"),
        (["scael=2"], r"c_abstractor has no 'scael'; did you mean scale\? \(known: scale, depth\)"),
        (["heads=2"], r"c_abstractor has no 'heads' \(known: scale, depth\)"),
        (["scale=2", "scale=3"], "names scale twice"),
        (["scale=2.0"], "scale takes a whole number, got '2.0'"),
        (["scale= 2"], "scale takes a whole number, got ' 2'"),
        (["scale=1_0"], "scale takes a whole number, got '1_0'"),
        (["scale="], "scale takes a whole number, got ''"),
        (["scale=0"], "scale must be 1 or more, got 0"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_projector("c_abstractor", words)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([2], r"mm_projector_options must be an object of fields, found \[2\]"),
        ({"scael": 2}, r"token_packer has no 'scael'; did you mean scale\?"),
        ({"scale": "2"}, "scale must be a whole number, found '2'"),
        ({"scale": 2.0}, "scale must be a whole number, found 2.0"),
        ({"scale": True}, "scale must be a whole number, found True"),
        ({"layers": 12}, "layers must be whole numbers with commas between, found 12"),
        ({"layers": [12, None]}, "layers must be whole numbers with commas between"),
    ],
)
def test_another_type_in_config_json_is_refused(saved, message):
    with pytest.raises(ValueError, match=message):
        projector_from_dict("token_packer", saved)


def test_words_of_layers_are_whole_numbers():
    with pytest.raises(ValueError, match="layers takes whole numbers with commas between, got '12,'"):
        parse_projector("token_packer", ["layers=12,"])


def test_a_hint_is_given_where_a_name_is_near():
    assert did_you_mean("token_paker", PROJECTORS) == "; did you mean token_packer?"
    assert did_you_mean("mlp", PROJECTORS) == ""
