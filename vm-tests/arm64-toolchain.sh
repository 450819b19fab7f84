#!/bin/sh
# Unpacks a toolchain for aarch64-unknown-linux-gnu into a folder of its own; nothing is installed.
#
#   arm64-toolchain.sh PACKAGES FOLDER
#
# PACKAGES has the .deb files that src/toolchain.rs names. FOLDER gets the unpacked tree, wrappers that find its libraries, and
# `environment`: variables for cargo, one NAME=VALUE on each line. It is complete when that file is there.
set -eu
packages=$(realpath "$1")
folder=$(realpath -m "$2")

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/tree"
for package in "$packages"/*.deb; do
    dpkg-deb -x "$package" "$folder/tree"
done
usr=$folder/tree/usr

# Programs of the tree with the libraries of the tree: NAME, PROGRAM.
wrapper() {
    cat >"$folder/bin/$1" <<END
#!/bin/sh
LD_LIBRARY_PATH=$usr/lib/x86_64-linux-gnu exec $2 "\$@"
END
    chmod +x "$folder/bin/$1"
}

# gcc finds its assembler and linker beside itself, and the C library where --sysroot says.
wrapper rustc "$usr/bin/rustc"
wrapper strip "$usr/bin/aarch64-linux-gnu-strip"
gcc=$(echo "$usr"/bin/aarch64-linux-gnu-gcc-[0-9]*)
wrapper gcc "$gcc --sysroot=$folder/tree"

cat >"$folder/environment" <<END
RUSTC=$folder/bin/rustc
CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$folder/bin/gcc
END
