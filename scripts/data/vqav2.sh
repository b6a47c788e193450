#!/usr/bin/env bash
# VQAv2: what scripts/eval/vqav2.sh needs.
#   scripts/data/vqav2.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "VQAv2" "annotations CC BY 4.0; images under the terms of COCO and Flickr"
# Test-dev is scored by a server (EvalAI 830); val is scored here.
question_file vqav2/llava_vqav2_mscoco_test-dev2015.jsonl
question_file vqav2/llava_vqav2_mscoco_test2015.jsonl
fetch "12.4 GB" http://images.cocodataset.org/zips/test2015.zip vqav2/test2015.zip
unpack vqav2/test2015.zip vqav2
address=https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa
for kind in Questions Annotations; do
    fetch "20 MB" "$address/v2_${kind}_Val_mscoco.zip" "vqav2/v2_${kind}_Val_mscoco.zip"
    unpack "vqav2/v2_${kind}_Val_mscoco.zip" vqav2
done
fetch "6.3 GB" http://images.cocodataset.org/zips/val2014.zip vqav2/val2014.zip
unpack vqav2/val2014.zip vqav2
