#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# The tests of libjitfd: what the header and the libraries hold, a C and a C++
# program over the shared library on this host, and over the static one in a
# guest with the module; what `make install` installs; and the man pages. The last
# line is "suite: N passed, N failed".
#
#   run.sh            all
#   run.sh --host     nothing that boots a guest
. "$(dirname "$0")/../vm/lib.sh"

HERE=$TOP/tests/capi
HEADER=$TOP/userlib/capi/include/jitfd.h
WORK=$TOP/target/capi
ROOT=$WORK/root
MAN=$TOP/Documentation/man
FLAGS=(-Wall -Wextra -pedantic -Werror "-I$TOP/userlib/capi/include")
C=(cc -std=c99 "${FLAGS[@]}")
CXX=(c++ -std=c++17 "${FLAGS[@]}")
passed=0
failed=0
remove_tree "$WORK"
mkdir -p "$WORK"
cd "$TOP"

# try NAME COMMAND...: one test; its output is shown if it fails.
try() {
    local name=$1
    shift
    if "$@" >"$WORK/log" 2>&1; then
        echo "ok capi::$name"
        passed=$((passed + 1))
    else
        echo "FAILED capi::$name"
        cat "$WORK/log"
        failed=$((failed + 1))
    fi
}

# add NAME COMMAND...: a program with tests of its own, whose last line counts
# them. One that ends badly without a failed test is one failure.
add() {
    local rc=0 good bad name=$1
    shift
    "$@" 2>&1 | tee "$WORK/log" || rc=$?
    good=$(sed -n 's/^suite: \([0-9]*\) passed, .*/\1/p' "$WORK/log" | tail -n 1)
    bad=$(sed -n 's/^suite: [0-9]* passed, \([0-9]*\) failed.*/\1/p' "$WORK/log" | tail -n 1)
    if [ "$rc" -ne 0 ] && [ "${bad:-0}" = 0 ]; then
        echo "FAILED capi::$name: ended with status $rc"
        bad=1
    fi
    passed=$((passed + ${good:-0}))
    failed=$((failed + ${bad:-0}))
}

# functions: those that the header declares.
functions() {
    cc -E -P "$HEADER" | tr '\n;' ' \n' | sed -n 's/.*[ *]\(jit[a-z_]*\)(.*/\1/p' | sort
}

# constants: those that the header defines.
constants() {
    sed -n 's/^#define \(JITFD_[A-Z0-9_]*\) .*/\1/p' "$HEADER"
}

exported_is_declared() {
    nm -D --defined-only --format=just-symbols "$1/libjitfd.so" | sort >"$WORK/exported"
    functions >"$WORK/declared"
    [ -s "$WORK/declared" ] && diff "$WORK/declared" "$WORK/exported"
}

defined_in_archive() {
    local name
    nm --defined-only --format=just-symbols "$1/libjitfd.a" 2>/dev/null | sort -u >"$WORK/archive"
    for name in $(functions); do
        grep -qx "$name" "$WORK/archive" || { echo "$name is missing" && return 1; }
    done
}

soname_is() {
    objdump -p "$1" | grep -qE "SONAME +$2\$"
}

# uses_all FILE: whether a program uses every function.
uses_all() {
    local name
    for name in $(functions); do
        grep -qw "$name" "$1" || { echo "$1 does not use $name" && return 1; }
    done
}

header_checks() {
    local standard
    for standard in c90 c99 c11 c17; do
        try "header_in_$standard" "${C[@]}" -std=$standard -fsyntax-only -x c "$HEADER"
    done
    for standard in c++11 c++17 c++20; do
        try "header_in_$standard" "${CXX[@]}" -std=$standard -fsyntax-only -x c++ "$HEADER"
    done
    try c_program_uses_every_function uses_all "$HERE/every.c"
    try cxx_program_uses_every_function uses_all "$HERE/every.cc"
}

# gdb_names WORD FUNCTION...: whether gdb says where the program has stopped, and who has
# called that.
gdb_names() {
    local name word=$1
    shift
    LD_LIBRARY_PATH=$WORK gdb -nx -batch -ex "set debuginfod enabled off" -ex "run $word" -ex bt \
        "$WORK/debugged" >"$WORK/gdb" 2>&1
    cat "$WORK/gdb"
    for name; do
        grep -qE "^#[0-9]+ .* in $name \(" "$WORK/gdb" || return 1
    done
}

