#!/usr/bin/env bash
# Go on training a LLaVA checkpoint on data of your own with LoRA. scripts/finetune_lora.sh from BASE with the projector
# it brings; same variables, same flags.
#   DATA=my_task.json IMAGES=my_images scripts/finetune_task_lora.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/lib.sh
STAGE=finetune_task_lora load_preset

SIZE=${SIZE:-7b}
export BASE=${BASE:-liuhaotian/llava-v1.5-$SIZE} PROJECTOR=${PROJECTOR:-none}
export OUTPUT=${OUTPUT:-checkpoints/llava-v1.5-$SIZE-task-lora}

exec scripts/finetune_lora.sh "$@"
