# SPDX-License-Identifier: GPL-2.0
# Sourced by lib.sh: jobs, which is what takes long, and what becomes of them when the
# script is interrupted.
#
# bash looks at a signal only when a command in the foreground has ended. A job is in the
# background, and these functions wait for it: so Ctrl-C and SIGTERM end the job and the
# script at once. Without a job SIGTERM does what it always does, and Ctrl-C comes to
# the command in the foreground, too.
JOB=
JOB_SIGNAL=TERM

# interrupted STATUS: ends the job and this script. The script that has asked this one
# (see ask) says it instead.
interrupted() {
    # make passes SIGTERM on beside the one that came to all. A second Ctrl-C ends it.
    trap '' TERM HUP
    trap - INT
    if [ -n "$JOB" ]; then
        kill "-$JOB_SIGNAL" "$JOB" 2>/dev/null || true
        wait "$JOB" 2>/dev/null || true
    fi
    [ -n "${SETUP_ASKED:-}" ] || say "interrupted; run the same command again, it goes on"
    exit "$1"
}
trap 'interrupted 130' INT

# watch PID: makes PID the job.
watch() {
    JOB=$1
    trap 'interrupted 143' TERM
    trap 'interrupted 129' HUP
}

# finish_job: waits for the job and returns its status.
finish_job() {
    local rc=0
    wait "$JOB" || rc=$?
    trap - TERM HUP
    JOB=
    JOB_SIGNAL=TERM
    return "$rc"
}

# waited COMMAND...: runs COMMAND as a job. Its input is empty.
waited() {
    "$@" &
    watch $!
    finish_job
}

# ask SCRIPT [WORD...]: runs another script of the set-up as a job. ANSWER is the last
# line that it prints. If it fails, which it has explained, so does this one.
ask() {
    local output line rc=0
    exec {output}< <(SETUP_ASKED=1 exec "$@")
    watch $!
    # What it prints, a line or two, waits in the pipe.
    finish_job || rc=$?
    case $rc in
    0) ;;
    129 | 130 | 143) interrupted "$rc" ;;
    *) exit "$rc" ;;
    esac
    ANSWER=
    while read -r line; do ANSWER=$line; done <&"$output"
    exec {output}<&-
}

# quietly LOG COMMAND...: runs COMMAND as a job with its output in LOG, prints a dot
# every ten seconds, and shows the log's end when it fails.
quietly() {
    local log=$1 rc=0 box_parent=
    shift
    # Then the box is all of the job. It keeps nothing that a polite signal would save,
    # and unshare blocks that.
    case $1 in in_root | box) box_parent=$BASHPID JOB_SIGNAL=KILL ;; esac
    "$@" >"$log" 2>&1 </dev/null &
    watch $!
    while kill -0 "$JOB" 2>/dev/null; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            sleep 1
            kill -0 "$JOB" 2>/dev/null || break 2
        done
        printf '.' >&2
    done
    finish_job || rc=$?
    [ "$SECONDS" -ge 10 ] && printf '\n' >&2
    if [ "$rc" -ne 0 ]; then
        tail -n 25 "$log" >&2
        say "failed ($rc): $*; the whole log is $log"
    fi
    return "$rc"
}

# box COMMAND...: COMMAND in a box: see box.sh. It is killed with the shell that waits
# for it; as a job of quietly, with this script.
box() {
    if [ -n "${box_parent:-}" ]; then
        exec "$VM_DIR/box.sh" "$box_parent" "$@"
    fi
    "$VM_DIR/box.sh" "$BASHPID" "$@"
}

# in_root ROOT [BIND...] -- COMMAND...: COMMAND inside ROOT, in a box. BIND is
# SOURCE:TARGET, TARGET relative to the root.
in_root() {
    box bash -c '
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
    ' in_root "$@"
}
