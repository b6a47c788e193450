#!/usr/bin/env bash
# GQA testdev-balanced: what scripts/eval/gqa.sh needs.
#   scripts/data/gqa.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "GQA testdev-balanced" "CC BY 4.0; the images are those of Visual Genome"
question_file gqa/llava_gqa_testdev_balanced.jsonl
fetch "1.4 GB" https://downloads.cs.stanford.edu/nlp/data/gqa/questions1.2.zip gqa/questions1.2.zip
unpack gqa/questions1.2.zip gqa/data
fetch "20 GB" https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip gqa/images.zip
unpack gqa/images.zip gqa
