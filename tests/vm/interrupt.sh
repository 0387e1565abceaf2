#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make interrupt`: ends `make kernel`, then `make vm`, at random moments of their lives,
# by SIGKILL, Ctrl-C and SIGTERM, in a cache of its own. After each: what lies in the
# host's /dev/shm and /dev is still there, no process, no mount and no lock is left, and
# who was asked politely has said so. At the end the set-up succeeds. An hour or two;
# nothing is asked of the Debian mirror twice.
#
#   KILLS=N   how often the set-up is ended (50); make vm: a fifth of that
#   SEED=N    repeats the moments of an earlier run
. "$(dirname "$0")/lib.sh"

KILLS=${KILLS:-50}
SEED=${SEED:-$((RANDOM << 15 | RANDOM))}
RANDOM=$SEED
# Seconds after which something that should be gone is a failure.
PATIENCE=30

WORK=$(mktemp -d "${TMPDIR:-/tmp}/jitfd-interrupt.XXXXXX")
TRIAL=$WORK/cache
LOG=$WORK/log
CANARY=$(mktemp -d /dev/shm/jitfd-canary.XXXXXX)
GROUP=
MIRROR_PID=
kills=0
slowest=0

# now: milliseconds.
now() { echo $(($(date +%s%N) / 1000000)); }

# seconds MILLISECONDS: for people, and for sleep.
seconds() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

clean_up() {
    [ -z "$GROUP" ] || kill -KILL -- "-$GROUP" 2>/dev/null || true
    [ -z "$MIRROR_PID" ] || kill "$MIRROR_PID" 2>/dev/null || true
    remove_tree "$CANARY"
    if [ -z "${KEEP:-}" ]; then
        until_true nothing_left || true
        remove_tree "$WORK"
    fi
}
trap clean_up EXIT

# failed WHAT: ends the test; its folder stays.
failed() {
    KEEP=1
    tail -n 20 "$LOG" >&2
    die "$1" "see $WORK; repeat it with SEED=$SEED KILLS=$KILLS"
}

# ---- what is looked at

# processes: those of the session.
processes() {
    local process session
    for process in /proc/[0-9]*; do
        # No name of theirs has white space.
        read -r _ _ _ _ _ session _ <"$process/stat" || continue
        [ "$session" != "${GROUP:-none}" ] || echo "${process#/proc/}"
    done 2>/dev/null
}

# left: one line for each process, mount and lock of the trial that is there.
left() {
    local process lock
    for process in $(processes); do
        echo "process $process: $(tr '\0' ' ' <"/proc/$process/cmdline")"
    done 2>/dev/null
    find /proc/[0-9]*/{root,cwd,exe,fd} -maxdepth 1 -lname "$TRIAL*" -printf '%p uses %l\n' 2>/dev/null || true
    grep -s -- "$TRIAL" /proc/[0-9]*/mountinfo || true
    for lock in "$TRIAL"/.*.lock; do
        [ ! -e "$lock" ] || flock -n "$lock" true || echo "$lock is held"
    done
}

nothing_left() { [ -z "$(left)" ]; }

until_true() {
    for _ in $(seq $((PATIENCE * 10))); do
        if "$@"; then return 0; fi
        sleep 0.1
    done
    return 1
}

# check_host: what the set-up might have deleted.
check_host() {
    [ "$(cat "$CANARY/file" 2>/dev/null)" = alive ] || failed "the canary in $CANARY is gone"
    local gone
    gone=$(comm -23 "$WORK/dev" <(names_in_dev))
    [ -z "$gone" ] || failed "gone from /dev: $gone"
}

# names_in_dev: what is always there.
names_in_dev() { find /dev -maxdepth 1 \( -type c -o -type b -o -type d \) -not -name 'loop*' | LC_ALL=C sort; }

# check_words: those of a run that was ended politely.
check_words() {
    grep -qiE "interrupt|terminated" "$LOG" || failed "no word about the interruption"
    ! grep -qiE "error:|mirror" "$LOG" || failed "words about something else"
}

# ---- what is done

# start MAKE_ARGUMENT...: in a session of its own, signals as a terminal leaves them.
start() {
    # What this make was given is not for that one.
    env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES --default-signal=INT,QUIT FLAVOR=stock \
        CACHE="$TRIAL" MIRROR="$MIRROR" MODULE_OUT="$WORK/module" setsid make -C "$TOP" "$@" >"$LOG" 2>&1 </dev/null &
    GROUP=$!
    started=$(now)
}

running() { kill -0 "$GROUP" 2>/dev/null; }

# victim: some process of the trial.
victim() {
    local all
    mapfile -t all < <(processes)
    [ "${#all[@]}" = 0 ] || echo "${all[RANDOM % ${#all[@]}]}"
}

# strike KIND: ends the run.
strike() {
    local pid
    case $1 in
    KILL | INT) kill "-$1" -- "-$GROUP" ;;
    TERM) kill -TERM "$GROUP" ;;
    ONE)
        # As the OOM killer does; what the others do then is cut short.
        pid=$(victim)
        [ -z "$pid" ] || kill -KILL "$pid" || true
        sleep 0.$((RANDOM % 10))
        kill -KILL -- "-$GROUP"
        ;;
    esac 2>/dev/null || true
}

# done_already: whether the run has succeeded, a moment before its end was asked for.
done_already() { [ "$1" = 0 ] && tail -n 3 "$LOG" | grep -q "^$TRIAL/kernel-"; }

