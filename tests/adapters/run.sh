#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make adapters`: the adapters of userlib/adapters with the engines that they are for, on
# this host with a fallback, then in a guest by /dev/jit; in both ordinary code is refused
# (PR_SET_MDWE). The last line is "adapters: N passed, N failed". What is built is kept in
# the cache: Wasmtime and Cranelift take some 2 minutes at first.
#
#   CACHE= ACCEL= SMP= MEM=   as for make vm
. "$(dirname "$0")/../vm/lib.sh"

HERE=$TOP/userlib/adapters
VM=$TOP/target/release/vm
TRIPLE=x86_64-unknown-linux-gnu
BUILD=$CACHE/adapters-build

# cargo_here ARGS...: with what is built in the cache, linked statically for the guest.
cargo_here() {
    quietly "$CACHE/adapters.log" env --default-signal=INT,QUIT RUSTFLAGS="-C target-feature=+crt-static" \
        cargo "$@" --locked --manifest-path "$HERE/Cargo.toml" --target "$TRIPLE" --target-dir "$BUILD" ||
        die "the adapters did not build, or a test failed" "see cargo's lines above"
}

lock adapters
[ -x "$VM" ] || make -C "$TOP" --no-print-directory init
say "building Wasmtime, Cranelift and the adapters (some 2 minutes at first)"
cargo_here build --release
say "the adapters' own tests"
cargo_here test --release --workspace --quiet
say "on this host, with a fallback"
"$BUILD/$TRIPLE/release/adapters-check" --fallback
say "in the guest, by /dev/jit"
"$VM" "$BUILD/$TRIPLE/release/adapters-check"
