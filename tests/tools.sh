#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Installs the tools that are shown generated code: gdb and perf. Prints
# "required" if both are here afterwards, else "optional"; the tests of the tools
# take that as JITFD_TOOLS.
. "$(dirname "$0")/vm/lib.sh"

missing=
command -v gdb >/dev/null || missing="gdb"
# Debian's perf is a script that may find no perf for this kernel.
perf --version >/dev/null 2>&1 || missing="$missing linux-perf"

if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing on this host, for the tests of the library:$missing"
    # shellcheck disable=SC2086 # one word for each package
    quietly "$CACHE/apt.log" apt-get update &&
        quietly "$CACHE/apt.log" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
        say "they could not be installed: see $CACHE/apt.log"
fi

if command -v gdb >/dev/null && perf --version >/dev/null 2>&1; then
    echo required
else
    say "without gdb and perf their tests are skipped"
    echo optional
fi
