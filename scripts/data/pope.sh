#!/usr/bin/env bash
# POPE: what scripts/eval/pope.sh needs.
#   scripts/data/pope.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "POPE" "MIT for the labels; images under the terms of COCO and Flickr"
question_file pope/llava_pope_test.jsonl
commit=e3e39262c85a6a83f26cf5094022a782cb0df58d # later ones have other numbers of questions
for split in adversarial popular random; do
    file=coco_pope_$split.json
    fetch "1 MB" "https://raw.githubusercontent.com/AoiDragon/POPE/$commit/output/coco/$file" "pope/coco/$file"
done
fetch "6.3 GB" http://images.cocodataset.org/zips/val2014.zip pope/val2014.zip
unpack pope/val2014.zip pope
