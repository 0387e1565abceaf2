#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make stress`: the stress with 4 and with 8 CPUs on the stock kernel, with CPUs
# that go off line, then on the debug kernel, where any report is a failure. Then
# the fuzzer: a million calls, and some on the debug kernel. Then the races, traps and
# shared regions of the guest suite in Bochs, which has what QEMU's emulation lacks:
# page table isolation with PCID and INVPCID.
#
#   SECONDS_EACH=N   how long each run lasts (60)
#   SEED=N           repeats the choices of an earlier run
#   CALLS=N          calls of the fuzzer (1000000)
. "$(dirname "$0")/../vm/lib.sh"

VM=$TOP/target/release/vm
STRESS=$("$VM_DIR/guest.sh" -p jitfd-stress)/jitfd-stress
FUZZ=$("$VM_DIR/guest.sh" -p jitfd-guest --bin fuzz)/fuzz
SUITE=$("$VM_DIR/guest.sh" -p jitfd-guest --bin suite)/suite
each=${SECONDS_EACH:-60}
calls=${CALLS:-1000000}

# run FLAVOR SMP: one run; its first line names the seed.
run() {
    say "stress: $1 kernel, $2 CPUs, $each s"
    FLAVOR=$1 SMP=$2 \
        "$VM" "$STRESS" --seconds "$each" --hotplug ${SEED:+--seed "$SEED"} ||
        die "the stress failed on the $1 kernel with $2 CPUs" "repeat it with the seed above: SEED="
}

# fuzz FLAVOR CALLS PARAMETERS: random calls, each with a predicted result.
fuzz() {
    say "fuzzer: $1 kernel, $2 calls ${3:+with $3}"
    FLAVOR=$1 PARAMS=$3 "$VM" "$FUZZ" --calls "$2" ${SEED:+--seed "$SEED"} ||
        die "the fuzzer failed on the $1 kernel" "repeat it with the seed above: SEED="
}

run stock 4
run stock 8
run debug 4
fuzz stock "$((calls - calls / 10))" ""
fuzz stock "$((calls / 10))" "user_pages=40 user_regions=7"
fuzz debug "$((calls / 50))" ""

say "attackers and victims: debug kernel"
FLAVOR=debug "$VM" "$("$VM_DIR/guest.sh" -p jitfd-guest --bin hostile)/hostile" ||
    die "a victim was hurt on the debug kernel" "see the lines above"

# in_bochs FILE...: these files of the guest suite. A skipped test would be one that
# nobody misses, so there may be none.
in_bochs() {
    local log=$TOP/target/stress-bochs.log
    say "guest suite in Bochs: $*"
    # What is asked of QEMU is not asked of Bochs.
    EMULATOR=bochs ACCEL=auto QEMU='' FLAVOR=stock SMP=2 MEM=1024 \
        "$VM" "$SUITE" "${@/%/::}" 2>&1 | tee "$log" >&2 ||
        die "the guest suite failed in Bochs" "see the lines above"
    grep -q '^suite: [0-9]* passed, 0 failed, 0 skipped$' "$log" ||
        die "tests of the guest suite were skipped in Bochs" "see the lines above"
}

in_bochs stale traps sharing
