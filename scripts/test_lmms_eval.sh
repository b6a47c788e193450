#!/usr/bin/env bash
# Try this package under the real lmms-eval, in an environment of its own (about 2.5 GB), on a local task. Not in CI.
#   bash scripts/test_lmms_eval.sh checkpoints/toy/dpn-policy     a checkpoint of the small world, in playground/toy
set -euo pipefail
MODEL=${1:?usage: $0 CHECKPOINT}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv-lmms-eval}
SMALL_WORLD=${SMALL_WORLD:-playground/toy/eval/pope}
die() { echo "$0: $*" >&2; exit 1; }
[[ -f $SMALL_WORLD/llava_pope_test.jsonl ]] || die "no $SMALL_WORLD: run python -m llava.toy first, or set SMALL_WORLD"
[[ -d $MODEL ]] || die "no checkpoint $MODEL"

if [[ ! -x $VENV/bin/python ]]; then
    "${PYTHON:-python3}" -m venv "$VENV"
fi
"$VENV/bin/python" -c "import lmms_eval" 2>/dev/null || "$VENV/bin/pip" install -q lmms-eval==0.7.3
"$VENV/bin/pip" install -q --no-deps .

# The task reads questions with their answers from one file beside it.
task=$(mktemp -d)
trap 'rm -rf "$task"' EXIT
cp tests/lmms_eval/task/utils.py "$task"
sed "s|QUESTIONS|$task/questions.jsonl|" tests/lmms_eval/task/small_world.yaml >"$task/small_world.yaml"
"$VENV/bin/python" tests/lmms_eval/task/questions.py "$SMALL_WORLD" "$task/questions.jsonl"

export SMALL_WORLD HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$task/cache
"$VENV/bin/python" -m lmms_eval --model dpn_llava --model_args "pretrained=$MODEL,device=${DEVICE:-auto}" \
    --tasks small_world --include_path "$task" --batch_size 1
