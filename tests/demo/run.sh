#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# `make demo`: a published WebAssembly program and a lazy compiler, run in a
# guest out of memory that is never writable. The last line is the verdict.
# Everything that takes long is kept in the cache.
#
#   CACHE= ACCEL= SMP= MEM=   as for make vm
#   FUNCTIONS=N               how many functions are compiled lazily (4000)
. "$(dirname "$0")/../vm/lib.sh"

DEMO=$TOP/tests/demo
OUT=$TOP/target/demo
VM=$TOP/target/release/vm
TRIPLE=x86_64-unknown-linux-gnu
BUILD=$CACHE/demo-build
PROGRAMS=$BUILD/$TRIPLE/release

# build PACKAGE: one of the demo's programs. Both are linked statically, though
# only one must be, so that they share what they have in common.
build() {
    # A job and its children ignore Ctrl-C unless they are told otherwise.
    quietly "$CACHE/$1.log" env --default-signal=INT,QUIT RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --release --locked --manifest-path "$DEMO/Cargo.toml" \
        --target "$TRIPLE" --target-dir "$BUILD" -p "$1" ||
        die "$1 did not build" "see cargo's lines above"
}

# compile WASM: sets IMAGES to a folder with what the guest needs.
compile() {
    local key
    key=$(sha256sum "$PROGRAMS/demo-compile" "$1" "$DEMO/picture.svg" | cut -d' ' -f1 | sha256sum | cut -c1-12)
    IMAGES=$CACHE/demo-images-$key
    built "$IMAGES" && return 0
    say "compiling the renderer ahead, and running it here (about 20 s)"
    remove_tree "$IMAGES.part"
    "$PROGRAMS/demo-compile" "$1" "$DEMO/picture.svg" "$IMAGES.part" >&2 ||
        die "the renderer could not be compiled or run on this host" "see the line above"
    put_in_place "$IMAGES"
}

# boot: runs the guest; its last line is kept for the end.
boot() {
    local rc=0
    say "booting the guest"
    cd "$IMAGES"
    FILES=$(echo *) OUT=$OUT "$VM" "$OUT/demo-guest" . /out "${FUNCTIONS:-4000}" |
        tee "$OUT/guest.log" | sed -u '/^demo: /d' || rc=$?
    verdict=$(grep '^demo: ' "$OUT/guest.log" | tail -n 1) || true
    case $rc:$verdict in
    0:demo:\ ok\ *) ;;
    *)
        echo "${verdict:-demo: failed: the guest ended without a verdict (status $rc)}"
        exit 1
        ;;
    esac
}

# check_rust: Wasmtime needs a newer cargo than the rest of the project.
check_rust() {
    local needed have
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$DEMO/Cargo.toml")
    have=$(cargo --version | cut -d' ' -f2)
    printf '%s\n' "$needed" "$have" | sort --check --version-sort 2>/dev/null ||
        die "cargo is $have; Wasmtime needs $needed" "install a newer Rust (rustup update)"
}

mkdir -p "$OUT"
lock demo
check_rust
say "step 1 of 5: the kernel and the module"
[ -x "$VM" ] || make -C "$TOP" --no-print-directory init
"$VM_DIR/module.sh" >/dev/null
say "step 2 of 5: the renderer"
wasm=$("$DEMO/fetch.sh")
say "step 3 of 5: building Wasmtime and the demo's programs (some 2 minutes at first)"
build demo-compile
build demo-guest
say "step 4 of 5: the renderer's machine code"
compile "$wasm"
say "step 5 of 5: the guest"
cp "$PROGRAMS/demo-guest" "$OUT/demo-guest"
boot
say "the picture that the guest drew: $OUT/picture.png"
echo "$verdict"
