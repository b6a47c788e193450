# shellcheck shell=bash
# What the download scripts share. Addresses, sizes and licences are as generally known: none could be tried or looked
# up where this was written, so every line says "not verified". A file counts as verified once its sha256 is that of
# scripts/data/checksums.txt (or CHECKSUMS); --record writes down there what lies here now.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit

DATA_ROOT=${DATA_ROOT:-playground/data/eval}
CHECKSUMS=${CHECKSUMS:-scripts/data/checksums.txt}
mode=fetch
case "$*" in
    "") ;;
    --dry-run | --record) mode=$1 ;;
    *) echo "usage: $0 [--dry-run|--record]    DATA_ROOT=$DATA_ROOT CHECKSUMS=$CHECKSUMS" >&2; exit 2 ;;
esac
die() { echo "$0: $*" >&2; exit 1; }

# about TITLE LICENCE: what this is; terms are the owners', reading them is yours.
about() { printf '== %s, to %s\n   licence: %s (not verified: read the terms of its owners)\n' "$1" "$DATA_ROOT" "$2"; }

# on_record FILE: the sha256 that the list gives for DATA_ROOT/FILE; nothing where it has no line for it.
on_record() { [[ ! -e $CHECKSUMS ]] || awk -v file="$1" '$2 == file { sum = $1 } END { print sum }' "$CHECKSUMS"; }

# verify FILE [PLACE]: compare DATA_ROOT/FILE, which lies at PLACE, with its line there, or add the line.
verify() {
    local place=${2:-$DATA_ROOT/$1} known sum
    known=$(on_record "$1")
    sum=$(sha256sum <"$place") && sum=${sum%% *}
    if [[ -z $known && $mode == --record ]]; then
        echo "$sum  $1" >>"$CHECKSUMS"
        echo "   recorded in $CHECKSUMS: $sum  $1"
    elif [[ -z $known ]]; then
        echo "   not verified: $CHECKSUMS has no line for it; $0 --record adds: $sum  $1"
    elif [[ $sum == "$known" ]]; then
        echo "   verified: sha256 as in $CHECKSUMS"
    else
        die "$place has sha256 $sum, but $CHECKSUMS says $known: it is broken or another release. Remove it and start" \
            "again, or correct that line"
    fi
}

# there FILE: say that DATA_ROOT/FILE is there. Only what is on record, or shall be, is read: files may be large.
there() {
    local known
    known=$(on_record "$1")
    echo "   there already${known:+, on record}: $DATA_ROOT/$1"
    [[ ! -f $DATA_ROOT/$1 || $mode == --dry-run || ( -z $known && $mode != --record ) ]] || verify "$1"
}

# fetch SIZE URL FILE: download to DATA_ROOT/FILE unless it is there; a download that broke off is continued.
fetch() {
    local size=$1 url=$2 file=$DATA_ROOT/$3
    if [[ -e $file ]]; then
        there "$3"
    elif [[ $mode == --dry-run ]]; then
        local known
        known=$(on_record "$3")
        echo "   would fetch $url (about $size; address and size not verified) to $file; sha256 on record: ${known:-none}"
    else
        echo "   fetching $url (about $size; address and size not verified) to $file"
        mkdir -p "$(dirname "$file")"
        curl -fL -C - -o "$file.part" "$url" || die "$url can't be fetched; start again to continue"
        verify "$3" "$file.part"
        mv "$file.part" "$file"
    fi
}

# unpack ZIP FOLDER: unpack DATA_ROOT/ZIP into DATA_ROOT/FOLDER; files that are there are left alone.
unpack() {
    if [[ $mode == --dry-run ]]; then
        echo "   would unpack $DATA_ROOT/$1 into $DATA_ROOT/$2"
    else
        mkdir -p "$DATA_ROOT/$2"
        unzip -nq "$DATA_ROOT/$1" -d "$DATA_ROOT/$2" || die "$DATA_ROOT/$1 is broken: remove it and start again"
    fi
}

# by_hand FILE WHERE: something that no command may fetch (a form, a login, Google Drive).
by_hand() {
    if [[ -e $DATA_ROOT/$1 ]]; then there "$1"; else echo "   BY HAND $DATA_ROOT/$1: $2"; fi
}

# question_file FILE: the files of LLaVA's eval.zip, all in one archive.
question_file() {
    by_hand "$1" "part of LLaVA's eval.zip, https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy \
(linked from LLaVA's page on evaluation); unpack it into $DATA_ROOT"
}
