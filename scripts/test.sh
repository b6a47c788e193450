#!/usr/bin/env bash
# Everything a change must pass: lint, types, shell scripts, tests. Arguments go to pytest, which runs on WORKERS
# processes, a file of tests on one.
#   scripts/test.sh -k trainer
#   WORKERS=0 scripts/test.sh --pdb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh dev train
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" MPLBACKEND=Agg

failed=()
step() {
    echo "== $*"
    "$@" || failed+=("$1 ${2:-}")
}

mapfile -t shell_scripts < <(find scripts .ci -type f \( -name '*.sh' -o -name run \) | sort)
step ruff check .
step ruff format --check .
step basedpyright --level error
step shellcheck --external-sources "${shell_scripts[@]}"
step python -m pytest -q -n "${WORKERS:-2}" --dist loadfile "$@"

if ((${#failed[@]})); then
    printf '== failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "== all passed"
