#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# `make engines`: programs of Debian that generate code, unmodified, by jitfd-run, in a
# guest with the stock kernel. What they must print is what they print on this host,
# without jitfd. Progress is on standard error; then a line for each engine, and as the
# last line "N passed, N failed".
#
#   ENGINES="luajit php ..."   only these (all: see below; luajit alone is the short slice
#                              of `make test`, with jitfd-run's own tests)
. "$(dirname "$0")/../vm/lib.sh"

HERE=$TOP/tests/engines
WORK=$TOP/target/engines
MATRIX=$WORK/matrix
LIBRARIES=/usr/lib/x86_64-linux-gnu
LUACHECK_FILES=/usr/share/lua/5.1/luacheck
LUACHECK="luajit /usr/bin/luacheck --no-cache --no-color --no-default-config $LUACHECK_FILES"
JAVA=/usr/lib/jvm/java-21-openjdk-amd64/bin/java
ACORN=/usr/share/nodejs/acorn
ALL="luajit luacheck php llvmlite numba lli gjs neovim qml pcre2 node jsc pypy guile tcc java racket erlang sbcl qemu"
passed=0
failed=0

# packages ENGINE: Debian's, whose dependencies come with them.
packages() {
    case $1 in
    luajit | luacheck) echo luajit lua-check ;;
    php) echo php8.4-cli php8.4-opcache ;;
    llvmlite) echo python3 python3-llvmlite ;;
    numba) echo python3 python3-numba ;;
    lli) echo llvm-19 ;;
    gjs) echo gjs node-acorn ;;
    neovim) echo neovim ;;
    qml) echo qml-qt6 qml6-module-qtqml grep ;;
    pcre2) echo pcre2-utils php8.4-cli ;;
    node) echo nodejs node-acorn ;;
    jsc) echo libjavascriptcoregtk-bin ;;
    pypy) echo pypy3 ;;
    guile) echo guile-3.0 ;;
    tcc) echo tcc libc6-dev ;;
    java) echo openjdk-21-jdk-headless ;;
    racket) echo racket ;;
    erlang) echo erlang-base ;;
    sbcl) echo sbcl ;;
    qemu) echo qemu-user ;;
    *) die "there is no engine named $1" "ENGINES= takes: $ALL" ;;
    esac
}

# programs ENGINE: a line for each: its name, jitfd-run's options or -, the command. What
# tests/engines/programs has is in /engines.
programs() {
    case $1 in
    luajit)
        # A linter for Lua, which checks one of its own files, a short one.
        echo "luacheck-short - $LUACHECK/version.lua"
        echo "luajit - luajit /engines/codes.lua"
        ;;
    luacheck) echo "luacheck - $LUACHECK/lexer.lua $LUACHECK_FILES/parser.lua" ;;
    # Without "update protection" a file that was written just now is not compiled.
    php) echo "php --unshare php8.4 -d zend_extension=opcache -d opcache.enable_cli=1 -d opcache.file_update_protection=0 -d opcache.jit_buffer_size=4M -d opcache.jit=tracing /engines/programs.php" ;;
    llvmlite) echo "llvmlite - python3 /engines/functions.py" ;;
    # The packages are not installed, so that the usual links to these are missing.
    numba) echo "numba - env LD_LIBRARY_PATH=$LIBRARIES/blas:$LIBRARIES/lapack python3 /engines/arrays.py" ;;
    lli)
        echo "lli-orc - lli-19 /engines/sieve.ll"
        echo "lli-mcjit - lli-19 -jit-kind=mcjit /engines/sieve.ll"
        ;;
    gjs)
        echo "gjs - gjs /engines/programs.js"
        echo "acorn - gjs /engines/parse.js /usr/share/nodejs/acorn/dist/acorn.js"
        ;;
    neovim)
        echo "neovim - nvim --headless -u NONE -l /engines/codes.lua"
        echo "tohtml - nvim --headless -u NONE -l /engines/html.lua"
        ;;
    qml) echo "qml - sh /engines/qml.sh" ;;
    pcre2)
        echo "pcre2test --faults pcre2test -q -jit /engines/regexes.txt"
        echo "php-preg --faults php8.4 /engines/preg.php"
        ;;
    node)
        echo "node --faults node /engines/workers.js"
        echo "node-acorn --faults node $ACORN/bin/acorn --ecma2022 --compact $ACORN/dist/acorn.js"
        ;;
    jsc) echo "jsc --faults jsc /engines/programs.js" ;;
    pypy) echo "pypy --faults env LC_ALL=C PYTHONCOERCECLOCALE=0 pypy3 /engines/objects.py" ;;
    guile) echo "guile --faults guile-3.0 --no-auto-compile /engines/programs.scm" ;;
    tcc)
        echo "tcc --faults tcc -run -lm /engines/programs.c"
        echo "tcc-statics --faults tcc -run /engines/statics.c"
        ;;
    java) echo "java --faults $JAVA /engines/Programs.java" ;;
    racket) echo "racket --faults racket /engines/programs.rkt" ;;
    erlang) echo "erlang - escript /engines/programs.escript" ;;
    sbcl) echo "sbcl --faults sbcl --script /engines/programs.lisp" ;;
    qemu) echo "qemu - qemu-x86_64 /bin/ls /engines/programs.js" ;;
    esac
}

