#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Lints of crates that are no members of the workspace, so that building that needs
# neither Wasmtime nor what builds C. Every warning is an error. Goes on after one that
# has some; the last line is "suite: N passed, N failed".
#
#   tests/lints.sh           those that take seconds: part of make check
#   tests/lints.sh all       also those that build other libraries: part of make test
. "$(dirname "$0")/vm/lib.sh"
cd "$TOP"

FEW=(benches/trampolines tests/exceptions tests/peers userlib/code/fuzz)
# They build decoders in C, libffi, Wasmtime.
MORE=(benches/decoders tests/demo tests/ffi userlib/adapters)

crates=("${FEW[@]}")
if [ "${1:-}" = all ]; then
    need cmake cmake
    need c++ g++
    crates+=("${MORE[@]}")
fi
# A crate that nobody has thought of: it must be in one of the lists.
for lock in $(git ls-files '*/Cargo.lock'); do
    case " ${FEW[*]} ${MORE[*]} " in
    *" ${lock%/Cargo.lock} "*) ;;
    *) die "${lock%/Cargo.lock} is not linted" "add it to a list in tests/lints.sh" ;;
    esac
done

good=0
bad=0
for crate in "${crates[@]}"; do
    if CARGO_TARGET_DIR=$TOP/target/lints cargo clippy --quiet --locked --workspace --all-targets \
        --manifest-path "$crate/Cargo.toml" -- -D warnings; then
        good=$((good + 1))
    else
        say "$crate: the warnings above"
        bad=$((bad + 1))
    fi
done
echo "suite: $good passed, $bad failed"
[ "$bad" = 0 ]
