#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make test`: runs every suite, goes on after a failure, and counts. Progress
# and output are on standard error; the last line is "N passed, N failed".
#
#   SUITES="host lints guest selinux capi peers cxx ffi engines stress debug demo"
#                                                           only these
#
# host    cargo's tests of the pure core, the library, the runner
# lints   clippy on the crates that are no members of the workspace
# guest   each program of tests/guest but init, hosted and selinux, in a guest with the
#         stock kernel; the last line of each is "suite: N passed, N failed"; the
#         examples of the library's documentation; and gdb and perf on generated code
# selinux programs under an SELinux policy, in a guest
# capi    libjitfd: header, libraries, a C and a C++ program, here and in a guest
# peers   the ways that jitfd's trampolines are measured against, in a guest
# cxx     C++ exceptions through trampolines, here and in a guest
# ffi     the own tests of libffi and closure-ffi with code in jitfd, in a guest
# engines LuaJIT of Debian by jitfd-run, and jitfd-run's own tests, in a guest
# stress  a short run of publishers, executors and chaos, on 4 CPUs
# debug   the same with our own kernel, where also the module's KUnit tests run,
#         and any report of KASAN, lockdep or the leak detector is a failure
# demo    the demo with its own claims
. "$(dirname "$0")/vm/lib.sh"

SUITES=${SUITES:-host lints guest selinux capi peers cxx ffi engines stress debug demo}
LOGS=$TOP/target/test
VM=$TOP/target/release/vm
passed=0
failed=0
mkdir -p "$LOGS"
cd "$TOP"

# count NAME PASSED FAILED: adds a suite to the sums.
count() {
    say "$1: $2 passed, $3 failed"
    passed=$((passed + $2))
    failed=$((failed + $3))
}

# settle NAME STATUS PASSED FAILED: counts a suite. One that fails without a
# failed test (it did not build, it crashed), or has no tests, is one failure.
settle() {
    local bad=$4
    if [ "$2" -ne 0 ] && [ "$bad" = 0 ]; then
        say "$1: ended with status $2"
        bad=1
    elif [ "$3" = 0 ] && [ "$bad" = 0 ]; then
        say "$1: ran no test at all"
        bad=1
    fi
    count "$1" "$3" "$bad"
}

# sum LOG WORD: adds up the numbers before WORD in cargo's result lines.
sum() {
    sed -n "s/^test result: .* \([0-9][0-9]*\) $2;.*/\1/p" "$1" | awk '{ n += $1 } END { print n + 0 }'
}

host_suite() {
    local rc=0 log=$LOGS/host.log
    say "host tests"
    JITFD_TOOLS=$(tests/tools.sh) || rc=$?
    export JITFD_TOOLS
    cargo test --workspace --no-fail-fast 2>&1 | tee "$log" >&2 || rc=$?
    settle host "$rc" "$(sum "$log" passed)" "$(sum "$log" failed)"
}

lints_suite() {
    local rc=0 log=$LOGS/lints.log
    say "lints of the crates outside of the workspace"
    tests/lints.sh all 2>&1 | tee "$log" >&2 || rc=$?
    settle_log lints "$rc" "$log"
}

# guest_suites FLAVOR: every guest program in a guest of that flavour. The stock
# kernel has no fault injection.
guest_suites() {
    local folder program name source
    say "guest tests, $1 kernel"
    folder=$("$VM_DIR/guest.sh" -p jitfd-guest --bins) || {
        count "guest-$1" 0 1
        return
    }
    for source in tests/guest/src/bin/*; do
        name=$(basename "$source" .rs)
        case $name in init | hosted | selinux) continue ;; esac
        [ "$name" != faults ] || [ "$1" = debug ] || continue
        # Slow with checks: make stress runs it there.
        [ "$name" != hostile ] || [ "$1" = stock ] || continue
        guest_suite "$1" "$name" "$folder/$name"
    done
}

# guest_suite FLAVOR NAME PROGRAM: one of them.
guest_suite() {
    local rc=0 log=$LOGS/$1-$2.log
    FLAVOR=$1 KERNEL_LOG=$LOGS/$1-$2.kernel.log "$VM" "$3" 2>&1 | tee "$log" >&2 || rc=$?
    settle_log "$2 ($1 kernel)" "$rc" "$log"
}

# settle_log NAME STATUS LOG: counts a suite by the last "suite:" line it wrote.
settle_log() {
    local good bad
    good=$(sed -n 's/^suite: \([0-9]*\) passed, [0-9]* failed.*/\1/p' "$3" | tail -n 1)
    bad=$(sed -n 's/^suite: [0-9]* passed, \([0-9]*\) failed.*/\1/p' "$3" | tail -n 1)
    settle "$1" "$2" "${good:-0}" "${bad:-0}"
}

