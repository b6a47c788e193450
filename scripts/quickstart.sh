#!/usr/bin/env bash
# From a fresh clone to trained models and their scores, on the small world: a CPU with 2 cores is enough.
#   bash scripts/quickstart.sh             SEED=3 changes images, questions, order and initial weights
# Finished steps are remembered in results/quickstart*/steps, so a second run goes on; FRESH=1 starts again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SEED=${SEED:-0}
suffix=""
[[ $SEED == 0 ]] || suffix="-seed$SEED"
export SEED PRESET=toy TOY="playground/toy$suffix"
checkpoints="checkpoints/toy$suffix"
results="results/quickstart$suffix"
[[ -z ${FRESH:-} ]] || rm -rf "$TOY" "$checkpoints" "$results"

bash scripts/setup.sh
source scripts/lib.sh
mkdir -p "$results/steps" || die "can't write $results"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# step NAME SHARE TITLE COMMAND...: run once; SHARE is its part of the whole time in percent.
left=100
step() {
    local name=$1 share=$2 title=$3
    shift 3
    if [[ -f $results/steps/$name ]]; then
        echo "== $title: done before"
    else
        printf '\n== %s (about %s of %s left)\n' "$title" "$(minutes "$share")" "$(minutes "$left")"
        "$@" || die "'$title' failed (see above); mend it and start again: finished steps are kept"
        touch "$results/steps/$name"
    fi
    left=$((left - share))
}
minutes() { awk -v total="$total" -v share="$1" 'BEGIN { printf "%.1f min", total * share / 6000 }'; }

evaluate() { # NAME CHECKPOINT [WORDS OF --reduction]
    local words=()
    (($# == 2)) || words=(--reduction "${@:3}")
    scripts/eval/run.sh --benchmarks gqa pope textvqa --model_path "$2" --data_root "$TOY/eval" \
        --output_dir "$results/runs/$1" --batch_size 32 --num_workers 0 --max_new_tokens 8 "${words[@]}"
}

total=$(python -m llava.toy.estimate)
echo "== about $(minutes 100) on this machine, measured with a training step of the small model"

projector="$checkpoints/pretrain/mm_projector.bin"
export PROJECTOR=$projector
step world 3 "the small world: images, questions, a tiny CLIP and a tiny base model" \
    python -m llava.toy --output "$TOY" --seed "$SEED"
step pretrain 11 "stage 1: the projector" env OUTPUT="$checkpoints/pretrain" scripts/pretrain.sh
step dense 27 "stage 2: dense LLaVA" env OUTPUT="$checkpoints/dense" scripts/finetune.sh
step paper 22 "stage 2: DPN, preset=paper" \
    env DPN_PRESET=paper OUTPUT="$checkpoints/dpn-paper" scripts/finetune_dpn.sh
step policy 22 "stage 2: DPN, preset=policy" \
    env DPN_PRESET=policy OUTPUT="$checkpoints/dpn-policy" scripts/finetune_dpn.sh
step eval-dense 3 "evaluation: dense LLaVA" evaluate dense "$checkpoints/dense"
step eval-paper 3 "evaluation: DPN, preset=paper" evaluate paper "$checkpoints/dpn-paper"
step eval-policy 3 "evaluation: DPN, preset=policy" evaluate policy "$checkpoints/dpn-policy"
step eval-static 3 "evaluation: the policy's weights, every route forced to 2x2" \
    evaluate static "$checkpoints/dpn-policy" dpn eval_choice=static route=2x2,2x2,2x2
step eval-random 3 "evaluation: the policy's weights, random routes" \
    evaluate random "$checkpoints/dpn-policy" dpn eval_choice=random
python -m dpn.analysis.summary "LLaVA (dense)=$results/runs/dense" "DPN, paper=$results/runs/paper" \
    "DPN, policy=$results/runs/policy" "  static 2x2=$results/runs/static" "  random routes=$results/runs/random" \
    --output "$results" --data_root "$TOY/eval" --examples_of "DPN, policy"
echo "== pictures: $results/{tradeoff,routes,examples}.png"
