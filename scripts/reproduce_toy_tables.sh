#!/usr/bin/env bash
# The evidence on the small world: trains and evaluates plain LLaVA, DPN and its rivals with several seeds, then writes
# the counterparts of the paper's Tables 1-4, Fig. 3 and 4, the study of routers and the oracle (docs/tables.md).
#   bash scripts/reproduce_toy_tables.sh                     3 seeds: 57 trainings of 2 to 5 minutes and one core each
#   SEEDS=5 METHODS="dense paper policy" OUTPUT=results/mine bash scripts/reproduce_toy_tables.sh
#   STEPS=4 QUESTIONS=12 METHODS="dense policy" OUTPUT=results/try bash scripts/reproduce_toy_tables.sh    does it run?
#   METHODS="value policy-budget static-late truncate truncate@2 downsample" bash scripts/reproduce_toy_tables.sh
#                                                            afterwards: more rows
#   TABLES_ONLY=1 bash scripts/reproduce_toy_tables.sh       trains nothing: tables from the answers in OUTPUT or, where
#                                                            there are none, from the committed ones in OUTPUT-committed
# Finished runs are kept in OUTPUT, so a second call goes on; the tables show every run that is there, also those of
# earlier calls with more seeds or other methods. A run that fails is named, the tables are written without it, and the
# script ends with an error. QUESTIONS counts per benchmark. PACK=FILE.tar.xz keeps all answers in one file, as
# docs/results/toy/runs.tar.xz was written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
source scripts/lib.sh
SEEDS=${SEEDS:-3}
QUESTIONS=${QUESTIONS:-300}
OUTPUT=${OUTPUT:-results/toy}
TOY=${TOY:-playground/toy}
JOBS=${JOBS:-$(nproc)}
projectors="average_pool pixel_shuffle token_packer ldp_v2 resampler c_abstractor"
rivals="pyramid_drop random-drop truncate@3"
rows="static-2x2 static-1x2 static-2x1 random dynamic-2x2-4x4 early no-loss"
read -ra methods <<<"${METHODS:-dense paper policy $rows $projectors $rivals}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

[[ -d $TOY ]] || python -m llava.toy --output "$TOY" --seed 0
status=0
if [[ -z ${TABLES_ONLY:-} ]]; then
    python -m llava.toy.study --methods "${methods[@]}" --seeds "$SEEDS" --output "$OUTPUT" --world "$TOY" \
        --jobs "$JOBS" --threads 1 --steps "${STEPS:-200}" --max_samples "$QUESTIONS" || status=$?
    ((status == 0 || status == 3)) || exit "$status" # 3: some runs failed, the tables of the others can be written
elif ! compgen -G "$OUTPUT/runs/*/seed*/points/*/*/scores.json" >/dev/null; then
    # In a folder of their own: a later call that trains must not take them for its own.
    OUTPUT=$OUTPUT-committed
    echo "== no answers of your own: tables from docs/results/toy/runs.tar.xz, as unpacked into $OUTPUT"
    if [[ ! -d $OUTPUT ]]; then
        rm -rf "$OUTPUT.part" && mkdir -p "$OUTPUT.part"
        tar -C "$OUTPUT.part" -xJf docs/results/toy/runs.tar.xz
        mv "$OUTPUT.part" "$OUTPUT"
    fi
fi
TABLES=${TABLES:-$OUTPUT/tables}

# row KEY POINT: sets `row` to KEY=FOLDERS where the point was evaluated, one folder per seed; else to nothing.
row() {
    local folders
    folders=$(compgen -G "$OUTPUT/runs/*/seed*/points/$2" | sort -V | paste -sd,) || true
    row=()
    [[ -z $folders ]] || row=("$1=$folders")
}
# table NAME COLUMNS... -- KEY[=POINT]...: one table of the paper; +KEY is a row that the paper doesn't have.
table() {
    local name=$1 columns=() runs=() word
    shift
    while [[ $1 != -- ]]; do columns+=("$1") && shift; done
    for word in "${@:2}"; do
        row "${word%%=*}" "$(basename "${word#*=}" | sed 's/^+//')"
        runs+=("${row[@]}")
    done
    ((${#runs[@]})) || { echo "== $name: none of its rows was run" && return; }
    echo "== $name"
    python -m dpn.analysis.tables "$name" --small_world --columns "${columns[@]}" --runs "${runs[@]}" --output "$TABLES"
}

table table1 gqa textvqa pope average flops_ratio -- llava=dense fastv-r0.5 fastv-r0.6 +fastv-late dpn=paper +policy \
    +policy-budget +value=value@0.5 +pyramid_drop +pyramid-drop-free +random-drop +random-drop-free +truncate +truncate@3 \
    +truncate@2 +truncate-free +downsample +downsample-free +visionzip
table table2 tokens gqa pope textvqa average flops_ratio -- mlp=dense average_pool resampler c_abstractor pixel_shuffle \
    ldp_v2 prumerge_plus token_packer dpn=paper +policy +static-2x2 +visionzip
table table3 gqa textvqa pope average flops_ratio -- static-2x2 pre-pooling=average_pool random static-2x1 static-1x2 \
    dynamic-2x2-4x4 early dpn=paper +static-late +policy
table table4 gqa gqa_flops textvqa textvqa_flops pope pope_flops average average_flops -- baseline=dense no-loss \
    dpn=paper +policy

shown=()
for point in paper no-loss policy value@0.5; do
    row "$point" "$point"
    shown+=("${row[@]}")
done
((${#shown[@]} == 0)) ||
    python -m dpn.analysis.figures fig3 --small_world --runs "${shown[@]}" --output "$TABLES"
routed=$OUTPUT/runs/policy/seed0
if [[ -d $routed/points/policy ]]; then
    python -m dpn.analysis.figures fig4 --small_world --runs "policy=$routed/points/policy" --data_root "$TOY/eval" \
        --output "$TABLES"
fi
if [[ -d $routed/checkpoint ]]; then
    python -m llava.eval.oracle --benchmarks gqa pope textvqa --model_path "$routed/checkpoint" --data_root "$TOY/eval" \
        --output_dir "$OUTPUT/oracle" --batch_size 32 --num_workers 0 --max_new_tokens 8 \
        --limit "${ORACLE_QUESTIONS:-$((QUESTIONS < 200 ? QUESTIONS : 200))}"
fi
[[ ! -d $OUTPUT/oracle ]] || python -m dpn.analysis.oracle "$OUTPUT/oracle" --output "$TABLES"
python -m dpn.analysis.study "$OUTPUT" --output "$TABLES"
[[ -z ${PACK:-} ]] || python -m dpn.analysis.archive "$OUTPUT" "$PACK"
echo "== written to $TABLES"
((status == 0)) || die "some runs failed (named above): the tables show what there is; a second call tries them again"
