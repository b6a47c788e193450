#!/usr/bin/env bash
# MMBench dev: what scripts/eval/mmbench.sh needs.
#   scripts/data/mmbench.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "MMBench dev" "Apache 2.0; images from several sources"
address=https://download.openmmlab.com/mmclassification/datasets/mmbench
fetch "100 MB" "$address/mmbench_dev_20230712.tsv" mmbench/mmbench_dev_20230712.tsv
