#!/usr/bin/env bash
# Stage 1: train the projector alone on image-caption pairs; writes mm_projector.bin for stage 2.
# Any flag of `python -m llava.train` may follow and wins. PRESET=13b, a100-40g or 13b-a100-40g: another size, another
# GPU. PRESET=toy trains the small world on a CPU. Several machines: as in scripts/finetune.sh.
#   GPUS=4 scripts/pretrain.sh --num_train_epochs 2
#   PROJECTOR_TYPE=token_packer PROJECTOR_OPTIONS="scale=2" scripts/pretrain.sh     (docs/projectors.md)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
STAGE=pretrain load_ablation
STAGE=pretrain load_preset

launch_settings
SIZE=${SIZE:-7b}
ZERO=${ZERO:-scripts/zero2.json}
BASE=${BASE:-lmsys/vicuna-$SIZE-v1.5}
VISION_TOWER=${VISION_TOWER:-openai/clip-vit-large-patch14-336}
DATA=${DATA:-playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}
IMAGES=${IMAGES:-playground/data/LLaVA-Pretrain/images}
OUTPUT=${OUTPUT:-checkpoints/llava-v1.5-$SIZE-pretrain$(suffix)}
set_batch 256 32
projector_flags

require_model BASE --model_name_or_path "${WORLD:-download a Vicuna-v1.5 checkpoint there}" "$@"
require_model VISION_TOWER --vision_tower "${WORLD:-download a CLIP checkpoint there}" "$@"
require -f DATA --data_path "${WORLD:-it is part of liuhaotian/LLaVA-Pretrain (see playground/README.md)}" "$@"
require -d IMAGES --image_folder "${WORLD:-unpack images.zip of liuhaotian/LLaVA-Pretrain there}" "$@"

train --tune_mm_mlp_adapter True --version plain \
    --model_name_or_path "$BASE" --vision_tower "$VISION_TOWER" \
    --data_path "$DATA" --image_folder "$IMAGES" --output_dir "$OUTPUT" \
    "${flags[@]}" --mm_vision_select_layer -2 \
    --mm_use_im_start_end False --mm_use_im_patch_token False \
    --num_train_epochs "${EPOCHS:-1}" --max_steps "${MAX_STEPS:--1}" --model_max_length "${MAX_LENGTH:-2048}" \
    --per_device_train_batch_size "$BATCH" --gradient_accumulation_steps "$ACCUMULATION" \
    --learning_rate "${LEARNING_RATE:-1e-3}" --lr_scheduler_type "${SCHEDULE:-cosine}" \
    --warmup_steps "${WARMUP:-0.03}" --weight_decay "${WEIGHT_DECAY:-0}" \
    --bf16 "${BF16:-True}" --tf32 "${TF32:-True}" \
    --gradient_checkpointing "${GRADIENT_CHECKPOINTING:-True}" --dataloader_num_workers "${WORKERS:-4}" \
    --logging_steps "${LOGGING_STEPS:-1}" --save_steps "${SAVE_STEPS:-1000}" --save_total_limit 1 \
    --report_to "${REPORT_TO:-none}" --seed "${SEED:-42}" "$@"
