#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# `make install` and `make uninstall`: libjitfd, its header, man pages, the udev
# rule and the commands jitctl and jitfd-run. One list of files serves both.
#
#   install.sh install|uninstall|install-module|uninstall-module
#
#   PREFIX=   where it will be used (default: /usr/local)
#   LIBDIR=   the libraries' folder (default: PREFIX/lib); both are absolute
#   DESTDIR=  a folder that is put before everything, for packages and tests
#   MODULE=   a jit.ko to install, instead of one built from module/
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
BUILT=${CARGO_TARGET_DIR:-$TOP/target}/release
MAN=$TOP/Documentation/man
PREFIX=${PREFIX:-/usr/local}
LIBDIR=${LIBDIR:-$PREFIX/lib}
DESTDIR=${DESTDIR:-}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$TOP/userlib/capi/Cargo.toml")
MODULE_FOLDER=

die() {
    printf 'error: %s\n  what to do: %s\n' "$1" "$2" >&2
    exit 1
}

# check_folder NAME FOLDER: what is written into jitfd.pc, and used from anywhere.
check_folder() {
    case $2 in
    /*) ;;
    *) die "$1=$2 is not an absolute path" "give one that begins with /" ;;
    esac
    case $2 in
    *[[:space:]\"\'\\\$\&\|\#]*)
        die "$1=$2 has a character that pkg-config takes for something else" \
            "use a path without white space, quotes and the like"
        ;;
    esac
}

# names PAGE: what a man page is about, as its first lines say.
names() {
    awk '/^\.SH NAME/ { on = 1; next }
        on { last = sub(/\\-.*/, ""); gsub(/,/, " "); print }
        last { exit }' "$1"
}

# pages: the man pages, and for each further function of one a page that says where.
pages() {
    local page name folder
    for page in "$MAN"/*.[1-8]; do
        folder=$PREFIX/share/man/man${page##*.}
        echo "0644 $page $folder/$(basename "$page")"
        for name in $(names "$page"); do
            [ "$name.${page##*.}" = "$(basename "$page")" ] ||
                echo "so $(basename "$page") $folder/$name.${page##*.}"
        done
    done
}

# files: what is installed, one line each: mode, source, place. A link has the
# mode "link" and its target as the source, a man page that is another one's the mode
# "so" and that page.
files() {
    echo "0755 $BUILT/libjitfd.so $LIBDIR/libjitfd.so.$VERSION"
    echo "link libjitfd.so.$VERSION $LIBDIR/libjitfd.so.0"
    echo "link libjitfd.so.0 $LIBDIR/libjitfd.so"
    echo "0644 $BUILT/libjitfd.a $LIBDIR/libjitfd.a"
    echo "0755 $BUILT/libjitfd_ffi.so $LIBDIR/libjitfd_ffi.so"
    echo "0755 $BUILT/libjitfd_exec.so $LIBDIR/libjitfd_exec.so"
    echo "0644 $TOP/userlib/capi/include/jitfd.h $PREFIX/include/jitfd.h"
    echo "0644 $BUILT/jitfd.pc $LIBDIR/pkgconfig/jitfd.pc"
    echo "0644 $HERE/60-jit.rules $PREFIX/lib/udev/rules.d/60-jit.rules"
    pages
    echo "0755 $BUILT/jitctl $PREFIX/bin/jitctl"
    echo "0755 $BUILT/jitfd-run $PREFIX/bin/jitfd-run"
}

# module_files: the same for the module. Everything that is loaded at boot is a
# choice of its own, so `make install` does not do it.
module_files() {
    echo "0644 ${MODULE:-} $MODULE_FOLDER/jit.ko"
    echo "0644 $HERE/jit.conf $PREFIX/lib/modules-load.d/jit.conf"
}

# put MODE SOURCE PLACE
put() {
    local place=$DESTDIR$3
    mkdir -p "$(dirname "$place")"
    case $1 in
    link) ln -sf "$2" "$place" ;;
    so) echo ".so man${3##*.}/$2" >"$place" && chmod 0644 "$place" ;;
    *) install -m "$1" "$2" "$place" ;;
    esac
    echo "$place"
}

put_all() {
    local mode from place
    while read -r mode from place; do
        put "$mode" "$from" "$place"
    done
}

remove_all() {
    local mode from place
    while read -r mode from place; do
        rm -f "$DESTDIR$place"
    done
}

# find_module_folder: where the kernel that jit.ko was built for looks for it.
find_module_folder() {
    local release
    release=$(grep -aom 1 'vermagic=[^ ]*' "$MODULE" | cut -d = -f 2)
    [ -n "$release" ] || die "$MODULE is no kernel module" "build one: make module"
    MODULE_FOLDER=/lib/modules/$release/updates
}

# Without DESTDIR= the running system is told.
depmod_if_real() {
    [ -n "$DESTDIR" ] || depmod "$(basename "$(dirname "$MODULE_FOLDER")")"
}

write_pc() {
    sed -e "s|@PREFIX@|$PREFIX|" -e "s|@LIBDIR@|$LIBDIR|" -e "s|@VERSION@|$VERSION|" \
        "$HERE/jitfd.pc.in" >"$BUILT/jitfd.pc"
}

check_folder PREFIX "$PREFIX"
check_folder LIBDIR "$LIBDIR"
case ${1:-} in
install)
    for built in libjitfd.so jitctl jitfd-run; do
        [ -f "$BUILT/$built" ] || die "$built is not built" "run: make install"
    done
    write_pc
    files | put_all
    ;;
uninstall)
    files | remove_all
    ;;
install-module)
    find_module_folder
    module_files | put_all
    depmod_if_real
    ;;
uninstall-module)
    find_module_folder
    module_files | remove_all
    depmod_if_real
    ;;
*) die "install.sh does not know ${1:-nothing}" "see its first lines" ;;
esac
