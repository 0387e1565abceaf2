# SPDX-License-Identifier: GPL-2.0
# Sourced by lib.sh: deletion. Below a folder of the cache this machine's own folders may
# be mounted, /dev/shm for one, if a set-up was killed that could not undo it.

# place_of PATH: PATH as /proc/self/mountinfo has it: without links before its end, with
# white space in octal.
place_of() {
    local path
    path=$(realpath -- "$(dirname -- "$1")")/$(basename -- "$1")
    path=${path//\\/\\134}
    path=${path// /\\040}
    path=${path//$'\t'/\\011}
    printf '%s' "${path//$'\n'/\\012}"
}

# mounts_on PLACE: what is mounted on PLACE or below it, one place a line.
mounts_on() {
    local place
    while read -r _ _ _ _ place _; do
        case $place in "$1" | "$1"/*) printf '%s\n' "$place" ;; esac
    done </proc/self/mountinfo
}

# refuse_mounts FOLDER: ends this script if deleting in FOLDER would delete elsewhere.
refuse_mounts() {
    local mounts
    mounts=$(mounts_on "$(place_of "$1")") ||
        die "it can't be seen what is mounted below $1" "/proc must be mounted"
    [ -z "$mounts" ] || die "$1 is to be deleted, but this is mounted there: ${mounts//$'\n'/ }" \
        "see what it is, and unmount it (umount, the last one first); then run the same command again"
}

# remove_tree FOLDER...: the only way in which these scripts delete a folder. It goes
# into nothing that is mounted. rm by itself notices no more than another file system,
# which a folder that is mounted a second time (mount --bind) is not.
remove_tree() {
    local folder
    for folder in "$@"; do
        [ -e "$folder" ] || [ -L "$folder" ] || continue
        refuse_mounts "$folder"
        # Twice: a process that was killed may just have finished its last system call.
        rm -rf --one-file-system -- "$folder" 2>/dev/null ||
            rm -rf --one-file-system -- "$folder" ||
            die "$folder could not be deleted" "see the lines above"
    done
}

# take_mounts_away FOLDER: unmounts all that is mounted below FOLDER, nothing else.
take_mounts_away() {
    local folder mounts place
    folder=$(place_of "$1")
    # What is mounted on another mount's place is seen when that is gone.
    for _ in 1 2 3; do
        mounts=$(mounts_on "$folder" | grep -vxF -- "$folder" | LC_ALL=C sort --reverse) || return 0
        say "unmounting what a killed set-up has left below $1"
        # First: a copy of /sys may share what is mounted in it with /sys itself.
        while read -r place; do
            mount --make-private "$(printf '%b' "$place")" || true
        done <<<"$mounts"
        # The deepest first; "lazy" because somebody may have opened something there.
        while read -r place; do
            umount --lazy --no-canonicalize "$(printf '%b' "$place")" || true
        done <<<"$mounts"
    done
    mounts=$(mounts_on "$folder" | grep -vxF -- "$folder") || return 0
    die "this is mounted below $1 and can't be unmounted: ${mounts//$'\n'/ }" \
        "unmount it by hand (umount, the last one first), or restart this machine; then run the same command again"
}
