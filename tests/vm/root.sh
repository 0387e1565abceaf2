#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Builds the build root: a Debian trixie folder with exactly the tool chain that
# built Debian's own kernel, that kernel's headers and source from
# trixie-backports, and QEMU. Prints the root's path. About two minutes.
#
#   root.sh bochs   another root, with Bochs and what makes a boot medium for it:
#                   made when somebody first asks for EMULATOR=bochs
#
#   MIRROR=URL   the Debian mirror (default: the one this host's apt uses)
#   CACHE=DIR    where it is kept
. "$(dirname "$0")/lib.sh"

SUITE=trixie
KERNEL_SUITE=trixie-backports

# The tool chain that Debian built the kernel with, and what kbuild calls.
TOOLS="make,gcc,gcc-14,libc6-dev,rustc,rust-src,rustfmt,bindgen,clang,lld,llvm,flex,bison,bc"
TOOLS="$TOOLS,libelf-dev,libssl-dev,pahole,python3,xz-utils,zstd,kmod,cpio,rsync,perl,ca-certificates"
# What runs the guest.
TOOLS="$TOOLS,qemu-system-x86,seabios,ipxe-qemu"
# Kernel packages: meta packages, so that the newest is taken.
KERNEL_PACKAGES="linux-headers-amd64 linux-source"

KIND=${1:-build}
HOOK=()
case $KIND in
build)
    WHAT="Debian $SUITE, kernel from $KERNEL_SUITE; 2 to 3 minutes"
    NEEDS=12
    name=root-$(printf '%s\n' "$SUITE $KERNEL_SUITE $TOOLS $KERNEL_PACKAGES 2" | sha256sum | cut -c1-12)
    HOOK=("--customize-hook=\"$VM_DIR/root-kernel.sh\" \"\$1\" $KERNEL_SUITE $KERNEL_PACKAGES")
    ;;
bochs)
    WHAT="Debian $SUITE with Bochs; one minute"
    NEEDS=1
    TOOLS="bochs,bochs-term,bochsbios,vgabios,isolinux,syslinux-common,xorriso"
    name=root-bochs-$(printf '%s\n' "$SUITE $TOOLS 1" | sha256sum | cut -c1-12)
    ;;
*) die "there is no root named $KIND" "root.sh takes: bochs, or nothing for the build root" ;;
esac
ROOT=$CACHE/$name

if built "$ROOT"; then
    echo "$ROOT"
    exit 0
fi

[ "$(uname -m)" = x86_64 ] ||
    die "this machine is $(uname -m), jitfd is for x86-64" "use an x86-64 machine"
[ "$(id -u)" = 0 ] ||
    die "the build root is made by mmdebstrap and chroot, which need root" "run this command as root, or in a container where you are root"
box true ||
    die "root can make no mount and process namespace here" "run this command where root may (in a container: with CAP_SYS_ADMIN)"
free_kib=$(df --output=avail -k "$CACHE" | tail -n 1)
[ "$free_kib" -gt $((NEEDS * 1024 * 1024)) ] ||
    die "$CACHE has $((free_kib / 1024 / 1024)) GiB free; the set-up needs $NEEDS" "free some space, or set CACHE= to a folder on a larger disk"

lock root
if built "$ROOT"; then
    echo "$ROOT"
    exit 0
fi

if ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null ||
        die "mmdebstrap is not installed and there is no apt-get" "install mmdebstrap by your distribution's means"
    say "installing mmdebstrap on this host (the only package it needs beside make and cargo)"
    quietly "$CACHE/apt.log" apt-get update ||
        die "apt-get update failed" "see the lines above; a mirror must be reachable"
    quietly "$CACHE/apt.log" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mmdebstrap ||
        die "mmdebstrap could not be installed" "see the lines above, then: apt-get install mmdebstrap"
fi

MIRROR=${MIRROR:-$(host_mirror || true)}
[ -n "$MIRROR" ] ||
    die "this host's apt names no Debian mirror" "set MIRROR= to the address of one"

say "building the root in $ROOT ($WHAT)"
# An earlier version of this script ran mmdebstrap without a box.
for part in "$CACHE"/root-*.part; do
    [ ! -d "$part" ] || take_mounts_away "$part"
done
remove_tree "$ROOT.part"
for suite in $SUITE $SUITE-updates $KERNEL_SUITE; do
    echo "deb $MIRROR $suite main"
done >"$ROOT.list"

# mmdebstrap mounts /proc, /sys and parts of /dev in the root, and undoes it only if it
# is not killed. It mounts this machine's /dev/shm, too: so there is another one.
quietly "$CACHE/root.log" box bash -ec '[ ! -d /dev/shm ] || mount -t tmpfs tmpfs /dev/shm; "$@"' sh \
    mmdebstrap --variant=minbase --format=directory \
    --include="$TOOLS" --aptopt='Acquire::Retries "5"' "${HOOK[@]}" \
    "$SUITE" "$ROOT.part" "$ROOT.list" ||
    die "mmdebstrap failed" "see the lines above and $CACHE/root.log; if the mirror is not reachable set MIRROR= to another"

release=
[ "$KIND" != build ] || release=$(cat "$ROOT.part/opt/kernel/release")
case $KIND:$release in
bochs:) ;;
build:7.[2-9]* | build:7.[1-9][0-9]* | build:[89].* | build:[1-9][0-9].*) ;;
*) die "$KERNEL_SUITE has kernel $release; jitfd needs 7.2 or newer" "wait for a newer kernel there, or set KDIR= to a kernel build of your own with CONFIG_RUST=y" ;;
esac
put_in_place "$ROOT"
rm -f "$ROOT.list"
say "the root is ready${release:+: kernel $release}"
echo "$ROOT"
