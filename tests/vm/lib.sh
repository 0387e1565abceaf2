# SPDX-License-Identifier: GPL-2.0
# Sourced by the set-up scripts: where the cache is, how to speak, how to fail,
# how to enter the build root. Nothing here changes the machine.
set -euo pipefail

VM_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$VM_DIR/../.." && pwd)
# say TEXT: progress, on stderr, with the seconds since this script began.
say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }

# die WHAT HINT: one line that says what is wrong and what to do.
die() {
    printf 'error: %s\n  what to do: %s\n' "$1" "$2" >&2
    exit 1
}

CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/jitfd}
if ! mkdir -p "$CACHE" 2>/dev/null || [ ! -w "$CACHE" ] || ! touch "$CACHE/.writable" 2>/dev/null; then
    die "the cache folder $CACHE cannot be written" "set CACHE= to a folder that you can write to, or run as root"
fi
CACHE=$(cd "$CACHE" && pwd)

. "$VM_DIR/remove.sh"

# built FOLDER: true when it is already built; the caller then returns.
# Everything is built in a ".part" folder and renamed, so an interruption
# leaves nothing that looks finished.
built() { [ -e "$1/.done" ]; }

# put_in_place FOLDER: FOLDER.part becomes FOLDER, finished, in one step.
put_in_place() {
    # An earlier version took two steps, and may have been stopped between them.
    remove_tree "$1"
    touch "$1.part/.done"
    # -T: should it exist after all, do not move into it.
    mv -T "$1.part" "$1"
}

# lock NAME: one set-up at a time per cache and per NAME, also across checkouts.
# The descriptor stays open until this script ends.
lock() {
    exec {LOCK_FD}>"$CACHE/.$1.lock"
    flock -n "$LOCK_FD" && return 0
    say "another set-up holds $CACHE/.$1.lock: waiting for it"
    flock "$LOCK_FD"
}

# quietly LOG COMMAND...: runs COMMAND with its output in LOG, prints a dot
# every ten seconds, and shows the log's end when it fails.
quietly() {
    local log=$1 pid rc=0
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            sleep 1
            kill -0 "$pid" 2>/dev/null || break 2
        done
        printf '.' >&2
    done
    wait "$pid" || rc=$?
    [ "$SECONDS" -ge 10 ] && printf '\n' >&2
    if [ "$rc" -ne 0 ]; then
        tail -n 25 "$log" >&2
        say "failed ($rc): $*; the whole log is $log"
    fi
    return "$rc"
}

# need COMMAND PACKAGE: a tool of this host that the tests can't do without.
need() {
    command -v "$1" >/dev/null && return 0
    say "installing $2 on this host, for the command $1"
    { quietly "$CACHE/apt.log" apt-get update &&
        quietly "$CACHE/apt.log" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "$2"; } ||
        die "there is no command $1" "install it (on Debian: apt-get install $2)"
}

# in_root ROOT [BIND...] -- COMMAND...: COMMAND inside ROOT, in a mount
# namespace of its own that dies with it, so no mount outlives an interruption.
# BIND is SOURCE:TARGET, TARGET relative to the root.
in_root() {
    local root=$1
    shift
    local binds=()
    while [ "$1" != -- ]; do
        binds+=("$1")
        shift
    done
    shift
    unshare --mount --propagation private bash -c '
        set -e
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        while [ "$1" != -- ]; do
            mkdir -p "$root/${1#*:}"
            mount --bind "${1%%:*}" "$root/${1#*:}"
            shift
        done
        shift
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
            HOME=/root KBUILD_BUILD_TIMESTAMP="${KBUILD_BUILD_TIMESTAMP:-}" "$@"
    ' in_root "$root" "${binds[@]}" -- "$@"
}
