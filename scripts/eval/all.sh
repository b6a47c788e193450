#!/usr/bin/env bash
# Every benchmark whose data is there, with one checkpoint, and one table beside published values. Any flag of
# `python -m llava.eval` may follow and wins; data from another folder is named by DATA_ROOT.
#   scripts/eval/all.sh checkpoints/dpn-llava-v1.5-7b --batch_size 8
#   scripts/eval/all.sh checkpoints/dpn-llava-v1.5-7b --limit 20        a smoke run
#   DRY_RUN=1 scripts/eval/all.sh checkpoints/dpn-llava-v1.5-7b         prints the command
set -euo pipefail
MODEL=${1:?usage: $0 CHECKPOINT [flags of python -m llava.eval]}
OUTPUT=${OUTPUT:-results/$(basename "$MODEL")}
DATA_ROOT=${DATA_ROOT:-playground/data/eval}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib.sh

found=$(python -m llava.eval.available --data_root "$DATA_ROOT")
mapfile -t names <<<"$found"
echo "== ${names[*]}"
status=0
scripts/eval/run.sh --benchmarks "${names[@]}" --model_path "$MODEL" --data_root "$DATA_ROOT" \
    --output_dir "$OUTPUT" "${@:2}" || status=$? # what was scored before that stands in the table
[[ -n ${DRY_RUN:-} ]] || python -m llava.eval.table "$OUTPUT" | tee "$OUTPUT/table.md"
exit "$status"
