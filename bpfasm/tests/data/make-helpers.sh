#!/bin/sh
# Makes the rows of bpfasm/syntax/src/helpers.rs from the BTF of several kernels.
#
#   make-helpers.sh 5.10=FILE 6.1=FILE 6.12=FILE …
#
# Each FILE is raw BTF or a vmlinux, the oldest kernel first. A row contains a helper's number, its name, and the first of the
# given kernels that has it. Needs bpftool.
set -eu

for kernel in "$@"; do
    bpftool btf dump file "${kernel#*=}" format c | awk -v since="${kernel%%=*}" '
        /^enum bpf_func_id/ { inside = 1; next }
        inside && /^}/      { exit }
        inside && $1 ~ /^BPF_FUNC_/ && $1 != "BPF_FUNC_unspec" { sub(",", "", $3); print $3, $1, since }'
done | awk '
    !($1 in name) { name[$1] = $2; since[$1] = $3; if ($1 > last) last = $1 }
    name[$1] != $2 { print "helper " $1 " is " name[$1] " and " $2 > "/dev/stderr"; failed = 1; exit 1 }
    END {
        if (failed) exit 1
        for (id = 1; id <= last; id++) {
            if (!(id in name)) { print "helper " id " is missing" > "/dev/stderr"; exit 1 }
            split(since[id], version, ".")
            sub("BPF_FUNC_", "bpf_", name[id])
            printf "    (%d, \"%s\", (%d, %d)),\n", id, name[id], version[1], version[2]
        }
    }'
