#!/usr/bin/env bash
# Stage 2 with a Dynamic Pyramid Network: scripts/finetune.sh and the reduction. Same variables, same flags.
#   scripts/finetune_dpn.sh
#   DPN_PRESET=policy BUDGET=0.45 OUTPUT=checkpoints/dpn-policy scripts/finetune_dpn.sh
#   HOSTFILE=my_hosts scripts/finetune_dpn.sh
#   ABLATION=static-2x2 scripts/finetune_dpn.sh       a row of the paper's Tables 3 and 4 (scripts/ablations/*.env)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
export STAGE=finetune_dpn
load_ablation
load_preset

# refuse VARIABLE PRESET: demand that a variable which only PRESET reads is not set.
refuse() { [[ -z ${!1:-} ]] || die "$1=${!1} has no effect with DPN_PRESET=$preset: set DPN_PRESET=$2, or leave $1 out"; }

SIZE=${SIZE:-7b}
export SIZE OUTPUT=${OUTPUT:-checkpoints/dpn-llava-v1.5-$SIZE$(suffix)}
preset=${DPN_PRESET:-paper}
if [[ $SIZE == 13b ]]; then layers=10,20,30; else layers=8,16,24; fi # paper 5.2
reduction=(dpn "preset=$preset" "layers=${DPN_LAYERS:-$layers}")
if [[ $preset == paper ]]; then
    refuse BUDGET policy
    reduction+=("target=${TARGET:-1.5}" "loss_weight=${LOSS_WEIGHT:-0.01}")
else
    refuse TARGET paper
    refuse LOSS_WEIGHT paper
    [[ -z ${BUDGET:-} ]] || reduction+=("budget=$BUDGET")
fi
[[ -z ${ROUTER_LR_SCALE:-} ]] || reduction+=("router_lr_scale=$ROUTER_LR_SCALE")
read -ra more <<<"$ABLATION_WORDS ${REDUCTION:-}" # further FIELD=VALUE words

exec scripts/finetune.sh --reduction "${reduction[@]}" "${more[@]}" "$@"
