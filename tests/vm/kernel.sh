#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Makes Debian's stock kernel ready to build Rust modules against: its header
# package lacks only the Rust metadata, which is rebuilt from the same source,
# with the same tool chain, and compared symbol by symbol with what the stock
# kernel exports. No kernel is compiled. About three minutes.
#
# Prints two lines: the kernel's release, and the folder with its vmlinuz.
. "$(dirname "$0")/lib.sh"

ask "$VM_DIR/root.sh"
ROOT=$ANSWER
RELEASE=$(cat "$ROOT/opt/kernel/release")
KERNEL=$CACHE/kernel-$RELEASE-$(basename "$ROOT")
HEADERS=/usr/src/linux-headers-$RELEASE

finish() {
    printf '%s\n%s\n' "$RELEASE" "$KERNEL"
    exit 0
}
built "$KERNEL" && finish
lock kernel
built "$KERNEL" && finish

say "preparing kernel $RELEASE for Rust modules (about three minutes)"
remove_tree "$KERNEL.part"
mkdir -p "$KERNEL.part/image"
in_root "$ROOT" "$KERNEL.part:mnt/kernel" -- sh -c 'dpkg-deb -x /opt/kernel/*.deb /mnt/kernel/image'
find "$KERNEL.part/image" -name "vmlinuz*" -type f -exec cp {} "$KERNEL.part/vmlinuz" \;
[ -s "$KERNEL.part/vmlinuz" ] || die "the image package holds no vmlinuz" "its layout changed: see kernel.sh"
remove_tree "$KERNEL.part/image"

ask "$VM_DIR/source.sh"
SOURCE=$ANSWER

say "rebuilding the Rust metadata (make prepare)"
mkdir "$KERNEL.part/build"
cp "$ROOT$HEADERS/.config" "$KERNEL.part/build/.config"
quietly "$CACHE/kernel.log" in_root "$ROOT" "$SOURCE:mnt/source" "$KERNEL.part:mnt/kernel" -- \
    make -C /mnt/source O=/mnt/kernel/build CC=gcc-14 -j"$(nproc)" olddefconfig prepare ||
    die "the Rust metadata did not build" "see $CACHE/kernel.log; it may be an interrupted download: remove $ROOT and try again"

# What the rebuilt crates export must be exactly what the stock kernel exports.
sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' "$KERNEL.part"/build/rust/exports_*_generated.h |
    sort -u >"$KERNEL.part/rust.rebuilt"
awk '$3 ~ /^rust\// || $2 ~ /^_R/ { print $2 }' "$ROOT$HEADERS/Module.symvers" | sort -u >"$KERNEL.part/rust.stock"
cut -f2 "$ROOT$HEADERS/Module.symvers" | sort -u >"$KERNEL.part/all.stock"
missing=$(comm -23 "$KERNEL.part/rust.rebuilt" "$KERNEL.part/all.stock" | wc -l)
extra=$(comm -13 "$KERNEL.part/rust.rebuilt" "$KERNEL.part/rust.stock" | wc -l)
count=$(wc -l <"$KERNEL.part/rust.rebuilt")
[ "$count" -gt 1000 ] ||
    die "only $count Rust symbols were rebuilt; thousands were expected" "the layout of the kernel's rust/ folder changed: see kernel.sh"
[ "$missing" = 0 ] && [ "$extra" = 0 ] ||
    die "the rebuilt Rust metadata differs from the stock kernel in $missing + $extra symbols" "the tool chain or the source is not the one Debian used; see $KERNEL.part/rust.*"
say "all $count exported Rust symbols are identical to the stock kernel's"

remove_tree "$ROOT$HEADERS/rust"
cp -a "$KERNEL.part/build/rust" "$ROOT$HEADERS/rust"
cp "$KERNEL.part/build/scripts/target.json" "$ROOT$HEADERS/scripts/target.json"
remove_tree "$KERNEL.part/build"
put_in_place "$KERNEL"
finish
