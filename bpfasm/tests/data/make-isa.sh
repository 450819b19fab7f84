#!/bin/sh
# Writes the bytes of isa.txt: takes the text of each line, has LLVM assemble it, and puts LLVM's bytes before it. Lines that are
# empty or start with `#` stay. Needs llvm-mc; LLVM_MC names another one than llvm-mc-19.
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