# examples_suite: those of the library's documentation, in a guest with /dev/jit.
examples_suite() {
    local rc=0 log=$LOGS/examples.log minor
    minor=$(cargo --version | sed 's/^cargo 1\.\([0-9]*\)\..*/\1/')
    if [ "$minor" -lt 89 ]; then
        say "examples: not run in a guest, which takes cargo 1.89 or newer"
        return
    fi
    tests/vm/examples.sh 2>&1 | tee "$log" >&2 || rc=$?
    settle "examples (stock kernel)" "$rc" "$(sum "$log" passed)" "$(sum "$log" failed)"
}

# tools_suite: gdb and perf of this host on code of /dev/jit, in a guest.
tools_suite() {
    local rc=0 log=$LOGS/tools.log
    if [ "$(tests/tools.sh)" != required ]; then
        say "tools: not run in a guest, as they are not installed here"
        return
    fi
    tests/vm/hosted.sh 2>&1 | tee "$log" >&2 || rc=$?
    settle "tools (stock kernel)" "$rc" "$(sum "$log" passed)" "$(sum "$log" failed)"
}

selinux_suite() {
    local rc=0 log=$LOGS/selinux.log
    say "under an SELinux policy"
    KERNEL_LOG=$LOGS/selinux.kernel.log tests/selinux/run.sh 2>&1 | tee "$log" >&2 || rc=$?
    settle_log selinux "$rc" "$log"
}

capi_suite() {
    local rc=0 log=$LOGS/capi.log
    say "C interface"
    tests/capi/run.sh 2>&1 | tee "$log" >&2 || rc=$?
    settle_log capi "$rc" "$log"
}

peers_suite() {
    local rc=0 log=$LOGS/peers.log ko folder
    say "peers of the trampolines"
    ko=$(tests/peers/trampfd.sh) &&
        folder=$("$VM_DIR/guest.sh" --locked --manifest-path tests/peers/Cargo.toml) || {
        count peers 0 1
        return
    }
    FILES=$ko KERNEL_LOG=$LOGS/peers.kernel.log "$VM" "$folder/peers" 2>&1 | tee "$log" >&2 || rc=$?
    settle_log peers "$rc" "$log"
}

# cxx_suite: C++ exceptions, over the fallbacks here and over /dev/jit there.
cxx_suite() {
    local rc=0 log=$LOGS/exceptions.log folder
    say "C++ exceptions through trampolines"
    need c++ g++
    folder=$("$VM_DIR/guest.sh" --locked --manifest-path tests/exceptions/Cargo.toml) || {
        count cxx 0 1
        return
    }
    "$folder/jitfd-exceptions" 2>&1 | tee "$log" >&2 || rc=$?
    settle_log "cxx (host)" "$rc" "$log"
    rc=0
    "$VM" "$folder/jitfd-exceptions" --kernel 2>&1 | tee "$log" >&2 || rc=$?
    settle_log "cxx (guest)" "$rc" "$log"
}

# ffi_suite: libraries that make closures, over jitfd, by their own tests.
ffi_suite() {
    local name folder
    say "closures of other libraries"
    folder=$("$VM_DIR/guest.sh" --locked --manifest-path tests/ffi/Cargo.toml --bins) || {
        count ffi 0 1
        return
    }
    for name in libffi closure-ffi; do
        guest_suite stock "$name" "$folder/jitfd-$name-tests"
    done
}

