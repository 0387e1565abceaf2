#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Prints the tables of a run that is in FOLDER. With UPDATE=1 they go into
# Documentation/trampolines.rst, and all samples of the run into
# Documentation/NAME.tar.xz, of which this makes the same tables again:
#
#   mkdir /tmp/run && tar -xf Documentation/trampolines.tar.xz -C /tmp/run
#   benches/trampolines/report.sh /tmp/run
#
#   report.sh FOLDER [NAME]
. "$(dirname "$0")/../../tests/vm/lib.sh"

OUT=$1 PAGES=$TOP/Documentation
CARGO_TARGET_DIR=$TOP/target/bench/report cargo run --quiet --release --locked \
    --manifest-path "$TOP/benches/trampolines/Cargo.toml" --bin report -- \
    "$OUT" ${UPDATE:+"$PAGES"}
[ -z "${UPDATE:-}" ] ||
    XZ_OPT=-9e tar -C "$OUT" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        -cJf "$PAGES/${2:-trampolines}.tar.xz" \
        samples.csv crowds.csv counted.csv counts ticks_per_ns machine