# end KIND: ends the run and looks at what it has left. False if it was done already.
end() {
    local rc=0 begin took
    begin=$(now)
    strike "$1"
    wait "$GROUP" 2>/dev/null || rc=$?
    until_true nothing_left || failed "left after $1: $(left)"
    took=$(($(now) - begin))
    [ "$took" -le "$slowest" ] || slowest=$took
    check_host
    if done_already "$rc"; then return 1; fi
    [ "$rc" != 0 ] || failed "ended by $1 with status 0"
    case $1 in INT | TERM) check_words ;; esac
    kills=$((kills + 1))
    say "$kills: $1 after $(seconds $((begin - started))) s, all gone after $(seconds "$took") s"
}

# kind: six of ten are SIGKILLs.
kind() {
    local kinds=(KILL KILL KILL KILL KILL ONE INT INT TERM TERM)
    echo "${kinds[RANDOM % 10]}"
}

# moment FROM TO INDEX COUNT: a random one in the slice INDEX of COUNT, so that all
# together are spread over the whole.
moment() {
    local width=$((($2 - $1) / $4 + 1))
    echo $(($1 + width * $3 + (RANDOM << 15 | RANDOM) % width))
}

# kill_at MOMENT MAKE_ARGUMENT...: false if it was done before that.
kill_at() {
    local at=$1 rc=0
    shift
    start "$@"
    sleep "$(seconds "$at")"
    if running; then
        end "$(kind)"
        return
    fi
    wait "$GROUP" || rc=$?
    done_already "$rc" || failed "it failed by itself: make $*"
    return 1
}

# life COUNT FROM TO PREPARE MAKE_ARGUMENT...: ends COUNT runs between those moments, each
# other one in the part from FROM on, where mounts are. PREPARE goes before each.
life() {
    local count=$1 from=$2 to=$3 prepare=$4 index first at
    shift 4
    for ((index = 0; index < count; index++)); do
        first=$((index % 2 ? from : 0))
        until
            "$prepare" "$index"
            at=$(moment "$first" "$to" $((index / 2)) $(((count + 1) / 2)))
            kill_at "$at" "$@"
        do
            say "it was done before $(seconds "$at") s"
            to=$((to * 9 / 10))
            [ "$to" -gt "$first" ] || failed "it is done too soon to be ended"
        done
    done
}

# ---- the lives

# learn: a whole set-up. Sets MOUNTS (when mounts begin), ROOT_LIFE, KERNEL_LIFE.
learn() {
    local rooted=
    MOUNTS=
    start kernel
    while running; do
        [ -n "$MOUNTS" ] || ! grep -qs "$TRIAL/root-.*\.part/proc" /proc/[0-9]*/mountinfo ||
            MOUNTS=$(($(now) - started))
        [ -n "$rooted" ] || ! compgen -G "$TRIAL/root-*/.done" >/dev/null || rooted=$(now)
        sleep 0.3
    done
    wait "$GROUP" || failed "the set-up does not even succeed by itself"
    [ -n "$MOUNTS" ] && [ -n "$rooted" ] || failed "no mount or no root was seen"
    ROOT_LIFE=$((rooted - started))
    KERNEL_LIFE=$(($(now) - rooted))
}

# forget NAME: what was finished under that name. What was not is for the set-up to
# deal with.
forget() {
    local folder
    for folder in "$TRIAL/$1"-*; do
        [ ! -e "$folder/.done" ] || remove_tree "$folder"
    done
}

# What each run begins with; its number is given.
without_kernel() {
    forget kernel
    [ $(($1 % 2)) = 0 ] || forget source
}
without_root() {
    without_kernel "$1"
    forget root
}
without_module() { [ $(($1 % 2)) = 0 ] || remove_tree "$WORK/module"; }

# only_root: the root, undisturbed.
only_root() {
    CACHE=$TRIAL MIRROR=$MIRROR "$VM_DIR/root.sh" >/dev/null 2>"$LOG" || failed "the root is not made"
}

# guest_life: how long a guest needs until its program runs, and some more.
guest_life() {
    printf '#include <stdio.h>\n#include <unistd.h>\nint main(void) { puts("running"); fflush(stdout); pause(); }\n' |
        cc -O1 -static -x c - -o "$WORK/sleeper"
    start vm RUN="$WORK/sleeper"
    until grep -q '^running' "$LOG"; do
        running || failed "the guest does not run"
        sleep 0.3
    done
    GUEST_LIFE=$(($(now) - started + 3000))
    end INT
}

mkdir "$TRIAL"
echo alive >"$CANARY/file"
names_in_dev >"$WORK/dev"
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | head -n 1)}
if command -v python3 >/dev/null; then
    mkdir "$WORK/mirror"
    exec {address}< <(exec setpriv --pdeathsig TERM python3 "$VM_DIR/mirror.py" "$MIRROR" "$WORK/mirror")
    MIRROR_PID=$!
    read -r MIRROR <&"$address"
fi

say "SEED=$SEED KILLS=$KILLS in $WORK"
# The first root waits for Debian's mirror, and tells nothing of how long the others take.
say "fetching the packages"
only_root
forget root
say "the set-up, undisturbed, to see how long it takes"
learn
say "it took $(seconds "$ROOT_LIFE") s for the root, with mounts after $(seconds "$MOUNTS") s, and $(seconds "$KERNEL_LIFE") s for the kernel"
life $((KILLS * 4 / 5)) "$MOUNTS" "$ROOT_LIFE" without_root kernel
only_root
life $((KILLS - KILLS * 4 / 5)) 0 "$KERNEL_LIFE" without_kernel kernel
say "the kernel, undisturbed"
start kernel
wait "$GROUP" || failed "the set-up does not succeed any more"
say "make vm"
guest_life
life $((KILLS / 5)) 0 "$GUEST_LIFE" without_module vm RUN="$WORK/sleeper"
check_host
echo "interrupt: ok, $kills times; the slowest was gone after $(seconds "$slowest") s; SEED=$SEED"
