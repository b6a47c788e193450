#!/usr/bin/env bash
# Stage 2 with a Dynamic Pyramid Network: scripts/finetune.sh and the reduction. Same variables, same flags.
#   scripts/finetune_dpn.sh
#   DPN_PRESET=policy BUDGET=0.45 OUTPUT=checkpoints/dpn-policy scripts/finetune_dpn.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
export STAGE=finetune_dpn
load_preset

export OUTPUT=${OUTPUT:-checkpoints/dpn-llava-v1.5-7b}
reduction=(dpn "preset=${DPN_PRESET:-paper}" "layers=${DPN_LAYERS:-8,16,24}")
if [[ ${DPN_PRESET:-paper} == paper ]]; then
    reduction+=("target=${TARGET:-1.5}" "loss_weight=${LOSS_WEIGHT:-0.01}")
fi
[[ -z ${BUDGET:-} ]] || reduction+=("budget=$BUDGET")
read -ra more <<<"${REDUCTION:-}" # further FIELD=VALUE words

exec scripts/finetune.sh --reduction "${reduction[@]}" "${more[@]}" "$@"
