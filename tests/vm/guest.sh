#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Builds programs for the guest, which has no libraries: linked statically, in a
# target folder of their own so that host and guest builds do not undo each
# other. Arguments are cargo's. Prints the folder with the programs.
#   guest.sh -p jitfd-guest --bins
. "$(dirname "$0")/lib.sh"

TRIPLE=x86_64-unknown-linux-gnu
cd "$TOP"
# A job and its children ignore Ctrl-C unless they are told otherwise.
RUSTFLAGS="-C target-feature=+crt-static" \
    waited env --default-signal=INT,QUIT \
    cargo build --quiet --release --target $TRIPLE --target-dir target/guest "$@" >&2 ||
    die "the guest's programs did not build" "see cargo's lines above"
echo "$TOP/target/guest/$TRIPLE/release"
