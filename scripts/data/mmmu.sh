#!/usr/bin/env bash
# MMMU val: what scripts/eval/mmmu.sh needs.
#   scripts/data/mmmu.sh --dry-run     says what would be fetched, and what has to be fetched by hand
set -euo pipefail
# shellcheck source=scripts/data/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

about "MMMU val" "Apache 2.0; images from several sources"
source scripts/lib.sh
if [[ $mode == --dry-run ]]; then
    echo "   would fetch the validation files of https://huggingface.co/datasets/MMMU/MMMU" \
        "(about 0.4 GB; address and size not verified) to $DATA_ROOT/MMMU"
else
    python - "$DATA_ROOT/MMMU" <<'END'
import sys

from huggingface_hub import snapshot_download

snapshot_download("MMMU/MMMU", repo_type="dataset", allow_patterns="*/validation-*", local_dir=sys.argv[1])
END
    for file in "$DATA_ROOT"/MMMU/*/validation-*.parquet; do verify "${file#"$DATA_ROOT"/}"; done
fi
python -c "import pyarrow" 2>/dev/null || echo "   reading it needs pyarrow: scripts/setup.sh eval"
