#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Runs a command in another root folder, in a box (tests/vm/box.sh), whose mounts end
# with it. As jitfd-engines does it in the guest.
#   here.sh ROOT COMMAND...
set -eu
root=$1
shift
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" /usr/bin/env -i -C /tmp PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 "$@"
