#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make bench`: what publishing costs, measured in a guest: three boots, with 2, 4
# and 8 virtual CPUs. Times are reported where the host has as many CPUs; counts
# of interrupts always. Then trampolines, in a boot of their own, see
# trampolines/run.sh. All samples are kept in target/bench. About ten minutes;
# other work on the host makes the times worse, so leave it alone meanwhile.
#
#   ROUNDS=N   how often each method has its turn where times are reported (24);
#              a sixth of that where only counts are
. "$(dirname "$0")/../tests/vm/lib.sh"

OUT=$TOP/target/bench
HOST_CPUS=$(nproc)
mkdir -p "$OUT"

# rounds SMP: fewer where virtual CPUs wait for real ones.
rounds() {
    local all=${ROUNDS:-24}
    if [ "$1" -le "$HOST_CPUS" ]; then echo "$all"; else echo $(((all + 5) / 6)); fi
}

# measure SMP: one boot, with its table on the screen.
measure() {
    local log=$OUT/smp$1.log
    say "$1 virtual CPUs, load of the host $(cut -d' ' -f1 /proc/loadavg) on $HOST_CPUS CPUs"
    # Poisoned pages are for tests: they would be counted as the price of a page.
    mkdir -p "$OUT/smp$1"
    SMP=$1 OUT=$OUT/smp$1 APPEND=page_poison=0 "$TOP/target/release/vm" "$programs/jitfd-bench" \
        measure --rounds "$(rounds "$1")" --host-cpus "$HOST_CPUS" --raw /out/samples.csv |
        tee "$log" || die "the bench failed with $1 virtual CPUs" "see its lines above"
}

# summary SMP: what its last line says, with the number of CPUs in each key.
summary() {
    tail -n 1 "$OUT/smp$1.log" | grep '^bench: ok ' | sed "s/^bench: ok cpus=[0-9]*//; s/=/@$1=/g" ||
        die "no result with $1 virtual CPUs" "see $OUT/smp$1.log"
}

programs=$("$VM_DIR/guest.sh" -p jitfd-bench)
line="bench: ok"
for smp in 2 4 8; do
    measure "$smp"
    line+=$(summary "$smp")
done
"$TOP/benches/trampolines/run.sh"
echo "$line"
