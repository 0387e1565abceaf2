#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Plants each bug of this folder in a copy of the module and runs the stress on
# it: every planted bug must be caught. A patch's head says what it drops.
# The last line is "mutants: N passed, N failed".
#
#   run.sh [NAME...]    only these
. "$(dirname "$0")/../vm/lib.sh"

HERE=$TOP/tests/mutants
WORK=$TOP/target/mutants
VM=$TOP/target/release/vm
STRESS=$("$VM_DIR/guest.sh" -p jitfd-stress)/jitfd-stress
# Work, not seconds: on a busy machine fifteen seconds were one round, and two bugs missed.
ROUNDS=12
caught=0
missed=0
mkdir -p "$WORK"

# plant NAME: a copy of the module with the bug.
plant() {
    remove_tree "$WORK/$1"
    cp -r "$TOP/module" "$WORK/$1"
    patch -d "$WORK/$1" -p1 -s <"$HERE/$1.patch" ||
        die "$1.patch does not apply" "bring it up to date with module/"
}

# A wrong result, a hang, a report of the kernel, or the stress killed by a signal: by
# SIGILL, SIGTRAP, SIGBUS or SIGSEGV, for it has executed what is no code of its own.
CATCH='stress: FAILED|has said nothing for|the kernel reported|ended with status (132|133|135|139)$'

# hunt NAME: the stress must fail so: a crash of the set-up is no catch.
hunt() {
    local module log=$WORK/$1.log
    plant "$1"
    module=$(MODULE_SOURCE=$WORK/$1 MODULE_OUT=$WORK/$1.out "$VM_DIR/module.sh" 2>"$log") ||
        die "the module with $1 does not build" "see $log"
    if MODULE=$module SMP=4 "$VM" "$STRESS" --rounds "$ROUNDS" >>"$log" 2>&1; then
        say "$1: MISSED"
        missed=$((missed + 1))
    elif grep -qE "$CATCH" "$log"; then
        say "$1: caught: $(grep -m 1 -hE "$CATCH" "$log" | cut -c1-100)"
        caught=$((caught + 1))
    else
        tail -n 5 "$log" >&2
        die "the run of $1 failed for another reason" "see $log"
    fi
}

names=("$@")
[ "${#names[@]}" -gt 0 ] || mapfile -t names < <(cd "$HERE" && basename -s .patch -- *.patch)
for name in "${names[@]}"; do
    hunt "$name"
done
echo "mutants: $caught passed, $missed failed"
[ "$missed" = 0 ]
