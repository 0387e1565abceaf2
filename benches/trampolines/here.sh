#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The ways to have a trampoline that need nothing in the kernel, on this machine as it
# is and not in a guest: jitfd over dual mapping, libffi, signals. Times only. Boots
# nothing, needs no root. Prints tables; these, and all samples, are left in
# target/bench/trampolines-here. A minute or two, once it is built.
#
#   ROUNDS=N, CROWD=N, CROWDS=N, UPDATE=1   as for run.sh
. "$(dirname "$0")/../../tests/vm/lib.sh"

HERE=$TOP/benches/trampolines
OUT=$TOP/target/bench/trampolines-here
mkdir -p "$OUT"

program=$("$VM_DIR/guest.sh" --locked --manifest-path "$HERE/Cargo.toml" --bin jitfd-trampolines)/jitfd-trampolines
say "load of this machine $(cut -d' ' -f1 /proc/loadavg) on $(nproc) CPUs"
"$program" --here measure --rounds "${ROUNDS:-24}" \
    --crowd "${CROWD:-1000000}" --crowds "${CROWDS:-3}" --out "$OUT" ||
    die "the bench of trampolines failed" "see its lines above"
"$HERE/report.sh" "$OUT" trampolines-here
