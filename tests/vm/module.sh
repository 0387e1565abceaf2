#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Builds jit.ko from a copy of module/, so that the checkout stays clean, and
# only when a source, this script or the kernel has changed. Every warning is an
# error. Prints the path of jit.ko. A few seconds.
#
#   FLAVOR=stock|debug|kcsan   which kernel it is for (default: stock)
#   KDIR=DIR                   a kernel build folder of your own with
#                              CONFIG_RUST=y; built with this host's tools, add
#                              LLVM=1 for a kernel that clang has built
. "$(dirname "$0")/lib.sh"

FLAVOR=${FLAVOR:-stock}
KDIR=${KDIR:-}
[ -z "$KDIR" ] || FLAVOR=kdir

# The sources, the module's name, and where it goes: for modules with planted bugs,
# and for other modules of the tests.
MODULE_SOURCE=${MODULE_SOURCE:-$TOP/module}
KO=${MODULE_NAME:-jit}.ko
OUT=${MODULE_OUT:-$TOP/target/module}/$FLAVOR
BUILD=$OUT/build
LOG=$OUT/log
STRICT=(KCFLAGS=-Werror KRUSTFLAGS=-Dwarnings)

# find_kernel: sets KERNEL to what the module depends on beside its source.
find_kernel() {
    case $FLAVOR in
    kdir)
        [ -f "$KDIR/rust/libkernel.rmeta" ] ||
            die "KDIR=$KDIR has no Rust metadata" "name the build folder of a kernel with CONFIG_RUST=y, after make there"
        KDIR=$(cd "$KDIR" && pwd)
        KERNEL=$KDIR
        ;;
    stock)
        ask "$VM_DIR/kernel.sh"
        KERNEL=$ANSWER
        ;;
    *)
        export FLAVOR
        ask "$VM_DIR/debug-kernel.sh"
        KERNEL=$ANSWER
        ;;
    esac
}

# find_kbuild: sets KBUILD to make with the kernel that FLAVOR names.
find_kbuild() {
    if [ "$FLAVOR" = kdir ]; then
        KBUILD=(make -C "$KDIR" M="$BUILD" ${LLVM:+LLVM="$LLVM"})
        return
    fi
    ask "$VM_DIR/root.sh"
    root=$ANSWER
    if [ "$FLAVOR" = stock ]; then
        KBUILD=(in_root "$root" "$BUILD:mnt/module" --
            make -C "/usr/src/linux-headers-$(cat "$root/opt/kernel/release")" M=/mnt/module CC=gcc-14)
    else
        ask "$VM_DIR/source.sh"
        KBUILD=(in_root "$root" "$BUILD:mnt/module" "$KERNEL:mnt/kernel" "$ANSWER:mnt/source" --
            make -C /mnt/kernel/build M=/mnt/module LLVM=1)
    fi
}

# fingerprint: what the module is built from.
fingerprint() {
    echo "$KERNEL"
    cd "$MODULE_SOURCE"
    find . "$VM_DIR/module.sh" -type f -not -path '*/target/*' -print0 |
        sort -z | xargs -0 sha256sum
}

# The largest stack frame, in bytes, as the kernel has it for C (CONFIG_FRAME_WARN),
# which rustc has no warning for. Checkers make them larger.
FRAME=2048

# check_frames: no function of the module has a larger one.
check_frames() {
    local size
    [ "$FLAVOR" = stock ] || return 0
    while read -r size; do
        [ $((size)) -le $FRAME ] ||
            die "$KO has a stack frame of $((size)) bytes" "make large things in their place, or in a box; at most $FRAME"
    done < <(in_root "$root" "$BUILD:mnt/module" -- objdump -d --no-show-raw-insn "/mnt/module/$KO" |
        sed -n 's/.*sub  *\$\(0x[0-9a-f]*\),%rsp$/\1/p' | sort -u)
}

find_kernel
mkdir -p "$OUT"
lock_file "$OUT/lock"
now=$(fingerprint | sha256sum)
if [ -f "$OUT/$KO" ] && [ "$now" = "$(cat "$OUT/built" 2>/dev/null)" ]; then
    echo "$OUT/$KO"
    exit 0
fi

say "building $KO for the $FLAVOR kernel"
find_kbuild
remove_tree "$BUILD"
rm -f "$OUT/$KO" "$OUT/built"
cp -a "$MODULE_SOURCE" "$BUILD"
quietly "$LOG" "${KBUILD[@]}" "${STRICT[@]}" modules ||
    die "$KO did not build for the $FLAVOR kernel" "see the lines above, or all of $LOG"
# modpost and objtool warn without failing.
if grep -i 'warning:' "$LOG" >&2; then
    die "$KO was built with the warnings above" "remove their cause; the log is $LOG"
fi
check_frames
cp "$BUILD/$KO" "$OUT/$KO"
echo "$now" >"$OUT/built"
echo "$OUT/$KO"
