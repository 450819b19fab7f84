#!/bin/sh
# Writes the bytes of isa.txt: assembles the text of each line with LLVM and writes LLVM's bytes before it. Empty lines and lines
# that start with `#` are kept. Needs llvm-mc-19, or another llvm-mc that LLVM_MC names.
set -eu
cd "$(dirname "$0")"

texts=$(mktemp)
encodings=$(mktemp)
trap 'rm -f "$texts" "$encodings"' EXIT

sed -n 's/^[0-9a-f ]*[|<] //p' isa.txt >"$texts"
"${LLVM_MC:-llvm-mc-19}" -triple bpfel -mcpu=v4 -show-encoding "$texts" |
    sed -n 's/.*# encoding: \[\(.*\)\].*/\1/p' | sed 's/0x//g; s/,/ /g' >"$encodings"

if [ "$(wc -l <"$texts")" != "$(wc -l <"$encodings")" ]; then
    echo "make-isa.sh: LLVM did not give one encoding for each text" >&2
    exit 1
fi

awk -v encodings="$encodings" '
    /^[0-9a-f ]*[|<] / {
        getline bytes < encodings
        sub(/^[0-9a-f ]*/, "")
        print bytes " " $0
        next
    }
    { print }
' isa.txt >"$texts"
cp "$texts" isa.txt
