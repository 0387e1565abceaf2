#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Tells rust-analyzer what module/ is made of: Cargo does not build it, so an editor finds
# neither the kernel's crates nor the module's own. Writes
# target/module/rust-project.json, and prints its path; that goes into the editor's list of
# linked projects (Documentation/contributing.rst). The kernel's own generator makes most
# of it, from the stock kernel's headers and source in the cache; the first time, that
# means the set-up. Again only after an update of the kernel, or if the checkout moves.
. "$(dirname "$0")/lib.sh"

need python3 python3
ask "$VM_DIR/kernel.sh"
ask "$VM_DIR/root.sh"
ROOT=$ANSWER
ask "$VM_DIR/source.sh"
SOURCE=$ANSWER
HEADERS=$ROOT/usr/src/linux-headers-$(cat "$ROOT/opt/kernel/release")
LIBRARY=$ROOT/usr/lib/rustlib/src/rust/library
OUT=$TOP/target/module
mkdir -p "$OUT"

RUSTC=rustc python3 "$SOURCE/scripts/generate_rust_analyzer.py" \
    --cfgs='core=no_fp_fmt_parse' --cfgs='zerocopy=no_fp_fmt_parse' \
    "$(sed -n 's/^edition = "\(.*\)"/\1/p' "$LIBRARY/core/Cargo.toml")" \
    "$SOURCE" "$HEADERS" "$ROOT/usr" "$LIBRARY" "$TOP/module" >"$OUT/rust-project.part" ||
    die "the kernel's generate_rust_analyzer.py failed" "see the line above"
# The sysroot's rustc runs in the build root only, so only its sources are named. Of the
# kernel's crates the editor should know, but it should not check them.
python3 -c '
import json, sys
project = json.load(sys.stdin)
del project["sysroot"]
project["sysroot_src"] = sys.argv[1]
# A C file of the module has the name of one in Rust.
project["crates"] = [one for one in project["crates"] if one["display_name"] != "parameters"]
for crate in project["crates"]:
    crate["is_workspace_member"] = crate["display_name"] == "jit_main"
    if crate["is_workspace_member"]:
        crate["cfg"] = crate["cfg"] + ["MODULE"]
json.dump(project, sys.stdout)
' "$LIBRARY" <"$OUT/rust-project.part" >"$OUT/rust-project.json"
rm -f "$OUT/rust-project.part"
echo "$OUT/rust-project.json"
