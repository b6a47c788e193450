import logging

import pytest

from llava.train.legacy_flags import Flag, join_flags, require_known, split_flags, translate


def test_hyphens_underscores_and_equal_signs_are_spelt_alike():
    flags = split_flags(["--model-max-length", "8", "--model_max_length=8", "--bf16"])
    assert flags == [Flag("model_max_length", ("8",)), Flag("model_max_length", ("8",)), Flag("bf16", ())]


def test_a_flag_keeps_all_its_words():
    words = ["--reduction", "dpn", "layers=2,4", "--mm_vision_select_layer", "-2"]
    assert join_flags(split_flags(words)) == words


def test_a_value_without_a_flag_is_refused():
    with pytest.raises(ValueError, match=r"'data\.json' follows no flag"):
        split_flags(["data.json"])


@pytest.mark.parametrize(
    ("old", "new"), [("evaluation_strategy", "eval_strategy"), ("warmup_ratio", "warmup_steps")]
)
def test_a_renamed_flag_is_taken_with_one_notice(old, new, caplog):
    assert translate([Flag(old, ("x",))]) == [Flag(new, ("x",))]
    assert caplog.messages == [f"--{old} is now called --{new}"]


def test_a_flag_without_effect_is_taken_out_with_one_notice(caplog):
    with caplog.at_level(logging.WARNING):
        assert translate([Flag("lazy_preprocess", ("True",))]) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("flag", [Flag("lora_enable", ("False",)), Flag("bits", ("16",))])
def test_the_default_of_what_is_not_available_is_accepted(flag):
    assert translate([flag]) == []


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        (Flag("lora_enable", ("True",)), "LoRA training is not available"),
        (Flag("lora_enable", ()), "LoRA training is not available"),
        (Flag("bits", ("4",)), "quantised training is not available"),
        (Flag("group_by_length", ("True",)), "use --group_by_modality_length True"),
    ],
)
def test_what_is_not_available_is_refused_with_advice(flag, advice):
    with pytest.raises(ValueError, match=advice):
        translate([flag])


def test_an_unknown_flag_is_refused_and_the_nearest_named():
    with pytest.raises(ValueError, match="unknown flag --learning_rat, did you mean --learning_rate"):
        require_known([Flag("learning_rat", ("1",))], {"learning_rate", "seed"})
