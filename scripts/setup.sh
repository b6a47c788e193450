#!/usr/bin/env bash
# Make .venv with the tested versions. Extras are arguments; a second run with the same ones takes a second.
#   scripts/setup.sh            what inference, evaluation and toy training need
#   scripts/setup.sh train dev  also DeepSpeed, the test tools, ...   (PYTHON=python3.12 picks the interpreter)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
stamp=.venv/dpn-llava-setup
die() { echo "$0: $*" >&2; exit 1; }

known=$(sed -n '/^\[project.optional-dependencies\]/,/^\[tool/s/^\([a-z-]*\) = \[.*/\1/p' pyproject.toml)
for extra in "$@"; do
    grep -qx -- "$extra" <<<"$known" || die "no extra '$extra' in pyproject.toml; there are: ${known//$'\n'/ }"
done

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    command -v "$PYTHON" >/dev/null || die "no '$PYTHON' found: install Python 3.11 or newer, or set PYTHON"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$PYTHON" --version) is too old: Python 3.11 or newer is needed, e.g. PYTHON=python3.12 $0"
    echo "$0: making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv .venv || die "'$PYTHON -m venv' failed: on Debian and Ubuntu install python3-venv"
fi

# The stamp holds the state of the two files, then one installed extra per line.
state=$(cat pyproject.toml constraints.txt | .venv/bin/python -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), *sys.version_info[:2])')
installed=""
[[ -f $stamp && $(head -n 1 "$stamp") == "$state" ]] && installed=$(tail -n +2 "$stamp")
missing=no
[[ -n $installed ]] || missing=yes
for extra in "$@"; do grep -qx -- "$extra" <<<"$installed" || missing=yes; done
if [[ $missing == no ]]; then
    echo "$0: .venv is up to date"
    exit 0
fi

wanted=$(printf '%s\n' "$@" "$installed" core | sed '/^$/d' | sort -u)
extras=$(grep -vx core <<<"$wanted" | paste -sd, || true)
rm -f "$stamp"
torch=$(grep '^torch==' constraints.txt)
echo "$0: installing $torch, then dpn-llava${extras:+[$extras]}"
.venv/bin/python -m pip install --quiet -c constraints.txt "$torch"
.venv/bin/python -m pip install --quiet -c constraints.txt -e ".${extras:+[$extras]}"
printf '%s\n' "$state" "$wanted" >"$stamp"
echo "$0: done; 'source .venv/bin/activate' or call .venv/bin/python"
