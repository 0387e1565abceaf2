#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make check`: what can be said about the tree without booting anything, in
# under two minutes. Every warning is an error. Stops at the first failure.
. "$(dirname "$0")/vm/lib.sh"
cd "$TOP"

say "formatting"
cargo fmt --all --check
[ ! -f tests/demo/Cargo.toml ] || cargo fmt --manifest-path tests/demo/Cargo.toml --all --check
for crate in benches/decoders benches/trampolines tests/exceptions tests/ffi tests/peers userlib/adapters userlib/code/fuzz; do
    cargo fmt --manifest-path "$crate/Cargo.toml" --all --check
done
rustfmt --check --edition 2021 module/*.rs

say "shell scripts"
git ls-files -co --exclude-standard '*.sh' .ci/run | while read -r script; do
    bash -n "$script"
done
if command -v shellcheck >/dev/null; then
    git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck -x
else
    say "shellcheck is not installed: scripts are only parsed"
fi

say "documentation"
tests/documentation.sh

say "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
tests/lints.sh >/dev/null
# Without what formatting and moving code need.
cargo clippy --quiet -p jitfd -p jitfd-trampoline --no-default-features -- -D warnings

say "the library's reference"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p jitfd-code -p jitfd -p jitfd-trampoline

say "host tests"
cargo test --quiet --workspace

say "check: ok"
