#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# A folder with packages of Debian, unpacked and not installed: what an engine needs to
# run with this folder as its root. In the cache; half a minute. Prints its path.
#   root.sh NAME PACKAGE...
# MIRROR= and CACHE=: as for tests/vm/root.sh.
. "$(dirname "$0")/../vm/lib.sh"

SUITE=trixie
NAME=$1
shift
PACKAGES=$(IFS=,; echo "base-files,dash,coreutils,$*")
ROOT=$CACHE/engine-$(echo "$SUITE $PACKAGES 1" | sha256sum | cut -c1-12)

if built "$ROOT"; then
    echo "$ROOT"
    exit 0
fi
lock "$(basename "$ROOT")"
if ! built "$ROOT"; then
    # It has installed mmdebstrap.
    ask "$VM_DIR/root.sh"
    mirror=${MIRROR:-$(host_mirror || true)}
    [ -n "$mirror" ] ||
        die "this host's apt names no Debian mirror" "set MIRROR= to the address of one"
    say "fetching packages of Debian for $NAME"
    remove_tree "$ROOT.part"
    echo "deb $mirror $SUITE main" >"$ROOT.list"
    quietly "$CACHE/engine-$NAME.log" box bash -ec '[ ! -d /dev/shm ] || mount -t tmpfs tmpfs /dev/shm; "$@"' sh \
        mmdebstrap --variant=extract --format=directory --include="$PACKAGES" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
        "$SUITE" "$ROOT.part" "$ROOT.list" ||
        die "the packages of $NAME could not be fetched" "see the lines above; if the mirror is not reachable set MIRROR= to another"
    # What the guest, whose memory holds all of it, does not need.
    remove_tree "$ROOT.part"/usr/share/{doc,man,locale,info,i18n} "$ROOT.part"/var/{lib,cache} "$ROOT.part/boot"
    put_in_place "$ROOT"
    rm -f "$ROOT.list"
fi
echo "$ROOT"
