#!/usr/bin/env bash
# ScienceQA test: what scripts/eval/scienceqa.sh needs.
#   scripts/data/scienceqa.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "ScienceQA test" "CC BY-NC-SA 4.0"
question_file scienceqa/llava_test_CQM-A.json
address=https://raw.githubusercontent.com/lupantech/ScienceQA/main/data/scienceqa
fetch "40 MB" "$address/problems.json" scienceqa/problems.json
fetch "1 MB" "$address/pid_splits.json" scienceqa/pid_splits.json
fetch "150 MB" https://scienceqa.s3.us-west-1.amazonaws.com/images/test.zip scienceqa/test.zip
unpack scienceqa/test.zip scienceqa/images
