#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make bench-validate`: how fast validation is, next to a bare iced-x86 decode
# loop and to other decoders that do the same check, over large programs of this
# machine and a Wasmtime image that `make demo` left. Boots nothing; three minutes.
. "$(dirname "$0")/../tests/vm/lib.sh"

command -v cmake >/dev/null ||
    die "cmake is not installed, and Zydis is built with it" "install cmake"
command -v c++ >/dev/null ||
    die "there is no C++ compiler for cmake" "install g++"

export CACHE CARGO_TARGET_DIR=$TOP/target/decoders
say "load of the host $(cut -d' ' -f1 /proc/loadavg) on $(nproc) CPUs"
cargo bench --quiet --locked --manifest-path "$TOP/benches/decoders/Cargo.toml" "$@"
