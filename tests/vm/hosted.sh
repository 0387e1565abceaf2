#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Runs the library's tests of gdb and perf in a guest with the stock kernel, so
# that they see code of /dev/jit: this host's tools, with their libraries. The
# last line with numbers is cargo's. Needs gdb and perf: tests/tools.sh.
#   hosted.sh [the tests' arguments]
. "$(dirname "$0")/lib.sh"

FOLDER=$TOP/target/hosted
cd "$TOP"
guest=$("$VM_DIR/guest.sh" -p jitfd-guest --bin hosted)
tests=$(cargo test -p jitfd --test tools --no-run 2>&1 |
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -n "$tests" ] || die "the tests of the tools did not build" \
    "run: cargo test -p jitfd --test tools"
remove_tree "$FOLDER"
mkdir -p "$FOLDER"
cp -L "$tests" "$FOLDER/tools"
for program in gdb perf true; do
    # Not the shell's own.
    path=$(type -P "$program") || die "there is no $program" "run tests/tools.sh as root"
    cp -L "$path" "$FOLDER/$program"
done
cp -L /lib64/ld-linux-x86-64.so.2 "$FOLDER"
ldd "$FOLDER"/{tools,gdb,perf,true} 2>/dev/null |
    awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
    while read -r library; do cp -L "$library" "$FOLDER"; done
# gdb's Python does not start without the modules that it imports itself; gdb puts
# them into an archive, from which it can import.
gdb -nx -batch -ex "python
import glob, os, zipfile
home = os.path.dirname(os.__file__)
with zipfile.ZipFile('$FOLDER/python.zip', 'w') as archive:
    for pattern in '*.py', '[a-z]*/*.py':
        for path in glob.glob(pattern, root_dir=home):
            archive.write(os.path.join(home, path), path)" >"$FOLDER/gdb.log" 2>&1 ||
    say "gdb has no Python, or it can't be archived: see $FOLDER/gdb.log"
[ $# -gt 0 ] || set -- debugger:: profiler:: stepping::
FILES=$(echo "$FOLDER"/*) MEM=1536 "$TOP/target/release/vm" "$guest/hosted" \
    tools --test-threads=1 "$@"
