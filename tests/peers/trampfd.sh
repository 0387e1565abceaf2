#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Builds trampfd.ko, as module.sh builds jit.ko. Prints its path.
. "$(dirname "$0")/../vm/lib.sh"

MODULE_NAME=trampfd MODULE_SOURCE=$TOP/tests/peers/trampfd MODULE_OUT=$TOP/target/trampfd \
    "$VM_DIR/module.sh"
