#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make stress`: the stress with 4 and with 8 CPUs on the stock kernel, with CPUs
# that go off line, then on the debug kernel, where any report is a failure.
#
#   SECONDS_EACH=N   how long each run lasts (60)
#   SEED=N           repeats the choices of an earlier run
. "$(dirname "$0")/../vm/lib.sh"

VM=$TOP/target/release/vm
STRESS=$("$VM_DIR/guest.sh" -p jitfd-stress)/jitfd-stress
each=${SECONDS_EACH:-60}

# run FLAVOR SMP: one run; its first line names the seed.
run() {
    say "stress: $1 kernel, $2 CPUs, $each s"
    FLAVOR=$1 SMP=$2 RUN_LIMIT=$((each * 4 + 120)) \
        "$VM" "$STRESS" --seconds "$each" --hotplug ${SEED:+--seed "$SEED"} ||
        die "the stress failed on the $1 kernel with $2 CPUs" "repeat it with the seed above: SEED="
}

run stock 4
run stock 8
run debug 4
