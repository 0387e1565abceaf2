#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Installs the tools that are shown generated code: gdb, perf and LLVM's unwinder.
# Prints "required" if all are here afterwards, else "optional"; the tests of the tools
# take that as JITFD_TOOLS.
. "$(dirname "$0")/vm/lib.sh"

# llvm_unwinder: whether there is one, of any version.
llvm_unwinder() { compgen -G '/usr/lib/llvm-*/lib/libunwind.so.1' >/dev/null; }

# newest_unwinder: Debian's package of it; each version has one of its own.
newest_unwinder() {
    apt-cache search --names-only '^libunwind-[0-9]+$' 2>/dev/null |
        awk '{ print $1 }' | sort -V | tail -n 1 | grep . || echo libunwind-19
}

missing=
command -v gdb >/dev/null || missing="gdb"
# Debian's perf is a script that may find no perf for this kernel.
perf --version >/dev/null 2>&1 || missing="$missing linux-perf"
llvm_unwinder || missing="$missing $(newest_unwinder)"

if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing on this host, for the tests of the library:$missing"
    # shellcheck disable=SC2086 # one word for each package
    quietly "$CACHE/apt.log" apt-get update &&
        quietly "$CACHE/apt.log" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing ||
        say "they could not be installed: see $CACHE/apt.log"
fi

if command -v gdb >/dev/null && perf --version >/dev/null 2>&1 && llvm_unwinder; then
    echo required
else
    say "without gdb, perf and LLVM's libunwind their tests are skipped"
    echo optional
fi
