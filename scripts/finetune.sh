#!/usr/bin/env bash
# Stage 2: train language model and projector on instructions, from the projector of stage 1 (PROJECTOR=none: from
# the one that BASE brings).
# Any flag of `python -m llava.train` may follow and wins; --preflight_only and --estimate check and measure first.
# PRESET=13b, a100-40g or 13b-a100-40g: another size, another GPU. PRESET=toy trains the small world on a CPU.
# PROJECTOR_TYPE and PROJECTOR_OPTIONS: those of stage 1, where it had another projector than LLaVA's.
# ABLATION=baseline or pre-pooling: that row of the paper's tables (docs/tables.md).
# Several machines: HOSTFILE=..., or NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT (docs/training.md).
#   OUTPUT=checkpoints/try1 scripts/finetune.sh --learning_rate 1e-5
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
STAGE=${STAGE:-finetune}
load_ablation
load_preset

launch_settings
SIZE=${SIZE:-7b}
ZERO=${ZERO:-scripts/zero3.json}
BASE=${BASE:-lmsys/vicuna-$SIZE-v1.5}
VISION_TOWER=${VISION_TOWER:-openai/clip-vit-large-patch14-336}
PROJECTOR=${PROJECTOR:-checkpoints/llava-v1.5-$SIZE-pretrain$(suffix)/mm_projector.bin}
DATA=${DATA:-playground/data/llava_v1_5_mix665k.json}
IMAGES=${IMAGES:-playground/data}
OUTPUT=${OUTPUT:-checkpoints/llava-v1.5-$SIZE$(suffix)}
set_batch 128 16
projector_flags

require_model BASE --model_name_or_path "${WORLD:-download a Vicuna-v1.5 checkpoint there}" "$@"
require_model VISION_TOWER --vision_tower "${WORLD:-download a CLIP checkpoint there}" "$@"
projector=()
if [[ $PROJECTOR != none ]]; then
    require -f PROJECTOR --pretrain_mm_mlp_adapter "run scripts/pretrain.sh first" "$@"
    projector=(--pretrain_mm_mlp_adapter "$PROJECTOR")
fi
require -f DATA --data_path "${WORLD:-it is part of liuhaotian/LLaVA-Instruct-150K (see playground/README.md)}" "$@"
require -d IMAGES --image_folder "${WORLD:-playground/README.md says which image sets go there}" "$@"

train --model_name_or_path "$BASE" --version v1 --vision_tower "$VISION_TOWER" "${projector[@]}" \
    --data_path "$DATA" --image_folder "$IMAGES" --output_dir "$OUTPUT" \
    "${flags[@]}" --mm_vision_select_layer -2 \
    --mm_use_im_start_end False --mm_use_im_patch_token False \
    --image_aspect_ratio "${ASPECT:-pad}" --group_by_modality_length True \
    --num_train_epochs "${EPOCHS:-1}" --max_steps "${MAX_STEPS:--1}" --model_max_length "${MAX_LENGTH:-2048}" \
    --per_device_train_batch_size "$BATCH" --gradient_accumulation_steps "$ACCUMULATION" \
    --learning_rate "${LEARNING_RATE:-2e-5}" --lr_scheduler_type "${SCHEDULE:-cosine}" \
    --warmup_steps "${WARMUP:-0.03}" --weight_decay "${WEIGHT_DECAY:-0}" \
    --bf16 "${BF16:-True}" --tf32 "${TF32:-True}" \
    --gradient_checkpointing "${GRADIENT_CHECKPOINTING:-True}" --dataloader_num_workers "${WORKERS:-4}" \
    --logging_steps "${LOGGING_STEPS:-1}" --save_steps "${SAVE_STEPS:-1000}" --save_total_limit 1 \
    --report_to "${REPORT_TO:-none}" --seed "${SEED:-42}" "$@"