# refusal PROGRAM: what is said where it is known not to run, or to make no code so.
refusal() {
    case $1 in
    tcc-statics) echo "writes to its own page" ;;
    erlang) echo "it has published nothing" ;;
    sbcl) echo "mmap: Permission denied" ;;
    qemu) echo "is linked statically" ;;
    esac
}

# memory ENGINE: MiB of the guest, which holds the packages.
memory() {
    case $1 in
    java | racket) echo 4096 ;;
    *) echo 2048 ;;
    esac
}

# stage ENGINE ROOT BUILT: makes ROOT/engines, with what each program prints here.
stage() {
    local name options command status folder
    remove_tree "$2/engines"
    mkdir "$2/engines"
    cp "$HERE"/programs/* "$3/jitfd-run" "$3/libjitfd_exec.so" "$2/engines/"
    [ "$1" != luajit ] || cp "$OWN_TESTS" "$2/engines/preload"
    while read -r name options command; do
        folder=$2/engines/$name
        mkdir "$folder"
        echo "$command" | tr ' ' '\n' >"$folder/command"
        refusal "$name" >"$folder/refusal"
        if [ "$options" = - ]; then : >"$folder/options"; else echo "$options" >"$folder/options"; fi
        status=0
        # shellcheck disable=SC2086 # words
        waited box "$HERE/here.sh" "$2" $command >"$folder/expected" 2>"$WORK/$name.here" || status=$?
        echo "$status" >"$folder/status"
        # A linter that finds something says so by 1.
        [ "$status" -le 1 ] && [ -s "$folder/expected" ] || {
            tail -n 5 "$WORK/$name.here" >&2
            echo "engine: $name | it did not run on this host (status $status), see $WORK/$name.here" >>"$MATRIX"
            return 1
        }
        # What --check says, here and without the module, is what the guest gets.
        if [ "$options" = - ]; then options=; fi
        # shellcheck disable=SC2086 # words
        [ -s "$folder/refusal" ] || {
            waited box "$HERE/here.sh" "$2" /engines/jitfd-run --check $command >/dev/null 2>"$WORK/$name.check" &&
                grep -aqF "jitfd-run: run it by: jitfd-run ${options:+$options }$command" "$WORK/$name.check"
        } || {
            grep -a '^jitfd-run: ' "$WORK/$name.check" >&2
            echo "engine: $name | jitfd-run --check does not advise these options, see $WORK/$name.check" >>"$MATRIX"
            return 1
        }
    done < <(programs "$1")
}

# check ENGINE BUILT GUEST: counts the engine's programs.
check() {
    local log=$WORK/$1.log rc=0 good bad root
    # shellcheck disable=SC2046 # words
    root=$("$HERE/root.sh" "$1" $(packages "$1")) && [ -n "$root" ] || {
        failed=$((failed + 1))
        return
    }
    # A copy, made by links: the one in the cache stays as it is.
    remove_tree "$WORK/root"
    cp -al "$root" "$WORK/root" 2>/dev/null || cp -a "$root" "$WORK/root"
    stage "$1" "$WORK/root" "$2" || {
        failed=$((failed + 1))
        return
    }
    say "$1 in a guest"
    FILES=$WORK/root MEM=${MEM:-$(memory "$1")} RUN_LIMIT=${RUN_LIMIT:-3000} KERNEL_LOG=$WORK/$1.kernel.log \
        quietly "$log" "$TOP/target/release/vm" "$3/jitfd-engines" || rc=$?
    grep -a "^engine: \|^jitfd-run's own" "$log" >&2 || true
    grep -a '^engine: ' "$log" >>"$MATRIX" || true
    good=$(sed -n 's/^suite: \([0-9]*\) passed.*/\1/p' "$log" | tail -n 1)
    bad=$(sed -n 's/^suite: [0-9]* passed, \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
    if [ -z "$good" ] || { [ "$rc" != 0 ] && [ "${bad:-0}" = 0 ]; }; then
        echo "engine: $1 | the guest ended with status $rc, see $log" >>"$MATRIX"
        bad=$((${bad:-0} + 1))
    fi
    passed=$((passed + ${good:-0}))
    failed=$((failed + bad))
}

mkdir -p "$WORK"
: >"$MATRIX"
cd "$TOP"
[ "$(id -u)" = 0 ] || die "the engines run in a root folder of their own, which needs root" "run this command as root"
cargo build --quiet --release -p jitfd-exec ||
    die "jitfd-run did not build" "see cargo's lines above"
OWN_TESTS=$(cargo test -p jitfd-exec --test preload --no-run 2>&1 |
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -n "$OWN_TESTS" ] || die "the tests of jitfd-run did not build" \
    "run: cargo test -p jitfd-exec --test preload"
guest=$("$VM_DIR/guest.sh" -p jitfd-engines)
for engine in ${ENGINES:-$ALL}; do
    check "$engine" "$TOP/target/release" "$guest"
done
cat "$MATRIX"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
