#!/usr/bin/env bash
# Try this package under the real lmms-eval on a local task, in an environment of its own (2.5 GB, with CUDA builds of
# torch 7 GB): as lmms-eval's model `dpn_llava`, and below its own `llava`. Not in CI.
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
# lmms-eval 0.7.3 reaches into filelock 3, and takes any transformers: this package's tested one is named.
transformers=$(grep '^transformers==' constraints.txt)
"$VENV/bin/python" -c "import lmms_eval, filelock._api" 2>/dev/null ||
    "$VENV/bin/pip" install -q lmms-eval==0.7.3 "filelock<4" "$transformers"
"$VENV/bin/pip" install -q --no-deps .
device=${DEVICE:-$("$VENV/bin/python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}

# The task reads questions with their answers from one file beside it.
task=$(mktemp -d)
trap 'rm -rf "$task"' EXIT
cp tests/lmms_eval/task/utils.py "$task"
sed "s|QUESTIONS|$task/questions.jsonl|" tests/lmms_eval/task/small_world.yaml >"$task/small_world.yaml"
"$VENV/bin/python" tests/lmms_eval/task/questions.py "$SMALL_WORLD" "$task/questions.jsonl"
export SMALL_WORLD HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$task/cache

# ask NAME ARGUMENTS: one of lmms-eval's models answers the task. lmms-eval exits with 0 after errors, too.
ask() {
    "$VENV/bin/python" -m lmms_eval --model "$1" --model_args "pretrained=$MODEL$2" --device "$device" \
        --tasks small_world --include_path "$task" --batch_size 1 --log_samples --output_path "$task/$1"
}
ask dpn_llava ""
ask llava ",device_map=auto"
"$VENV/bin/python" tests/lmms_eval/task/compare.py "$task/questions.jsonl" "$task/dpn_llava" "$task/llava"
