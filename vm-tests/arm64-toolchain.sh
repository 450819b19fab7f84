#!/bin/sh
# Unpacks a toolchain for aarch64-unknown-linux-gnu into a folder. It installs nothing.
#
#   arm64-toolchain.sh PACKAGES FOLDER
#
# PACKAGES is a folder with the .deb files that src/toolchain.rs lists. FOLDER gets the unpacked
# tree, wrappers that find its libraries, and the file `environment` with variables for cargo, one
# NAME=VALUE on each line. That file is written last: if it exists, the toolchain is complete.
set -eu
packages=$(realpath "$1")
folder=$(realpath -m "$2")

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/tree"
for package in "$packages"/*.deb; do
    dpkg-deb -x "$package" "$folder/tree"
done
usr=$folder/tree/usr

# wrapper NAME PROGRAM: a script that runs a program of the tree with the libraries of the tree.
wrapper() {
    cat >"$folder/bin/$1" <<END
#!/bin/sh
LD_LIBRARY_PATH=$usr/lib/x86_64-linux-gnu exec $2 "\$@"
END
    chmod +x "$folder/bin/$1"
}

# gcc finds its assembler and linker beside itself, and the C library by --sysroot.
wrapper rustc "$usr/bin/rustc"
wrapper strip "$usr/bin/aarch64-linux-gnu-strip"
gcc=$(echo "$usr"/bin/aarch64-linux-gnu-gcc-[0-9]*)
wrapper gcc "$gcc --sysroot=$folder/tree"

cat >"$folder/environment" <<END
RUSTC=$folder/bin/rustc
CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$folder/bin/gcc
END
