#!/usr/bin/env bash
# MM-Vet of one checkpoint; any flag of `python -m llava.eval` may follow and wins.
#   scripts/eval/mmvet.sh checkpoints/dpn-llava-v1.5-7b --batch_size 8
# The answers go to the judge, then to `python -m llava.eval.score mmvet`: docs/evaluation.md.
set -euo pipefail
MODEL=${1:?usage: $0 CHECKPOINT [flags of python -m llava.eval]}
OUTPUT=${OUTPUT:-results/$(basename "$MODEL")}
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" --benchmarks mmvet --model_path "$MODEL" \
    --data_root "${DATA_ROOT:-playground/data/eval}" --output_dir "$OUTPUT" "${@:2}"
