#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# mmdebstrap's customize hook: installs the kernel's headers and source in the
# root and downloads its image. Nothing boots from the root, so the image is
# fetched, not installed.
#   root-kernel.sh ROOT SUITE PACKAGE...
set -eu
root=$1
suite=$2
shift 2

chroot "$root" apt-get install -y -t "$suite" "$@"

release=$(ls "$root/usr/src" | sed -n 's/^linux-headers-\(.*-amd64\)$/\1/p' | sort -V | tail -n 1)
mkdir -p "$root/opt/kernel"
echo "$release" >"$root/opt/kernel/release"

# The package that holds vmlinuz has had several names.
for name in "linux-binary-$release" "linux-image-$release" "linux-image-$release-unsigned"; do
    if chroot "$root" apt-cache pkgnames "$name" | grep -qxF "$name"; then
        chroot "$root" sh -c 'cd /opt/kernel && apt-get -o APT::Sandbox::User=root download "$1"' sh "$name"
        exit 0
    fi
done
echo "no package with the image of $release" >&2
exit 1
