#!/usr/bin/env bash
# Answer and score benchmarks with one checkpoint. Every flag goes to `python -m llava.eval`.
#   scripts/eval/run.sh --benchmarks gqa pope --model_path CHECKPOINT --output_dir results/try1
#   NPROC=8 scripts/eval/run.sh ...     shares the questions among 8 processes (one per GPU)
#   DRY_RUN=1 scripts/eval/run.sh ...   prints the command, a word per line
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib.sh

NPROC=${NPROC:-1}
command=(python -m llava.eval "$@")
if ((NPROC > 1)); then
    command=(torchrun --standalone --nproc_per_node "$NPROC" -m llava.eval "$@")
fi
if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "${command[@]}"; else exec "${command[@]}"; fi
