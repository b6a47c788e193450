#!/usr/bin/env bash
# MME: what scripts/eval/mme.sh needs.
#   scripts/data/mme.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "MME" "for research only, given on request"
question_file MME/llava_mme.jsonl
by_hand MME/MME_Benchmark_release_version \
    "ask the owners: https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation"
