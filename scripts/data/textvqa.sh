#!/usr/bin/env bash
# TextVQA 0.5.1 val: what scripts/eval/textvqa.sh needs.
#   scripts/data/textvqa.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "TextVQA 0.5.1 val" "CC BY 4.0; images from Open Images"
question_file textvqa/llava_textvqa_val_v051_ocr.jsonl
address=https://dl.fbaipublicfiles.com/textvqa
fetch "20 MB" "$address/data/TextVQA_0.5.1_val.json" textvqa/TextVQA_0.5.1_val.json
fetch "6.6 GB" "$address/images/train_val_images.zip" textvqa/train_val_images.zip
unpack textvqa/train_val_images.zip textvqa
