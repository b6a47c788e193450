import logging

import pytest

from llava.train.arguments import CHECKPOINTING, build_parser
from llava.train.legacy_flags import (
    ONLY_VALUE,
    RENAMED,
    WITHOUT_EFFECT,
    Flag,
    join_flags,
    require_known,
    split_flags,
    translate,
)


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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Flag("evaluation_strategy", ("steps",)), Flag("eval_strategy", ("no",))),
        (Flag("no_cuda", ()), Flag("use_cpu", ("False",))),
    ],
)
def test_an_old_and_a_new_name_with_different_values_are_refused(old, new):
    for flags in ([old, new], [new, old]):
        with pytest.raises(ValueError, match=f"--{old.name} .*contradicts --{new.name} {new.words[0]}"):
            translate(flags)


def test_an_old_and_a_new_name_with_one_value_are_accepted():
    flags = [Flag("no_cuda", ()), Flag("use_cpu", ("true",))]
    assert {flag.name for flag in translate(flags)} == {"use_cpu"}


def test_a_flag_without_effect_is_taken_out_with_one_notice(caplog):
    with caplog.at_level(logging.WARNING):
        assert translate([Flag("lazy_preprocess", ("True",))]) == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("flag", [Flag("group_by_length", ("False",)), Flag("past_index", ("-1",))])
def test_the_default_of_what_is_gone_is_accepted(flag):
    assert translate([flag]) == []


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        (Flag("group_by_length", ("True",)), "use --group_by_modality_length True"),
        (Flag("group_by_length", ()), "use --group_by_modality_length True"),
        (Flag("adafactor", ("True",)), "use --optim adafactor"),
        (Flag("fsdp_transformer_layer_cls_to_wrap", ("LlamaDecoderLayer",)), "use --fsdp_config"),
    ],
)
def test_what_is_gone_is_refused_with_advice(flag, advice):
    with pytest.raises(ValueError, match=advice):
        translate([flag])


@pytest.mark.parametrize(("steps", "kept"), [("0", ("0.03",)), ("100", ("100",))])
def test_of_a_ratio_and_a_number_of_warmup_steps_the_number_wins_unless_it_is_0(steps, kept):
    flags = [Flag("warmup_ratio", ("0.03",)), Flag("warmup_steps", (steps,))]
    assert translate(flags) == [Flag("warmup_steps", kept)]
    assert translate(flags[::-1]) == [Flag("warmup_steps", kept)]


def test_a_warmup_ratio_that_would_become_a_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="--warmup_ratio of 1 or more would be a number of steps"):
        translate([Flag("warmup_ratio", ("1.0",))])


@pytest.mark.parametrize("name", ["lazy_preprocess", "lora_weight_path", "mpt_attn_impl"])
def test_flags_that_upstream_never_read_say_that_they_do_nothing(name, caplog):
    assert translate([Flag(name, ("x",))]) == []
    assert f"--{name} has no effect: " in caplog.text


TRANSFORMERS_4 = """
    output_dir overwrite_output_dir do_train do_eval do_predict evaluation_strategy prediction_loss_only
    per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size per_gpu_eval_batch_size
    gradient_accumulation_steps eval_accumulation_steps eval_delay learning_rate weight_decay adam_beta1
    adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps lr_scheduler_type lr_scheduler_kwargs
    warmup_ratio warmup_steps log_level log_level_replica log_on_each_node logging_dir logging_strategy
    logging_first_step logging_steps logging_nan_inf_filter save_strategy save_steps save_total_limit
    save_safetensors save_on_each_node save_only_model no_cuda use_cpu use_mps_device seed data_seed
    jit_mode_eval use_ipex bf16 fp16 fp16_opt_level half_precision_backend bf16_full_eval fp16_full_eval tf32
    local_rank ddp_backend tpu_num_cores tpu_metrics_debug debug dataloader_drop_last eval_steps
    dataloader_num_workers past_index run_name disable_tqdm remove_unused_columns label_names
    load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip fsdp fsdp_min_num_params
    fsdp_config fsdp_transformer_layer_cls_to_wrap deepspeed label_smoothing_factor optim optim_args adafactor
    group_by_length length_column_name report_to ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers dataloader_pin_memory dataloader_persistent_workers skip_memory_metrics
    use_legacy_prediction_loop push_to_hub resume_from_checkpoint hub_model_id hub_strategy hub_token
    hub_private_repo hub_always_push gradient_checkpointing gradient_checkpointing_kwargs
    include_inputs_for_metrics fp16_backend push_to_hub_model_id push_to_hub_organization push_to_hub_token
    mp_parameters auto_find_batch_size full_determinism torchdynamo ray_scope ddp_timeout torch_compile
    torch_compile_backend torch_compile_mode dispatch_batches split_batches include_tokens_per_second
    include_num_input_tokens_seen neftune_noise_alpha
"""
"""The fields of TrainingArguments in transformers 4.37.2, which LLaVA was written for."""


@pytest.mark.parametrize("name", TRANSFORMERS_4.split())
def test_every_flag_of_transformers_4_is_read_translated_or_refused_with_advice(name):
    known = {option.lstrip("-") for option in build_parser()._option_string_actions}
    if name not in ONLY_VALUE:
        require_known(translate([Flag(name, ("0",))]), known | {*CHECKPOINTING})
    assert not (ONLY_VALUE.keys() | RENAMED.keys() | WITHOUT_EFFECT.keys()) & known


def test_an_unknown_flag_is_refused_and_the_nearest_named():
    with pytest.raises(ValueError, match="unknown flag --learning_rat, did you mean --learning_rate"):
        require_known([Flag("learning_rat", ("1",))], {"learning_rate", "seed"})
