#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Builds a kernel of our own with every check on, from the same source as the
# stock kernel, with clang. About 20 minutes on two cores; once per
# configuration. An interrupted build goes on where it was.
#
#   FLAVOR=debug   KUnit, KASAN, lockdep, leak detector, fault injection
#   FLAVOR=kcsan   KUnit and the data-race detector
#
# Prints two lines, as kernel.sh does: the kernel's release, and the folder with
# its vmlinuz. Modules are built against "build" in that folder.
. "$(dirname "$0")/lib.sh"

FLAVOR=${FLAVOR:-debug}
FRAGMENTS=("$VM_DIR/config/base.config" "$VM_DIR/config/$FLAVOR.config")
[ -f "${FRAGMENTS[1]}" ] ||
    die "there is no configuration for FLAVOR=$FLAVOR" "use FLAVOR=debug or FLAVOR=kcsan"

ask "$VM_DIR/root.sh"
ROOT=$ANSWER
ask "$VM_DIR/source.sh"
SOURCE=$ANSWER
key=$({ echo "$SOURCE"; cat "${FRAGMENTS[@]}"; } | sha256sum | cut -c1-12)
KERNEL=$CACHE/kernel-$FLAVOR-$key
BUILD=$KERNEL.part/build
LOG=$CACHE/kernel-$FLAVOR.log

finish() {
    cat "$KERNEL/release"
    echo "$KERNEL"
    exit 0
}

# In the root, source and build folder at fixed places, because the build folder keeps
# their names. Its make may be killed at any moment: kbuild notes how a file was made
# after it has made it, and makes again what has no such note.
IN_ROOT=(in_root "$ROOT" "$SOURCE:mnt/source" "$KERNEL.part:mnt/kernel" --)
KBUILD=("${IN_ROOT[@]}" make -C /mnt/source O=/mnt/kernel/build LLVM=1 -j"$(nproc)")

configure() {
    "${KBUILD[@]}" tinyconfig &&
        "${IN_ROOT[@]}" sh -c \
            'cd /mnt/kernel/build && /mnt/source/scripts/kconfig/merge_config.sh -m .config ../*.config' &&
        "${KBUILD[@]}" olddefconfig
}

# lost_symbols: the lines of the fragments that the configuration does not have.
lost_symbols() {
    cat "${FRAGMENTS[@]}" | grep -E '^(# )?CONFIG_' | while read -r line; do
        case $line in
        "# "*) name=${line#"# "} && grep -q "^${name%% *}=" "$BUILD/.config" && echo "$line" ;;
        *) grep -qxF "$line" "$BUILD/.config" || echo "$line" ;;
        esac
    done || true
}

built "$KERNEL" && finish
lock "kernel-$FLAVOR"
built "$KERNEL" && finish

say "configuring the $FLAVOR kernel"
mkdir -p "$BUILD"
cp "${FRAGMENTS[@]}" "$KERNEL.part/"
quietly "$LOG" configure || die "the $FLAVOR kernel could not be configured" "see $LOG"
lost=$(lost_symbols)
[ -z "$lost" ] ||
    die "the configuration lost: $(echo "$lost" | tr '\n' ' ')" "a symbol they depend on is missing in ${FRAGMENTS[*]}"

say "building the $FLAVOR kernel (20 to 30 minutes on two cores; the log is $LOG)"
quietly "$LOG" "${KBUILD[@]}" all || die "the $FLAVOR kernel did not build" "see $LOG"

cp "$BUILD/arch/x86/boot/bzImage" "$KERNEL.part/vmlinuz"
cp "$BUILD/include/config/kernel.release" "$KERNEL.part/release"
# Modules need the headers, Module.symvers, rust/ and the tools, not the objects.
refuse_mounts "$BUILD"
find "$BUILD" -xdev \( -path "$BUILD/rust" -o -path "$BUILD/scripts" -o -path "$BUILD/tools" \) -prune \
    -o -type f \( -name '*.o' -o -name '*.a' \) -exec rm {} +
put_in_place "$KERNEL"
say "the $FLAVOR kernel is ready: $(cat "$KERNEL/release")"
finish
