#!/usr/bin/env bash
# VQAv2 of one checkpoint; any flag of `python -m llava.eval` may follow and wins.
#   scripts/eval/vqav2.sh checkpoints/dpn-llava-v1.5-7b --batch_size 8
# Test-dev where its files lie, else val (--split): a submission for the server is written beside the answers.
set -euo pipefail
MODEL=${1:?usage: $0 CHECKPOINT [flags of python -m llava.eval]}
OUTPUT=${OUTPUT:-results/$(basename "$MODEL")}
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" --benchmarks vqav2 --model_path "$MODEL" \
    --data_root "${DATA_ROOT:-playground/data/eval}" --output_dir "$OUTPUT" "${@:2}"
