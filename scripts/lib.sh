# shellcheck shell=bash
# What the training scripts share: preset, input checks, launcher. They source it from the repository root.
[[ -x .venv/bin/python ]] && PATH="$PWD/.venv/bin:$PATH"

die() { echo "$0: $*" >&2; exit 1; }

# load_preset: PRESET=toy reads scripts/presets/toy.env, which sets defaults other than the paper's for $STAGE.
load_preset() {
    [[ -n ${PRESET:-} ]] || return 0
    local file="scripts/presets/$PRESET.env"
    [[ -f $file ]] || die "no preset '$PRESET': there is no $file"
    # shellcheck source=scripts/presets/toy.env
    source "$file"
}

# require KIND VARIABLE FLAG ADVICE "$@": demand the file (-f) or folder (-d) that VARIABLE names. If FLAG is among
# the user's arguments it wins over the variable, and `llava.train` checks it.
require() {
    local kind=$1 variable=$2 flag=$3 advice=$4
    local path=${!variable}
    for word in "${@:5}"; do [[ $word == "$flag" || $word == "$flag="* ]] && return 0; done
    test "$kind" "$path" || die "no $path: $advice, or set $variable"
}

# require_model VARIABLE FLAG ADVICE "$@": as require, but what looks like a hub id may be downloaded.
require_model() {
    [[ ${!1} =~ ^([A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*$ && ! -d ${!1%%/*} ]] || require -d "$@"
}

# train ARGUMENTS...: run llava.train under LAUNCHER. DRY_RUN=1 prints the command instead.
train() {
    local command
    case $LAUNCHER in
        none) command=(python -m llava.train) ;;
        deepspeed) command=(deepspeed --num_gpus "$GPUS" --module llava.train) ;;
        torchrun) command=(torchrun --standalone --nproc_per_node "$GPUS" -m llava.train) ;;
        torchrun\ *) read -ra command <<<"$LAUNCHER -m llava.train" ;;  # several machines: torchrun --nnodes 2 ...
        *) die "LAUNCHER=$LAUNCHER is unknown: deepspeed, torchrun (with its flags, if any) or none" ;;
    esac
    [[ $ZERO == none ]] || command+=(--deepspeed "$ZERO")
    command+=("$@")
    if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "${command[@]}"; else exec "${command[@]}"; fi
}

# accumulation: micro batches per step, so that GLOBAL_BATCH stays what it is on any number of GPUs.
accumulation() {
    local at_once=$((GPUS * BATCH))
    ((GLOBAL_BATCH % at_once == 0)) ||
        die "GLOBAL_BATCH=$GLOBAL_BATCH is no multiple of GPUS x BATCH = $GPUS x $BATCH = $at_once"
    echo $((GLOBAL_BATCH / at_once))
}
