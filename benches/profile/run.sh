#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Where the instructions of a publication go: runs `jitfd-bench profile` in a
# guest under an instruction-counting plugin (count.c), resolves the addresses,
# and prints, for each section, the cost by stage. TCG only. About a minute.
#
#   FUNCTIONS=N   how many are counted in each section (256)
#   THREADS=N     how many threads execute: 0 shows writing in place, 1 (the
#                 default) swaps
. "$(dirname "$0")/../../tests/vm/lib.sh"

FUNCTIONS=${FUNCTIONS:-256}
THREADS=${THREADS:-1}
OUT=$TOP/target/bench/profile
# The build root shares /dev with the host: what QEMU reads and writes goes there.
SHARED=/dev/shm/jitfd-profile-$$
trap 'remove_tree "$SHARED"' EXIT
mkdir -p "$OUT" "$SHARED"

make --no-print-directory -C "$TOP" init >&2
root=$("$VM_DIR/root.sh")
programs=$("$VM_DIR/guest.sh" -p jitfd-bench)
cp "$TOP/benches/profile/count.c" "$SHARED/"
in_root "$root" -- gcc-14 -Wall -Wextra -O2 -shared -fPIC \
    -o "$SHARED/count.so" "$SHARED/count.c" ||
    die "the plugin did not build" "see gcc's lines above"
APPEND=page_poison=0 ACCEL=tcg SMP=2 OUT=$OUT QEMU="-plugin $SHARED/count.so,out=$SHARED/counts" \
    "$TOP/target/release/vm" "$programs/jitfd-bench" profile \
    --functions "$FUNCTIONS" --threads "$THREADS" --symbols /out/kallsyms >&2
[ -s "$SHARED/counts" ] || die "the plugin counted nothing" "does QEMU in $root load plugins?"
cp "$SHARED/counts" "$OUT/counts"
cargo run --quiet --release --manifest-path "$TOP/Cargo.toml" -p jitfd-bench --bin stages -- \
    "$OUT/kallsyms" "$OUT/counts"