# host: the programs over the shared library, by every backend but the kernel's.
host_programs() {
    local folder=$TOP/target/release
    cargo build --quiet --release -p jitfd-capi -p jitctl || die "libjitfd did not build" "see cargo's lines above"
    try only_what_is_declared_is_exported exported_is_declared "$folder"
    try archive_has_all defined_in_archive "$folder"
    try shared_library_has_its_name soname_is "$folder/libjitfd.so" libjitfd.so.0
    ln -sf "$folder/libjitfd.so" "$WORK/libjitfd.so.0"
    try c_builds "${C[@]}" -D_GNU_SOURCE -O2 "$HERE/every.c" -o "$WORK/every-c" -L"$folder" -ljitfd -pthread
    try cxx_builds "${CXX[@]}" -O2 "$HERE/every.cc" -o "$WORK/every-cxx" -L"$folder" -ljitfd -pthread
    try debugged_builds cc -Wall -Wextra -Werror "-I$TOP/userlib/capi/include" -O1 "$HERE/debugged.c" -o "$WORK/debugged" -L"$folder" -ljitfd
    try gdb_names_code_and_its_caller gdb_names code stopped_here main
    try gdb_names_a_trampoline_and_its_caller gdb_names table jitfd_trampoline main
    for way in "" --dual --flips; do
        for program in every-c every-cxx; do
            say "$program $way"
            add "$program$way" env LD_LIBRARY_PATH="$WORK" "$WORK/$program" $way
        done
    done
}

# guest: the same over the static library, by /dev/jit.
guest_programs() {
    local folder
    # A static program has no use for the parts of Rust's library that call
    # glibc's resolver, about which the linker would warn.
    local static=(-static "-Wl,--gc-sections" -O2)
    folder=$("$VM_DIR/guest.sh" -p jitfd-capi 2>"$WORK/log") || { cat "$WORK/log" && exit 1; }
    try c_builds_static "${C[@]}" "${static[@]}" -D_GNU_SOURCE "$HERE/every.c" "$folder/libjitfd.a" -o "$WORK/static-c" -pthread
    try cxx_builds_static "${CXX[@]}" "${static[@]}" "$HERE/every.cc" "$folder/libjitfd.a" -o "$WORK/static-cxx" -pthread
    try module_is_installed the_module_is_installed
    for program in static-c static-cxx; do
        add "$program" "$TOP/target/release/vm" "$WORK/$program" --kernel
    done
}

# installed PKG-CONFIG-WORDS...: what a program is told to use what was installed.
installed() {
    PKG_CONFIG_LIBDIR=$ROOT/opt/jitfd/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$ROOT \
        pkg-config "$@" jitfd
}

install_it() {
    make -s -C "$TOP" "$1" PREFIX=/opt/jitfd LIBDIR= DESTDIR="$ROOT"
}

# builds_with_it OUTPUT SOURCE [-static]: compiles against what was installed.
builds_with_it() {
    local words
    read -ra words <<<"$(installed ${3:+--static} --cflags --libs)"
    cc -Wall -Wextra -Werror -O2 "$2" -o "$1" ${3:+"$3"} "${words[@]}"
}

# first_works: the smallest program, which says so if it works without the module.
first_works() {
    local text
    text=$(LD_LIBRARY_PATH="$ROOT/opt/jitfd/lib" "$WORK/first" 2>&1)
    echo "$text"
    [[ $text == *"the code returns 42" ]] && { [ -e /dev/jit ] || [[ $text == *"not by /dev/jit"* ]]; }
}

# engine_works: the larger example, by what this system allows.
engine_works() {
    local text
    text=$(LD_LIBRARY_PATH="$ROOT/opt/jitfd/lib" "$WORK/engine" 2>&1)
    echo "$text"
    [[ $text == *"the caller returns 42"*"it called callee"*"refused at 1: "*syscall* ]]
}

# only_plain_folders: a folder that no program would find later is refused.
only_plain_folders() {
    local name folder
    # shellcheck disable=SC2016 # a dollar sign is what is tried
    for name in PREFIX LIBDIR; do
        for folder in rel/ative "/white space" '/a$b' '/a"b'; do
            if (cd "$WORK" && env PREFIX=/opt/jitfd LIBDIR= "$name=$folder" DESTDIR="$WORK/refused" \
                "$TOP/userlib/install/install.sh" install); then
                echo "$name=$folder is accepted" && return 1
            fi
        done
    done
    [ ! -e "$WORK/refused" ]
}

nothing_is_left() {
    local left
    left=$(find "$ROOT" ! -type d)
    echo "$left"
    [ -z "$left" ]
}

# the_module_is_installed: where the kernel that it is built for finds it.
the_module_is_installed() {
    install_it install-module &&
        find "$ROOT/lib/modules" -path '*/updates/jit.ko' | grep . &&
        [ -f "$ROOT/opt/jitfd/lib/modules-load.d/jit.conf" ] &&
        install_it uninstall-module && nothing_is_left
}

# reads_as_documented: the README's program is the example.
reads_as_documented() {
    sed -n '/^#include <jitfd.h>/,/^}/p' "$TOP/README.md" >"$WORK/readme.c"
    diff "$WORK/readme.c" <(sed -n '/^#include <jitfd.h>/,/^}/p' "$TOP/userlib/capi/examples/first.c")
}

