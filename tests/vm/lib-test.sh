#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Tests of what lib.sh promises: what it deletes and what it does not, and what is left
# of a script that is interrupted. Mounts are real, in a mount namespace of their own
# and below a tmpfs of their own, so that nothing else can be deleted. cargo runs this
# (tests/scripts.rs).
#
#   lib-test.sh TEST    one of the functions below; 77: it can't be run here, and why
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
SELF=$HERE/$(basename "$0")

# Seconds. What a test waits for happens soon; this is what a stall is.
PATIENCE=${PATIENCE:-60}

fail() {
    echo "failed: $*" >&2
    exit 1
}

# until_true WHAT COMMAND...: waits for it.
until_true() {
    local what=$1
    shift
    for _ in $(seq $((PATIENCE * 20))); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    fail "after $PATIENCE s still not: $what"
}

# script NAME TEXT: a script that uses lib.sh.
script() { printf '. "%s/lib.sh"\n%s\n' "$HERE" "$2" >"$WORK/$1"; }

# start NAME: that script, in a process group of its own, with signals as a terminal
# leaves them. Sets GROUP; what it says is in NAME.log.
start() {
    env --default-signal=INT,QUIT setsid bash "$WORK/$1" >"$WORK/$1.log" 2>&1 &
    GROUP=$!
}

