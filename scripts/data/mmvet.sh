#!/usr/bin/env bash
# MM-Vet: what scripts/eval/mmvet.sh needs.
#   scripts/data/mmvet.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "MM-Vet" "Apache 2.0 for code; images from several sources"
question_file mm-vet/llava-mm-vet.jsonl
fetch "70 MB" https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip mm-vet.zip
unpack mm-vet.zip .