installation() {
    local path
    try installs install_it install
    try only_plain_folders_are_accepted only_plain_folders
    for path in include/jitfd.h lib/libjitfd.a lib/libjitfd.so lib/libjitfd.so.0 lib/libjitfd_ffi.so \
        lib/pkgconfig/jitfd.pc lib/udev/rules.d/60-jit.rules share/man/man3/jit_create_code.3 \
        bin/jitctl share/man/man1/jitctl.1 bin/jitfd-run lib/libjitfd_exec.so share/man/man1/jitfd-run.1 \
        share/man/man4/jit.4 share/man/man7/jitfd.7; do
        try "installed_$(basename "$path")" test -s "$ROOT/opt/jitfd/$path"
    done
    try every_function_has_a_page has_all_functions "$ROOT/opt/jitfd/share/man"
    ! command -v man >/dev/null ||
        try man_finds_every_function man_finds_all "$ROOT/opt/jitfd/share/man"
    try first_builds builds_with_it "$WORK/first" userlib/capi/examples/first.c
    try first_works first_works
    try engine_builds builds_with_it "$WORK/engine" userlib/capi/examples/engine.c
    try engine_works engine_works
    try builds_statically builds_with_it "$WORK/first-static" userlib/capi/examples/first.c -static
    try readme_has_the_example reads_as_documented
    try uninstalls install_it uninstall
    try nothing_is_left nothing_is_left
}

# man_page FILE: formats without a warning, on 80 columns, of which man leaves two.
man_page() {
    groff -t -man -ww -rLL=78n -Tutf8 -Z "$1" >/dev/null 2>"$WORK/groff"
    cat "$WORK/groff"
    [ ! -s "$WORK/groff" ]
}

# names_all FILE WORD...: whether a page has each word.
names_all() {
    local word page=$1
    shift
    for word; do
        grep -qw "$word" "$page" || { echo "$page does not say $word" && return 1; }
    done
}

# same_errnos CALL: whether jit(4) gives the errnos of a call that jit.rst gives.
same_errnos() {
    awk -v call="$1" '
        /^=+$/ { on = (last == call) }
        on && /^E[A-Z0-9]+ / { print $1 }
        { last = $0 }' "$TOP/Documentation/userspace-api/jit.rst" | sort -u >"$WORK/rst"
    awk -v heading=".SS $1" -F '\t' '
        /^[.]S[SH] / { on = ($0 == heading) }
        on && /^E[A-Z0-9]+/ { gsub(", ", "\n", $1); print $1 }' "$MAN/jit.4" | sort -u >"$WORK/man"
    [ -s "$WORK/rst" ] && diff "$WORK/rst" "$WORK/man"
}

# names_options: whether jitctl(1) has each option that the command knows.
names_options() {
    local word
    for word in probe validate stat; do
        "$TOP/target/release/jitctl" "$word" --help
    done | grep -oE -- '--[a-z-]+' | sort -u >"$WORK/options"
    sed 's/\\-/-/g' "$MAN/jitctl.1" >"$WORK/jitctl.1"
    [ -s "$WORK/options" ] || return 1
    while read -r word; do
        grep -qF -e "$word" "$WORK/jitctl.1" || { echo "jitctl.1 does not say $word" && return 1; }
    done <"$WORK/options"
}

# has_all_functions FOLDER: whether there is a page of section 3 for each function of the
# header, whose text has its name.
has_all_functions() {
    local name page
    for name in $(functions); do
        page=$1/man3/$name.3
        [ -s "$page" ] || { echo "there is no page of $name" && return 1; }
        page=$(sed -n 's/^[.]so //p' "$page")
        page=$1/${page:-man3/$name.3}
        grep -qw "$name" "$page" || { echo "$page does not say $name" && return 1; }
    done
}

# man_finds_all FOLDER: whether man does, too.
man_finds_all() {
    local name
    for name in $(functions); do
        man -M "$1" -w 3 "$name" >/dev/null || { echo "man does not find $name" && return 1; }
    done
}

# names_run_options: the same for jitfd-run(1).
names_run_options() {
    local word
    sed 's/\\-/-/g' "$MAN/jitfd-run.1" >"$WORK/jitfd-run.1"
    for word in $("$TOP/target/release/jitfd-run" --help | grep -oE -- '--[a-z-]+' | sort -u); do
        grep -qF -e "$word" "$WORK/jitfd-run.1" || { echo "jitfd-run.1 does not say $word" && return 1; }
    done
}

man_pages() {
    local page call
    for page in "$MAN"/*.[1-8]; do
        try "formats_$(basename "$page")" man_page "$page"
    done
    try jitctl.1_names_every_option names_options
    try jitfd-run.1_names_every_option names_run_options
    cat "$MAN"/*.3 >"$WORK/pages"
    # shellcheck disable=SC2046 # words, not one argument
    try every_function_is_in_section_3 names_all "$WORK/pages" $(functions)
    # shellcheck disable=SC2046 # words, not one argument
    try every_constant_is_in_section_3 names_all "$WORK/pages" $(constants)
    for call in JIT_CREATE_CODE JIT_CREATE JIT_CLONE JIT_APPEND JIT_RESERVE JIT_FILL JIT_SEAL JIT_STATS; do
        try "errnos_of_$call" same_errnos "$call"
    done
}

need nm binutils
need pkg-config pkgconf
need groff groff-base
need c++ g++
need gdb gdb
header_checks
host_programs
installation
man_pages
[ "${1:-}" = --host ] || guest_programs
echo "suite: $passed passed, $failed failed"
[ "$failed" = 0 ]