# end STATUS: waits for what was started, which must end with that.
end() {
    local rc=0
    wait "$GROUP" 2>/dev/null || rc=$?
    [ "$rc" = "$1" ] || fail "ended with $rc instead of $1: $(cat "$WORK"/*.log)"
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

# ---- interruptions

# job_text: a script's job in a box, with daemons and a mount, under a lock. It says when
# all that is there.
job_text() {
    cat <<END
echo "\$\$" >"$WORK/pid"
lock test
quietly "$WORK/output" box bash -c '
    mkdir -p "$WORK/root/shm"
    mount --bind "$WORK/outside" "$WORK/root/shm"
    setsid bash -c "trap \"\" INT TERM HUP; while :; do sleep 0.1; done" "$WORK/daemon" &
    touch "$WORK/ready"
    sleep 1000' || die "the job failed" "try another mirror"
END
}

daemon() { grep -qsa -- "$WORK/daemo[n]" /proc/[0-9]*/cmdline; }
no_daemon() { ! daemon; }
mounted() { grep -qs "$WORK/root/shm" /proc/[0-9]*/mountinfo; }
ready() { [ -e "$WORK/ready" ]; }
unlocked() { flock -n "$CACHE/.test.lock" true; }

# start_job NAME: starts NAME, which has that job.
start_job() {
    rm -f "$WORK/ready"
    start "$1"
    until_true "the job runs" ready
    daemon || fail "there is no daemon to be seen"
    mounted || fail "there is no mount to be seen"
    ! unlocked || fail "there is no lock to be seen"
}

# nothing_is_left: no process, no mount, no lock.
nothing_is_left() {
    until_true "no daemon" no_daemon
    until_true "the lock is free" unlocked
    ! mounted || fail "a mount is left"
    [ -e "$WORK/outside/canary" ] || fail "the canary is gone"
}

# says_so NAME: it has words about an interruption, once, and about nothing else.
says_so() {
    [ "$(grep -c "interrupted; run the same command again" "$WORK/$1.log")" = 1 ] ||
        fail "other words: $(cat "$WORK/$1.log")"
    ! grep "error\|mirror\|failed" "$WORK/$1.log" || fail "and those words"
}

# interrupt_all NAME: it ends by each signal, to all as a terminal's, and to it alone.
interrupt_all() {
    local signal
    for signal in INT TERM HUP; do
        for target in - ""; do
            start_job "$1"
            kill "-$signal" -- "$target$GROUP"
            end $((128 + $(kill -l "$signal")))
            says_so "$1"
            nothing_is_left
        done
    done
}

an_interrupted_script_says_so_and_leaves_nothing() { # test
    script job "$(job_text)"
    interrupt_all job
}

# As kernel.sh asks root.sh.
a_script_that_asks_another_ends_with_it() { # test
    script job "$(job_text)"
    script outer "ask bash '$WORK/job'; echo \"got \$ANSWER\""
    interrupt_all outer
    # The other one alone.
    for signal in INT TERM; do
        start_job outer
        kill "-$signal" "$(cat "$WORK/pid")"
        end $((128 + $(kill -l "$signal")))
        says_so outer
        nothing_is_left
    done
}

# A command that does not handle the signal, in the foreground.
ctrl_c_ends_what_is_in_a_box() { # test
    script foreground "box bash -c 'touch \"$WORK/ready\"; exec sleep 1000'"
    start foreground
    until_true "it runs" ready
    kill -INT -- "-$GROUP"
    end 130
    says_so foreground
}

# Where a shell is between the script and the box.
a_box_in_a_function_ends_too() { # test
    script job "inside() { $(job_text | sed '1,2d; s/^quietly [^ ]* //'); }
lock test
quietly '$WORK/log' inside"
    interrupt_all job
}

a_killed_script_leaves_nothing() { # test
    script job "$(job_text)"
    for target in - ""; do
        start_job job
        kill -KILL -- "$target$GROUP"
        end 137
        nothing_is_left
    done
}

the_next_run_gets_the_lock_of_a_killed_one() { # test
    script job "$(job_text)"
    script next "lock test; echo locked"
    start_job job
    kill -KILL -- "-$GROUP"
    start next
    end 0
    grep -q locked "$WORK/next.log" || fail "$(cat "$WORK/next.log")"
    no_daemon || fail "it has the lock, and the daemon lives"
}

# What is in no box may outlive its script. While it may still write it has the lock.
an_orphan_keeps_the_lock_until_it_ends() { # test
    script job "lock test
setsid bash -c 'touch \"$WORK/ready\"; until [ -e \"$WORK/end\" ]; do sleep 0.1; done' &
wait"
    script next "lock test; echo locked"
    start job
    until_true "the orphan runs" ready
    kill -KILL -- "-$GROUP"
    end 137
    start next
    until_true "it waits" grep -q "waiting for it" "$WORK/next.log"
    ! grep -q locked "$WORK/next.log" || fail "two have the lock"
    touch "$WORK/end"
    end 0
    grep -q locked "$WORK/next.log" || fail "$(cat "$WORK/next.log")"
}

who_waits_for_a_lock_can_be_interrupted() { # test
    local signal held
    script next "lock test; echo locked"
    for signal in INT TERM; do
        exec {held}>"$CACHE/.test.lock"
        flock "$held"
        start next
        exec {held}>&-
        until_true "it waits" grep -q "waiting for it" "$WORK/next.log"
        kill "-$signal" "$GROUP"
        end $((128 + $(kill -l "$signal")))
        says_so next
        until_true "the lock is free" unlocked
    done
}

an_answer_is_the_last_line() { # test
    script outer "ask bash '$WORK/inner' a b; echo \"got \$ANSWER\""
    script inner "echo one; echo \"\$@\""
    start outer
    end 0
    grep -qx "got a b" "$WORK/outer.log" || fail "$(cat "$WORK/outer.log")"
    script inner "echo one; die this that"
    start outer
    end 1
    ! grep -q got "$WORK/outer.log" || fail "$(cat "$WORK/outer.log")"
}

a_box_is_closed_and_has_the_status_of_its_command() { # test
    local rc=0
    box true
    box bash -c 'exit 7' || rc=$?
    [ "$rc" = 7 ] || fail "status $rc"
    [ "$(box bash -c 'cd /proc; echo [0-9]*' | wc -w)" -lt 4 ] || fail "it sees other processes"
    box mount -t tmpfs tmpfs "$WORK/outside"
    [ -e "$WORK/outside/canary" ] || fail "its mount is here"
    # By a parent that is no longer there.
    ! "$HERE/box.sh" 1 touch "$WORK/ran" || fail "it has run"
    [ ! -e "$WORK/ran" ] || fail "it has run"
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
unset SETUP_ASKED
. "$HERE/lib.sh"
"$3"
