#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# A command in a box: a mount namespace and a process namespace of its own. Both end
# with the command, and with the process that has started it, whatever ends that,
# SIGKILL included: each process of the chain is killed with the one before, the
# first process of the namespace takes all others with it, daemons too, and mounts
# are gone with the last process. So nothing has to be undone after an interruption.
#
#   box.sh PARENT COMMAND...    PARENT is the process that starts it
#
# The command is not the namespace's first process: that one ignores the signals that
# it does not handle.
set -euo pipefail

case $1 in
--watched)
    # From here on it is killed with its parent. It may have lost that before.
    [ "$PPID" = "$2" ] || exit 1
    shift 2
    exec unshare --mount --propagation private --pid --fork --kill-child "$0" --inside "$$" "$@"
    ;;
--inside)
    # The same again. /proc is the host's still, so that this is the parent's id there.
    read -r _ _ _ parent _ </proc/self/stat
    [ "$parent" = "$2" ] || exit 1
    shift 2
    mount -t proc proc /proc
    rc=0
    "$@" || rc=$?
    exit "$rc"
    ;;
*) exec setpriv --pdeathsig KILL "$0" --watched "$@" ;;
esac
