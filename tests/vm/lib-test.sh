#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Tests of what lib.sh promises: what it deletes and what it does not. Mounts are real,
# in a mount namespace of their own and below a tmpfs of their own, so that nothing else
# can be deleted. cargo runs this (tests/scripts.rs).
#
#   lib-test.sh TEST    one of the functions below; 77: it can't be run here, and why
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
SELF=$HERE/$(basename "$0")

fail() {
    echo "failed: $*" >&2
    exit 1
}

# refused FOLDER: remove_tree must end the script with words about a mount, and delete
# nothing.
refused() {
    local rc=0
    (remove_tree "$1") 2>"$WORK/words" || rc=$?
    [ "$rc" = 1 ] || fail "remove_tree $1 ended with $rc"
    grep -q "is mounted there: " "$WORK/words" || fail "other words: $(cat "$WORK/words")"
    grep -q "what to do: .*umount" "$WORK/words" || fail "not what to do: $(cat "$WORK/words")"
    [ -e "$1/file" ] || fail "something was deleted"
    [ -e "$WORK/outside/canary" ] || fail "the canary is gone"
}

# deleted FOLDER: remove_tree must delete it, and nothing outside.
deleted() {
    remove_tree "$1"
    [ ! -e "$1" ] && [ ! -L "$1" ] || fail "$1 is still there"
    [ -e "$WORK/outside/canary" ] || fail "the canary is gone"
}

# ---- deletion

a_tree_is_deleted() { # test
    mkdir -p "$WORK/tree/sub" "$WORK/tree/white  space"
    touch "$WORK/tree/file" "$WORK/tree/white  space/"$'line\nbreak'
    ln -s "$WORK/outside" "$WORK/tree/link"
    ln -s "$WORK/outside" "$WORK/link"
    deleted "$WORK/tree"
    deleted "$WORK/link"
    deleted "$WORK/absent/too"
}

a_folder_that_is_mounted_twice_is_not_entered() { # test
    mkdir -p "$WORK/tree/dev/shm"
    touch "$WORK/tree/file"
    mount --bind "$WORK/outside" "$WORK/tree/dev/shm"
    refused "$WORK/tree"
    umount "$WORK/tree/dev/shm"
    deleted "$WORK/tree"
}

another_file_system_is_not_entered() { # test
    mkdir -p "$WORK/tree/sub"
    touch "$WORK/tree/file"
    mount -t tmpfs tmpfs "$WORK/tree/sub"
    touch "$WORK/tree/sub/canary"
    refused "$WORK/tree"
    [ -e "$WORK/tree/sub/canary" ] || fail "its file is gone"
}

a_mounted_folder_is_not_deleted() { # test
    mkdir "$WORK/tree"
    touch "$WORK/outside/file"
    mount --bind "$WORK/outside" "$WORK/tree"
    refused "$WORK/tree"
}

names_with_white_space_are_understood() { # test
    local tree=$WORK/$'a  b\tc\\d\ne'
    mkdir -p "$tree/f g"
    touch "$tree/file"
    mount --bind "$WORK/outside" "$tree/f g"
    refused "$tree"
    take_mounts_away "$tree"
    deleted "$tree"
}

a_path_with_a_link_is_understood() { # test
    mkdir -p "$WORK/tree/sub"
    touch "$WORK/tree/file"
    ln -s . "$WORK/here"
    mount --bind "$WORK/outside" "$WORK/tree/sub"
    refused "$WORK/here/tree"
}

a_half_finished_folder_is_replaced() { # test
    mkdir "$WORK/x" "$WORK/x.part"
    touch "$WORK/x/old" "$WORK/x.part/new"
    put_in_place "$WORK/x"
    built "$WORK/x" || fail "it is not finished"
    [ -e "$WORK/x/new" ] && [ ! -e "$WORK/x/old" ] && [ ! -e "$WORK/x.part" ] ||
        fail "there is: $(ls "$WORK" "$WORK/x")"
}

# ---- mounts that an earlier version has left

# left_over: what a killed mmdebstrap leaves, and worse.
left_over() {
    mkdir -p "$WORK/root.part/"{proc,sys,dev} "$WORK/root.partner/sub" "$WORK/system"
    touch "$WORK/root.part/file"
    mount -t proc proc "$WORK/root.part/proc"
    # A copy that shares what is mounted in it, as one of /sys does.
    mount -t tmpfs tmpfs "$WORK/system"
    mkdir "$WORK/system/cgroup"
    mount --make-shared "$WORK/system"
    mount --bind "$WORK/system" "$WORK/root.part/sys"
    mount -t tmpfs tmpfs "$WORK/system/cgroup"
    touch "$WORK/system/cgroup/canary"
    mountpoint -q "$WORK/root.part/sys/cgroup" || fail "it is not shared"
    # One upon another.
    mount -t tmpfs tmpfs "$WORK/root.part/dev"
    mkdir "$WORK/root.part/dev/shm"
    mount --bind "$WORK/outside" "$WORK/root.part/dev/shm"
    mount --bind "$WORK/outside" "$WORK/root.part/dev/shm"
    mount --bind "$WORK/outside" "$WORK/root.partner/sub"
}

mounts_below_a_folder_are_taken_away() { # test
    left_over
    refused "$WORK/root.part"
    take_mounts_away "$WORK/root.part" 2>"$WORK/words"
    grep -q "unmounting" "$WORK/words" || fail "without a word"
    ! grep " $WORK/root.part/" /proc/self/mountinfo || fail "that is left"
    mountpoint -q "$WORK/root.partner/sub" || fail "a neighbour was unmounted"
    [ -e "$WORK/system/cgroup/canary" ] || fail "the original was unmounted"
    deleted "$WORK/root.part"
    take_mounts_away "$WORK/root.partner/absent"
}

a_mount_on_the_folder_stays() { # test
    mkdir "$WORK/root.part"
    touch "$WORK/outside/file"
    mount --bind "$WORK/outside" "$WORK/root.part"
    take_mounts_away "$WORK/root.part"
    mountpoint -q "$WORK/root.part" || fail "it was unmounted"
    refused "$WORK/root.part"
}

what_cannot_be_unmounted_is_an_error() { # test
    local rc=0
    left_over
    mkdir "$WORK/bin"
    ln -s /bin/false "$WORK/bin/umount"
    (PATH=$WORK/bin:$PATH && take_mounts_away "$WORK/root.part") 2>"$WORK/words" || rc=$?
    [ "$rc" = 1 ] || fail "it ended with $rc"
    grep -q "can't be unmounted: " "$WORK/words" || fail "other words: $(cat "$WORK/words")"
    grep -q "what to do: " "$WORK/words" || fail "not what to do: $(cat "$WORK/words")"
    [ -e "$WORK/root.part/dev/shm/canary" ] || fail "something was deleted"
}

if [ "${1:-}" != --inside ]; then
    [ "$(id -u)" = 0 ] || { echo "only root can mount" && exit 77; }
    unshare --mount --propagation private true 2>/dev/null ||
        { echo "there is no right to mount here" && exit 77; }
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/jitfd-lib-test.XXXXXX")
    rc=0
    unshare --mount --propagation private "$SELF" --inside "$WORK" "$1" || rc=$?
    rmdir "$WORK"
    exit "$rc"
fi
WORK=$2
mount -t tmpfs tmpfs "$WORK"
mkdir "$WORK/outside" "$WORK/cache"
touch "$WORK/outside/canary"
export CACHE=$WORK/cache
. "$HERE/lib.sh"
"$3"
