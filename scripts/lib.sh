# shellcheck shell=bash
# What the training scripts share: preset, input checks, launcher. They source it from the repository root.
[[ -x .venv/bin/python ]] && PATH="$PWD/.venv/bin:$PATH"

die() { echo "$0: $*" >&2; exit 1; }

ASKED_BATCH=${BATCH:-} # what the user set, before a preset or a script gives it a default

# positive VARIABLE...: demand whole numbers from 1 on, so that bash's arithmetic can't stumble over them.
positive() {
    local name
    for name in "$@"; do
        [[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "$name=${!name} must be a whole number from 1 on, without zeros in front"
    done
}

# load_preset: PRESET=13b reads scripts/presets/13b.env, which sets defaults other than the 7B recipe's for $STAGE.
load_preset() {
    [[ -n ${PRESET:-} ]] || return 0
    local file="scripts/presets/$PRESET.env"
    [[ -f $file ]] || die "no preset '$PRESET': there is no $file"
    # shellcheck source=scripts/presets/toy.env
    source "$file"
}

# load_ablation: ABLATION=static-2x2 reads scripts/ablations/static-2x2.env, a row of the paper's Tables 3 and 4. It
# says which script trains it (ABLATION_STAGE), sets what differs from the recipe, and words for --reduction
# (ABLATION_WORDS). To be called before load_preset, whose defaults are weaker.
load_ablation() {
    ABLATION_WORDS=""
    [[ -n ${ABLATION:-} ]] || return 0
    local file="scripts/ablations/$ABLATION.env" ABLATION_STAGE
    [[ -f $file ]] || die "no ablation '$ABLATION': there is no $file"
    # shellcheck source=scripts/ablations/static-2x2.env
    source "$file"
    if [[ $STAGE == pretrain ]]; then
        [[ -n ${PROJECTOR_TYPE:-} ]] || die "ABLATION=$ABLATION has no stage 1 of its own: leave ABLATION out"
        return 0
    fi
    [[ $STAGE == "$ABLATION_STAGE" ]] || die "ABLATION=$ABLATION is trained by scripts/$ABLATION_STAGE.sh"
    : "${OUTPUT:=checkpoints/ablations/${PRESET:+$PRESET-}$ABLATION}"
}

# require KIND VARIABLE FLAG ADVICE "$@": demand the file (-f) or folder (-d) that VARIABLE names. If FLAG is among
# the user's arguments it wins over the variable, and `llava.train` checks it.
require() {
    local kind=$1 variable=$2 flag=$3 advice=$4
    local path=${!variable}
    for word in "${@:5}"; do [[ $word == "$flag" || $word == "$flag="* || $word == --estimate* ]] && return 0; done
    test "$kind" "$path" || die "no $path: $advice, or set $variable"
}

# require_model VARIABLE FLAG ADVICE "$@": as require, but what looks like a hub id may be downloaded.
require_model() {
    [[ ${!1} =~ ^([A-Za-z0-9][A-Za-z0-9_.-]*/)?[A-Za-z0-9][A-Za-z0-9_.-]*$ && ! -d ${!1%%/*} ]] || require -d "$@"
}

# projector_flags: sets `flags` from PROJECTOR_TYPE, and from PROJECTOR_OPTIONS where it has options ("scale=2").
projector_flags() {
    local options
    read -ra options <<<"${PROJECTOR_OPTIONS:-}"
    flags=(--mm_projector_type "${PROJECTOR_TYPE:-mlp2x_gelu}")
    ((${#options[@]} == 0)) || flags+=(--mm_projector_options "${options[@]}")
}

# suffix: the name that a projector other than LLaVA's gives its folders, so that it has its own.
suffix() { [[ ${PROJECTOR_TYPE:-mlp2x_gelu} == mlp2x_gelu ]] || echo "-$PROJECTOR_TYPE"; }

# launch_settings: how many machines (NNODES) and GPUs of each (GPUS) there are, and what starts their processes.
# A HOSTFILE (lines "HOST slots=GPUS") names the machines for deepspeed, which reaches them by ssh. Without ssh, start
# the same command on every machine with NODE_RANK, MASTER_ADDR and, under torchrun, NNODES.
launch_settings() {
    if [[ -n ${HOSTFILE:-} ]]; then
        read_hostfile
    elif [[ ${LAUNCHER:-} == torchrun\ * ]]; then
        read_torchrun_flags
    fi
    NNODES=${NNODES:-1}
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} && -z ${HOSTFILE:-} ]]; then # deepspeed would take GPUs 0, 1, ... all the same
        local commas=${CUDA_VISIBLE_DEVICES//[^,]/}
        GPUS=${GPUS:-$((${#commas} + 1))} LAUNCHER=${LAUNCHER:-torchrun}
        [[ $LAUNCHER != deepspeed ]] || die "LAUNCHER=deepspeed doesn't keep to CUDA_VISIBLE_DEVICES: leave one out"
    fi
    [[ ${LAUNCHER:-} != none ]] || GPUS=${GPUS:-1}
    GPUS=${GPUS:-8}
    positive NNODES GPUS
    if [[ -z ${LAUNCHER:-} ]]; then
        if ((NNODES > 1)); then LAUNCHER=torchrun; else LAUNCHER=deepspeed; fi
    fi
    [[ $LAUNCHER != none ]] || ((NNODES * GPUS == 1)) ||
        die "LAUNCHER=none starts one process, but NNODES x GPUS = $NNODES x $GPUS: leave one of them out"
}

# read_hostfile: NNODES and GPUS from a HOSTFILE, every line of which has to be one that deepspeed reads.
read_hostfile() {
    [[ -f $HOSTFILE ]] || die "no HOSTFILE=$HOSTFILE: write one line 'HOST slots=GPUS' for every machine"
    local line hosts=" " count=0 slots=""
    while read -r line || [[ -n $line ]]; do
        line=${line%%#*}
        [[ -n ${line// /} ]] || continue
        [[ $line =~ ^([^[:space:]]+)[[:space:]]+slots=([1-9][0-9]*)[[:space:]]*$ ]] ||
            die "HOSTFILE=$HOSTFILE: every line must be 'HOST slots=GPUS', with the same GPUS; found '$line'"
        [[ $hosts != *" ${BASH_REMATCH[1]} "* ]] || die "HOSTFILE=$HOSTFILE names ${BASH_REMATCH[1]} twice"
        [[ -z $slots || $slots == "${BASH_REMATCH[2]}" ]] ||
            die "HOSTFILE=$HOSTFILE: every line must be 'HOST slots=GPUS', with the same GPUS; found $slots and ${BASH_REMATCH[2]}"
        hosts+="${BASH_REMATCH[1]} " slots=${BASH_REMATCH[2]} count=$((count + 1))
    done <"$HOSTFILE"
    ((count > 0)) || die "HOSTFILE=$HOSTFILE: every line must be 'HOST slots=GPUS', with the same GPUS; there is none"
    [[ ${NNODES:-$count} == "$count" ]] || die "NNODES=$NNODES, but HOSTFILE=$HOSTFILE has $count machines: leave NNODES out"
    [[ ${GPUS:-$slots} == "$slots" ]] || die "GPUS=$GPUS, but HOSTFILE=$HOSTFILE says slots=$slots: leave GPUS out"
    NNODES=$count GPUS=$slots LAUNCHER=${LAUNCHER:-deepspeed}
    [[ $LAUNCHER == deepspeed ]] || die "LAUNCHER=$LAUNCHER reads no HOSTFILE: leave one of the two out"
}

# read_torchrun_flags: NNODES and GPUS from the flags in LAUNCHER="torchrun FLAGS", so that the global batch is counted
# with the processes that these start.
read_torchrun_flags() {
    local words index nodes="" gpus="" word next
    read -ra words <<<"$LAUNCHER"
    for index in "${!words[@]}"; do
        word=${words[index]//_/-} next=${words[index + 1]:-}
        case $word in
            --nnodes=*) nodes=${words[index]#*=} ;;
            --nnodes) nodes=$next ;;
            --nproc-per-node=*) gpus=${words[index]#*=} ;;
            --nproc-per-node) gpus=$next ;;
        esac
    done
    [[ -z $nodes || $nodes == "${NNODES:-$nodes}" ]] || die "LAUNCHER='$LAUNCHER' has another number of machines than NNODES=$NNODES"
    [[ ! $gpus =~ ^[0-9]+$ || $gpus == "${GPUS:-$gpus}" ]] || die "LAUNCHER='$LAUNCHER' has another number of processes than GPUS=$GPUS"
    [[ $gpus =~ ^[0-9]+$ || -n ${GPUS:-} ]] || die "LAUNCHER='$LAUNCHER' doesn't say how many processes a machine has: set GPUS"
    NNODES=${nodes:-${NNODES:-1}}
    [[ -n ${GPUS:-} ]] || GPUS=$gpus
}

# require_meeting: demand what the processes of several machines need to find each other.
require_meeting() {
    ((NNODES == 1)) && [[ -z ${NODE_RANK:-} ]] && return
    [[ $LAUNCHER != torchrun\ * ]] || return 0 # its flags are the user's
    if [[ $LAUNCHER == torchrun || -n ${NODE_RANK:-} ]]; then
        [[ -n ${MASTER_ADDR:-} ]] || die "NNODES=$NNODES needs MASTER_ADDR, the address of the first machine"
        [[ ${NODE_RANK:-} =~ ^(0|[1-9][0-9]*)$ && $NODE_RANK -lt $NNODES ]] ||
            die "NODE_RANK=${NODE_RANK:-} must be this machine's number, from 0 to NNODES-1 = $((NNODES - 1))"
    fi
    [[ $LAUNCHER != deepspeed || -n ${HOSTFILE:-} ]] ||
        die "LAUNCHER=deepspeed needs a HOSTFILE for NNODES=$NNODES; or use LAUNCHER=torchrun"
}

# require_gpus: refuse to start more processes than this machine has GPUs, where the driver can be asked.
require_gpus() {
    [[ $LAUNCHER == none || ${DS_ACCELERATOR:-} == cpu || ${CUDA_VISIBLE_DEVICES-all} == "" ]] && return
    [[ -z ${HOSTFILE:-} ]] && command -v nvidia-smi >/dev/null || return 0
    local there
    there=$(nvidia-smi --list-gpus | grep -c '^GPU') || die "nvidia-smi finds no GPU; PRESET=toy needs none"
    ((GPUS <= there)) || die "GPUS=$GPUS, but this machine has $there: set GPUS=$there (the global batch stays)"
}

# estimates ARGUMENTS...: whether the last --estimate among them is switched on, as llava.train reads it.
estimates() {
    [[ " $* " =~ .*\ --estimate([ =]([^ ]+))?\  ]] || return
    local value=${BASH_REMATCH[2],,}
    [[ -z $value || $value == --* || $value =~ ^(true|t|yes|y|1)$ ]]
}

# train ARGUMENTS...: run llava.train under LAUNCHER. DRY_RUN=1 prints the command instead. With --estimate, one process
# computes what all GPUs would need.
train() {
    local command meeting=() port=()
    if estimates "$@"; then
        LAUNCHER=none NODE_RANK=""
        set -- --estimate_gpus $((NNODES * GPUS)) "$@"
    else
        require_meeting
    fi
    [[ -z ${MASTER_PORT:-} ]] || port=(--master_port "$MASTER_PORT") # both launchers take 29500 else
    [[ -z ${NODE_RANK:-} ]] || meeting=(--node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" "${port[@]}")
    case $LAUNCHER in
        none) command=(python -m llava.train) ;;
        deepspeed)
            if [[ -n ${HOSTFILE:-} ]]; then
                if [[ -n ${NODE_RANK:-} ]]; then
                    meeting=(--no_ssh "${meeting[@]}")
                else # DeepSpeed asks the first machine for its address, and takes the first one it names
                    meeting=(${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} "${port[@]}")
                fi
                command=(deepspeed --hostfile "$HOSTFILE" "${meeting[@]}" --module llava.train)
            else
                command=(deepspeed --num_gpus "$GPUS" "${port[@]}" --module llava.train)
            fi
            ;;
        torchrun)
            if ((NNODES > 1)); then meeting=(--nnodes "$NNODES" "${meeting[@]}"); else meeting=(--standalone); fi
            command=(torchrun "${meeting[@]}" --nproc_per_node "$GPUS" -m llava.train)
            ;;
        torchrun\ *) read -ra command <<<"$LAUNCHER -m llava.train" ;; # with flags of your own
        *) die "LAUNCHER=$LAUNCHER is unknown: deepspeed, torchrun (with its flags, if any) or none" ;;
    esac
    [[ $ZERO == none ]] || command+=(--deepspeed "$ZERO")
    command+=("$@")
    require_gpus
    if [[ -n ${DRY_RUN:-} ]]; then printf '%s\n' "${command[@]}"; else exec "${command[@]}"; fi
}

# set_batch GLOBAL BATCH: set GLOBAL_BATCH, BATCH and ACCUMULATION so that GLOBAL_BATCH stays what it is on any number of
# GPUs. The arguments are defaults. A BATCH that the user didn't set is lowered where that many GPUs need less.
set_batch() {
    GLOBAL_BATCH=${GLOBAL_BATCH:-$1} BATCH=${BATCH:-$2}
    positive GLOBAL_BATCH BATCH
    local gpus=$((NNODES * GPUS)) fitting=$BATCH
    while ((fitting > 1 && GLOBAL_BATCH % (gpus * fitting) != 0)); do fitting=$((fitting - 1)); done
    if ((GLOBAL_BATCH % (gpus * BATCH) != 0)); then
        local problem="GLOBAL_BATCH=$GLOBAL_BATCH is no multiple of GPUS x BATCH = $gpus x $BATCH = $((gpus * BATCH))"
        ((GLOBAL_BATCH % (gpus * fitting) == 0)) || die "$problem, nor of $gpus: take another number of GPUs, or set GLOBAL_BATCH"
        [[ -z $ASKED_BATCH ]] || die "$problem: BATCH=$fitting would do, or leave it out"
        echo "$0: BATCH=$fitting instead of $BATCH, as GLOBAL_BATCH=$GLOBAL_BATCH is shared by $gpus GPUs" >&2
        BATCH=$fitting
    fi
    local steps=$((GLOBAL_BATCH / (gpus * BATCH)))
    [[ ${ACCUMULATION:-$steps} == "$steps" ]] ||
        die "ACCUMULATION=$ACCUMULATION, but GLOBAL_BATCH=$GLOBAL_BATCH and BATCH=$BATCH on $gpus GPUs give $steps: leave it out"
    # shellcheck disable=SC2034 # the scripts that source this file read it
    ACCUMULATION=$steps
}
