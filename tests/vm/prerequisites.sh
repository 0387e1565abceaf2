#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Checks what has to be on this machine before anything else is made: one clear
# line for each thing that is missing. The set-up fetches the rest itself.
. "$(dirname "$0")/lib.sh"

[ "$(uname -m)" = x86_64 ] ||
    die "this machine is $(uname -m), jitfd is for x86-64" "use an x86-64 machine"
command -v cargo >/dev/null ||
    die "cargo is not installed" "install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$TOP/Cargo.toml") or newer, with rustup or from your distribution"
command -v cc >/dev/null ||
    die "there is no C compiler to link with (cc)" "install gcc, and libc6-dev for static linking"
echo 'int main(void) { return 0; }' | cc -static -x c - -o /dev/null 2>/dev/null ||
    die "cc cannot link a static program" "install the C library's static part (libc6-dev)"
