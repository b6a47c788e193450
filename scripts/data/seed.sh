#!/usr/bin/env bash
# SEED-Bench (images): what scripts/eval/seed.sh needs.
#   scripts/data/seed.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "SEED-Bench (images)" "CC BY-NC 4.0"
question_file seed_bench/llava-seed-bench.jsonl
address=https://huggingface.co/datasets/AILab-CVC/SEED-Bench/resolve/main
fetch "10 MB" "$address/SEED-Bench.json" seed_bench/SEED-Bench.json
fetch "25 GB" "$address/SEED-Bench-image.zip" seed_bench/SEED-Bench-image.zip
unpack seed_bench/SEED-Bench-image.zip seed_bench
by_hand seed_bench/SEED-Bench-video-image \
    "middle frames of the videos, by extract_video_frames.py of eval.zip; without them images alone are asked about"
