#!/bin/sh
# Makes the files in this directory from the whole BTF of kernels: cut.sh DIRECTORY. The directory contains a <release>.btf for
# each kernel; README.md lists them.
set -eu
from=$1
to=$(dirname "$0")
cut() {
    cargo run -q -p btf --example cut -- "$to/names.txt" "$from/$1.btf" "$to/$2.btf"
}
cut 5.10.0-46-cloud-amd64 5.10-x86_64
cut 5.10.0-32-cloud-arm64 5.10-aarch64
cut 6.1.0-52-cloud-amd64 6.1-x86_64
cut 6.12.117+deb13-cloud-amd64 6.12-x86_64
cut 6.18.15+deb13-cloud-amd64 6.18-x86_64
cut 7.3.4+deb13-cloud-amd64 7.3-x86_64
cut 7.3.4+deb13-cloud-arm64 7.3-aarch64
