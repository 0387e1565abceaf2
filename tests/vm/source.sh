#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Unpacks the kernel source that the build root holds, once, into the cache.
# Prints the folder. KSRC= takes another source tree instead.
. "$(dirname "$0")/lib.sh"

if [ -n "${KSRC:-}" ]; then
    [ -f "$KSRC/Kbuild" ] || die "KSRC=$KSRC is no kernel source tree" "name the folder that holds the kernel's Kbuild"
    (cd "$KSRC" && pwd)
    exit 0
fi

ask "$VM_DIR/root.sh"
ROOT=$ANSWER
SOURCE=$CACHE/source-$(cat "$ROOT/opt/kernel/release")-$(basename "$ROOT")
if built "$SOURCE"; then
    echo "$SOURCE"
    exit 0
fi
lock source
if ! built "$SOURCE"; then
    say "unpacking the kernel source (1.8 GB)"
    remove_tree "$SOURCE.part"
    mkdir "$SOURCE.part"
    quietly "$CACHE/source.log" in_root "$ROOT" "$SOURCE.part:mnt/source" -- \
        sh -c 'tar -xf /usr/src/linux-source-*.tar.xz -C /mnt/source --strip-components=1' ||
        die "the kernel source could not be unpacked" "see $CACHE/source.log; check the free disk space"
    put_in_place "$SOURCE"
fi
echo "$SOURCE"
