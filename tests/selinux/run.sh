#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Programs under an SELinux policy, in a guest with the stock kernel. The last line
# with numbers is "suite: N passed, N failed".
#   run.sh [the tests' words]
. "$(dirname "$0")/../vm/lib.sh"

FOLDER=$TOP/target/selinux
cd "$TOP"
need secilc secilc
mkdir -p "$FOLDER"
secilc --policyvers 33 --output "$FOLDER/policy" --filecontext "$FOLDER/file_contexts" \
    tests/selinux/policy.cil
guest=$("$VM_DIR/guest.sh" -p jitfd-guest --bin selinux)
FILES=$FOLDER/policy APPEND="${APPEND:-} security=selinux" \
    exec "$TOP/target/release/vm" "$guest/selinux" "$@"
