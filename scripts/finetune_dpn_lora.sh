#!/usr/bin/env bash
# Stage 2 with a Dynamic Pyramid Network and LoRA: scripts/finetune_dpn.sh with adapters on the language model; routers
# and projector learn whole, at the rates of full training (ROUTER_LR_SCALE and PROJECTOR_LR are relative to and beside
# LEARNING_RATE). Same variables, same flags. The result needs its base; scripts/merge_lora_weights.py joins the two.
#   scripts/finetune_dpn_lora.sh
#   DPN_PRESET=policy BUDGET=0.45 scripts/finetune_dpn_lora.sh
#   ZERO=none scripts/finetune_dpn_lora.sh --bits 4        QLoRA: needs a GPU and bitsandbytes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
STAGE=finetune_dpn_lora load_ablation
STAGE=finetune_dpn_lora load_preset

export OUTPUT=${OUTPUT:-checkpoints/dpn-llava-v1.5-${SIZE:-7b}$(suffix)-lora} LEARNING_RATE=${LEARNING_RATE:-2e-4}
# 2e-4 is ten times the rate of full training, at which routers learn with a factor of 1 (paper) or 6.
if [[ ${DPN_PRESET:-paper} == paper ]]; then factor=0.1; else factor=0.6; fi
export ROUTER_LR_SCALE=${ROUTER_LR_SCALE:-$factor}

exec scripts/finetune_dpn.sh --lora_enable True --lora_r "${LORA_R:-128}" --lora_alpha "${LORA_ALPHA:-256}" \
    --mm_projector_lr "${PROJECTOR_LR:-2e-5}" "$@"
