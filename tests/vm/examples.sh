#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Runs the examples of the library's documentation in a guest, where those that
# need /dev/jit have it. cargo (1.89 or newer; an older one would run them here)
# links them into one program and calls this very script again to run it.
#   examples.sh
. "$(dirname "$0")/lib.sh"

TRIPLE=x86_64-unknown-linux-gnu
cd "$TOP"
if [ $# -gt 0 ]; then
    exec target/release/vm "$@"
fi
# In the guest they share one process: some fork, so they take turns.
CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$(realpath "$0") \
    RUSTFLAGS="-C target-feature=+crt-static" \
    RUSTDOCFLAGS="-C target-feature=+crt-static" \
    cargo test --quiet --doc --release -p jitfd-code -p jitfd -p jitfd-trampoline --target $TRIPLE --target-dir target/guest \
    -- --test-threads=1
