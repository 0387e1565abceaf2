# SPDX-License-Identifier: GPL-2.0
# Sourced by the set-up scripts: where the cache is, how to speak, how to fail. In
# remove.sh: how to delete; in job.sh: how to run what takes long, and how to enter the
# build root. Nothing here changes the machine.
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
. "$VM_DIR/job.sh"

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
lock() { lock_file "$CACHE/.$1.lock"; }

# lock_file FILE: the descriptor stays open until this script ends. Its children have
# it too: should it be killed, the next one waits until the last of them is gone, too.
# Those in a box are killed with it; no other takes long.
lock_file() {
    exec {LOCK_FD}>"$1"
    flock -n "$LOCK_FD" && return 0
    say "another set-up holds $1: waiting for it"
    waited flock "$LOCK_FD"
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

# host_mirror: the mirror that this host uses for Debian itself, not for its security updates.
host_mirror() {
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        grep -v security | head -n 1
}
