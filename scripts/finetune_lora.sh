#!/usr/bin/env bash
# Stage 2 with LoRA: adapters of the language model and the whole projector learn. scripts/finetune.sh with LLaVA-1.5's
# LoRA settings; same variables, same flags. The result needs its base: load_pretrained_model(OUTPUT, BASE, ...).
#   scripts/finetune_lora.sh
# With a reduction: scripts/finetune_dpn_lora.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
STAGE=finetune_lora load_preset

export OUTPUT=${OUTPUT:-checkpoints/llava-v1.5-${SIZE:-7b}$(suffix)-lora} LEARNING_RATE=${LEARNING_RATE:-2e-4}

exec scripts/finetune.sh --lora_enable True --lora_r "${LORA_R:-128}" --lora_alpha "${LORA_ALPHA:-256}" \
    --mm_projector_lr "${PROJECTOR_LR:-2e-5}" "$@"
