"""LLaVA-1.5's published command lines, word by word as its users have them in their scripts."""

from pathlib import Path

import pytest

from llava.train.arguments import parse
from llava.train.legacy_flags import join_flags, split_flags

ROOT = Path(__file__).parents[3]

COMMON = """
    --vision_tower openai/clip-vit-large-patch14-336 --mm_projector_type mlp2x_gelu
    --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False
    --bf16 True --num_train_epochs 1
    --per_device_eval_batch_size 4 --gradient_accumulation_steps 1 --evaluation_strategy no
    --save_strategy steps --save_total_limit 1 --weight_decay 0. --warmup_ratio 0.03
    --lr_scheduler_type cosine --logging_steps 1 --tf32 True --model_max_length 2048
    --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to wandb
"""
STAGE_2 = """
    --deepspeed ./scripts/zero3.json --version v1 --data_path ./playground/data/llava_v1_5_mix665k.json
    --image_folder ./playground/data --image_aspect_ratio pad --group_by_modality_length True
    --per_device_train_batch_size 16 --save_steps 50000
"""
VICUNA = "--model_name_or_path lmsys/vicuna-13b-v1.5"
LLAVA = "--model_name_or_path liuhaotian/llava-v1.5-13b"
PROJECTOR = "--pretrain_mm_mlp_adapter ./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin"
LORA = "--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --learning_rate 2e-4"
RECIPES = {
    "pretrain": f"""
        --deepspeed ./scripts/zero2.json {VICUNA} --version plain
        --data_path ./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json
        --image_folder ./playground/data/LLaVA-Pretrain/images --tune_mm_mlp_adapter True
        --output_dir ./checkpoints/llava-v1.5-13b-pretrain --per_device_train_batch_size 32
        --save_steps 24000 --learning_rate 1e-3 {COMMON}""",
    "finetune": f"""{VICUNA} {PROJECTOR} {STAGE_2} --learning_rate 2e-5
        --output_dir ./checkpoints/llava-v1.5-13b {COMMON}""",
    "finetune_lora": f"{LORA} {VICUNA} {PROJECTOR} {STAGE_2} --output_dir ./checkpoints/lora {COMMON}",
    "finetune_task": f"{LLAVA} {STAGE_2} --learning_rate 2e-5 --output_dir ./checkpoints/task {COMMON}",
    "finetune_task_lora": f"{LORA} {LLAVA} {STAGE_2} --output_dir ./checkpoints/task-lora {COMMON}",
}


@pytest.fixture(params=RECIPES)
def recipe(request, tmp_path):
    """A recipe's name, its --deepspeed file, and its arguments; DeepSpeed itself needs a GPU."""
    flags = split_flags(RECIPES[request.param].split())
    (zero,) = (flag.words[0] for flag in flags if flag.name == "deepspeed")
    words = join_flags(flag for flag in flags if flag.name not in {"deepspeed", "output_dir"})
    return request.param, zero, parse([*words, "--output_dir", str(tmp_path)])


def test_what_all_recipes_say_is_understood(recipe):
    _, _, (model, data, training) = recipe
    assert model.vision_tower == "openai/clip-vit-large-patch14-336"
    assert (model.mm_projector_type, model.mm_vision_select_layer) == ("mlp2x_gelu", -2)
    assert (model.mm_use_im_start_end, model.mm_use_im_patch_token) == (False, False)
    assert (model.mm_vision_select_feature, model.mm_patch_merge_type) == ("patch", "flat")
    assert (model.freeze_backbone, training.freeze_mm_mlp_adapter, model.reduction) == (False, False, [])
    assert data.image_folder.startswith("./playground/data")
    assert (training.bf16, training.num_train_epochs, training.max_steps) == (True, 1, -1)
    assert (training.per_device_eval_batch_size, training.gradient_accumulation_steps) == (4, 1)
    assert (training.eval_strategy, training.save_strategy, training.save_total_limit) == ("no", "steps", 1)
    assert (training.weight_decay, training.lr_scheduler_type, training.logging_steps) == (0, "cosine", 1)
    assert training.get_warmup_steps(1000) == 30
    assert (training.model_max_length, training.gradient_checkpointing) == (2048, True)
    assert (training.dataloader_num_workers, training.report_to) == (4, ["wandb"])
    assert (training.optim, training.max_grad_norm, training.bits) == ("adamw_torch", 1.0, 16)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert training.remove_unused_columns is False


def test_what_sets_the_recipes_apart_is_understood(recipe):
    name, zero, (model, data, training) = recipe
    is_stage_1, has_lora, has_projector = name == "pretrain", "lora" in name, "task" not in name
    assert (ROOT / zero).name == ("zero2.json" if is_stage_1 else "zero3.json")
    assert (ROOT / zero).is_file()
    assert (model.version, model.tune_mm_mlp_adapter) == (("plain", True) if is_stage_1 else ("v1", False))
    base = "liuhaotian/llava-v1.5-13b" if "task" in name else "lmsys/vicuna-13b-v1.5"
    assert model.model_name_or_path == base
    assert (model.pretrain_mm_mlp_adapter is not None) == (has_projector and not is_stage_1)
    assert data.image_aspect_ratio == ("square" if is_stage_1 else "pad")
    assert training.group_by_modality_length is not is_stage_1
    assert training.per_device_train_batch_size == (32 if is_stage_1 else 16)
    assert training.save_steps == (24000 if is_stage_1 else 50000)
    assert training.learning_rate == (1e-3 if is_stage_1 else 2e-4 if has_lora else 2e-5)
    assert training.mm_projector_lr == (2e-5 if has_lora else None)
    assert training.lora_enable is has_lora
    assert (training.lora_r, training.lora_alpha) == ((128, 256) if has_lora else (64, 16))
    assert (training.lora_dropout, training.lora_bias) == (0.05, "none")


def test_what_is_renamed_or_without_effect_is_said_once_each(recipe, caplog):
    said = [
        message for message in caplog.get_records("setup") if message.name.startswith("llava.train.legacy")
    ]
    assert sorted(record.getMessage().split(" ")[0] for record in said) == [
        "--evaluation_strategy",
        "--lazy_preprocess",
        "--warmup_ratio",
    ]
