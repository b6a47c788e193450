#!/usr/bin/env bash
# VizWiz: what scripts/eval/vizwiz.sh needs.
#   scripts/data/vizwiz.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "VizWiz" "CC BY 4.0"
# Test is scored by a server (EvalAI 2185); val is scored here.
question_file vizwiz/llava_test.jsonl
address=https://vizwiz.cs.colorado.edu/VizWiz_final
fetch "10 MB" "$address/vqa_data/Annotations.zip" vizwiz/Annotations.zip
unpack vizwiz/Annotations.zip vizwiz
fetch "4 GB" "$address/images/test.zip" vizwiz/test.zip
unpack vizwiz/test.zip vizwiz
fetch "2 GB" "$address/images/val.zip" vizwiz/val.zip
unpack vizwiz/val.zip vizwiz