# engines_suite: the short slice of make engines.
engines_suite() {
    local rc=0 log=$LOGS/engines.log line
    say "LuaJIT by jitfd-run"
    ENGINES=luajit tests/engines/run.sh 2>&1 | tee "$log" >&2 || rc=$?
    line=$(tail -n 1 "$log")
    case $line in
    *" passed, "*" failed") settle engines "$rc" "${line%% *}" "$(echo "$line" | cut -d ' ' -f 3)" ;;
    *) count engines 0 1 ;;
    esac
}

# kunit_results LOG WORD: how many KUnit tests ended with "ok" or "not ok" when
# the module was first loaded; the kernel's own run before, and some programs
# load it again. Tests are indented below their suite; a skipped one is not
# counted as executed.
kunit_results() {
    sed '1,/Run \/init as init process/d; /] ok 1 jit$/,$d; /] not ok 1 jit$/,$d' "$1" |
        grep -E "^\[[^]]*\] {5,}$2 [0-9]+ " | grep -vc '# SKIP' || true
}

# kunit_expected: the tests that the module's source has.
kunit_expected() {
    { grep -rl --include='*.rs' 'kunit_tests(' module || true; } |
        xargs -r awk '/^ *#\[test\]/ { n++ } END { print n + 0 }' | grep . || echo 0
}

# kunit_suite LOG: what ran when the module was loaded.
kunit_suite() {
    local good=0 bad=0 expected
    expected=$(kunit_expected)
    if [ -f "$1" ]; then
        good=$(kunit_results "$1" ok)
        bad=$(kunit_results "$1" 'not ok')
    fi
    if [ $((good + bad)) -lt "$expected" ]; then
        say "KUnit: $((good + bad)) tests ran, the module has $expected"
        bad=$((bad + expected - good - bad))
    fi
    settle KUnit 0 "$good" "$bad"
}

debug_suite() {
    "$VM_DIR/debug-kernel.sh" >/dev/null || {
        count "debug kernel" 0 1
        return
    }
    rm -f "$LOGS"/debug-*.kernel.log
    LEAKS=1 guest_suites debug
    stress_suite debug 2 5
    kunit_suite "$(find "$LOGS" -name 'debug-*.kernel.log' | sort | head -n 1)"
}

# stress_suite FLAVOR SMP SECONDS: one test, which prints its seed.
stress_suite() {
    local rc=0 log=$LOGS/$1-stress.log folder
    say "stress, $1 kernel, $2 CPUs"
    folder=$("$VM_DIR/guest.sh" -p jitfd-stress) || rc=$?
    FLAVOR=$1 SMP=$2 "$VM" "$folder/jitfd-stress" --seconds "$3" --hotplug 2>&1 |
        tee "$log" >&2 || rc=$?
    settle "stress ($1 kernel)" "$rc" "$((rc == 0))" "$((rc != 0))"
}

demo_suite() {
    local rc=0
    say "demo"
    tests/demo/run.sh 2>&1 | tee "$LOGS/demo.log" >&2 || rc=$?
    [ "$rc" -ne 0 ] || tail -n 1 "$LOGS/demo.log" | grep -q '^demo: ok ' || rc=1
    settle demo "$rc" "$((rc == 0))" "$((rc != 0))"
}

for suite in $SUITES; do
    case $suite in
    host) host_suite ;;
    lints) lints_suite ;;
    guest)
        guest_suites stock
        examples_suite
        tools_suite
        ;;
    selinux) selinux_suite ;;
    capi) capi_suite ;;
    peers) peers_suite ;;
    cxx) cxx_suite ;;
    ffi) ffi_suite ;;
    engines) engines_suite ;;
    stress) stress_suite stock 4 20 ;;
    debug) FLAVOR=debug debug_suite ;;
    demo) demo_suite ;;
    *) die "there is no suite named $suite" "SUITES= takes: host lints guest selinux capi peers cxx ffi engines stress debug demo" ;;
    esac
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
