#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Trampolines of jitfd next to the other ways to have them, all in one boot of one
# guest: times first, then, with the same programs, instructions. Prints a table;
# that, a picture and all samples are left in target/bench/trampolines. About ten
# minutes; other work on the host makes the times worse, so leave it alone
# meanwhile.
#
#   ROUNDS=N   how often each way has its turn (24)
#   CROWD=N    how many trampolines each way tries to make (1000000)
#   CROWDS=N   how often (3)
#   UPDATE=1   also puts table and picture into Documentation/trampolines.rst, and
#              the samples beside it
. "$(dirname "$0")/../../tests/vm/lib.sh"

HERE=$TOP/benches/trampolines
OUT=$TOP/target/bench/trampolines
# The build root shares /dev with the host: what QEMU reads and writes goes there.
SHARED=/dev/shm/jitfd-trampolines-$$
trap 'remove_tree "$SHARED"' EXIT
mkdir -p "$OUT" "$SHARED"

make --no-print-directory -C "$TOP" init >&2
root=$("$VM_DIR/root.sh")
ko=$("$TOP/tests/peers/trampfd.sh")
program=$("$VM_DIR/guest.sh" --locked --manifest-path "$HERE/Cargo.toml" --bin jitfd-trampolines)/jitfd-trampolines
cp "$HERE/count.c" "$SHARED/"
in_root "$root" -- gcc-14 -Wall -Wextra -Werror -O2 -shared -fPIC \
    -o "$SHARED/count.so" "$SHARED/count.c" ||
    die "the plugin did not build" "see gcc's lines above"

say "load of the host $(cut -d' ' -f1 /proc/loadavg) on $(nproc) CPUs"
# Instructions can be counted under emulation only. Poisoned pages are for tests. The
# fault of an emulated vsyscall is counted, too: the least that a fault costs.
ACCEL=tcg SMP=2 MEM=3072 RUN_LIMIT=1800 OUT=$OUT APPEND='page_poison=0 vsyscall=xonly' FILES=$ko \
    QEMU="-plugin $SHARED/count.so,out=$SHARED/counts" \
    "$TOP/target/release/vm" "$program" measure --rounds "${ROUNDS:-24}" \
    --crowd "${CROWD:-1000000}" --crowds "${CROWDS:-3}" --out /out ||
    die "the bench of trampolines failed" "see its lines above"
cp "$SHARED/counts" "$OUT/counts"
"$HERE/report.sh" "$OUT"
