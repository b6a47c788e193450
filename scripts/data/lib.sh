# shellcheck shell=bash
# What the download scripts share. Addresses and sizes ("about") are as generally known and weren't tried where this
# was written. The owners publish no checksums: the sum of what came is printed, to be compared between machines.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

DATA_ROOT=${DATA_ROOT:-playground/data/eval}
dry_run=no
case "$*" in
    "") ;;
    --dry-run) dry_run=yes ;;
    *) echo "usage: $0 [--dry-run]    DATA_ROOT=$DATA_ROOT" >&2; exit 2 ;;
esac
die() { echo "$0: $*" >&2; exit 1; }

# about TITLE LICENCE: what this is; terms are the owners', reading them is yours.
about() { printf '== %s, to %s\n   licence: %s\n' "$1" "$DATA_ROOT" "$2"; }

# fetch SIZE URL FILE: download to DATA_ROOT/FILE unless it is there; a download that broke off is continued.
fetch() {
    local size=$1 url=$2 file=$DATA_ROOT/$3
    if [[ -e $file ]]; then
        echo "   there already: $file"
    elif [[ $dry_run == yes ]]; then
        echo "   would fetch $url (about $size) to $file"
    else
        echo "   fetching $url (about $size) to $file"
        mkdir -p "$(dirname "$file")"
        curl -fL -C - -o "$file.part" "$url" || die "$url can't be fetched; start again to continue"
        mv "$file.part" "$file"
        sha256sum "$file"
    fi
}

# unpack ZIP FOLDER: unpack DATA_ROOT/ZIP into DATA_ROOT/FOLDER; files that are there are left alone.
unpack() {
    if [[ $dry_run == yes ]]; then
        echo "   would unpack $DATA_ROOT/$1 into $DATA_ROOT/$2"
    else
        mkdir -p "$DATA_ROOT/$2"
        unzip -nq "$DATA_ROOT/$1" -d "$DATA_ROOT/$2" || die "$DATA_ROOT/$1 is broken: remove it and start again"
    fi
}

# by_hand FILE WHERE: something that no command may fetch (a form, a login, Google Drive).
by_hand() {
    if [[ -e $DATA_ROOT/$1 ]]; then echo "   there already: $DATA_ROOT/$1"; else echo "   BY HAND $DATA_ROOT/$1: $2"; fi
}

# question_file FILE: the files of LLaVA's eval.zip, all in one archive.
question_file() {
    by_hand "$1" "part of LLaVA's eval.zip, https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy \
(linked from LLaVA's page on evaluation); unpack it into $DATA_ROOT"
}
