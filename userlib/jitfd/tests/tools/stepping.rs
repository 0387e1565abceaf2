// SPDX-License-Identifier: MIT OR Apache-2.0

//! gdb, in the middle of trampolines.

use crate::run::{Folder, fallback, has, skip, text, tool};
use jitfd::{Jit, Register};
use jitfd_trampoline::{Closure, SaveAllTrampoline, Table, TableOptions};
use std::ffi::c_void;
use std::sync::Arc;

/// Where gdb stops, with the address of a trampoline in `rdi`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn jitfd_test_enter(function: *const c_void) -> u64 {
    // SAFETY: the child below passes functions that take and return anything.
    let function =
        unsafe { std::mem::transmute::<*const c_void, extern "C" fn() -> u64>(function) };
    std::hint::black_box(function()) + 1
}

fn table(options: impl Into<TableOptions>) -> Arc<Table> {
    let options = TableOptions {
        debuggers: true,
        ..options.into()
    };
    Arc::new(Table::create(&Jit::open(fallback()).unwrap(), options).unwrap())
}

#[test]
#[ignore = "gdb runs it"]
fn child_enters_trampolines() {
    let plain = table(Register::Rsi);
    let closure = Closure::new(&plain, |number: u64| number).unwrap();
    // SAFETY: the closure is there during the call.
    jitfd_test_enter(unsafe { *closure.entry() } as *const c_void);
    let chains = table(Register::R10);
    // SAFETY: it takes anything.
    let closure = unsafe { Closure::<extern "C" fn()>::with_registers(&chains, |_| {}) };
    let closure = closure.unwrap();
    // SAFETY: as above.
    jitfd_test_enter(unsafe { *closure.entry() } as *const c_void);
    let save_all = table(TableOptions {
        save_all: true,
        ..Default::default()
    });
    let trampoline = SaveAllTrampoline::new(&save_all, |_| {}).unwrap();
    jitfd_test_enter(std::ptr::with_exposed_provenance(trampoline.address()));
}

/// Steps through a trampoline and twelve instructions further, or until it returns,
/// looking for the callers at each.
const SCRIPT: &str = "\
set pagination off
set debuginfod enabled off
set startup-with-shell off
set language c
break *jitfd_test_enter
run
define look
  set $stub = (unsigned long) $rdi
  while (unsigned long) $pc != $stub
    stepi
  end
  set $top = (unsigned long) $sp
  set $beyond = 0
  while $beyond < 12 && (unsigned long) $sp <= $top
    echo look:\\n
    backtrace 4
    stepi
    if (unsigned long) $pc < $stub || (unsigned long) $pc >= $stub + 32
      set $beyond = $beyond + 1
    end
  end
  echo left:\\n
  continue
end
look
look
look
";

#[test]
fn gdb_finds_the_callers_of_every_instruction() {
    if !has("gdb") {
        return;
    }
    let folder = Folder::new("stepping");
    std::fs::write(folder.path().join("script"), SCRIPT).unwrap();
    let child = "stepping::child_enters_trampolines";
    let commands = ["-nx", "-batch", "-x", "script", "--args"];
    let output = tool("gdb", &folder, &commands, Some(child));
    let text = text(&output);
    if text.contains("ptrace: Operation not permitted") {
        return skip(&format!("gdb can't run a program here: {text}"));
    }
    let kinds: Vec<_> = text.split("left:").collect();
    assert_eq!(kinds.len(), 4, "{text}");
    let names = [
        "jitfd_trampoline ",
        "jitfd_trampoline ",
        "jitfd_return_trampoline ",
    ];
    for (name, kind) in names.into_iter().zip(kinds) {
        let looks: Vec<_> = kind.split("look:").skip(1).collect();
        let inside = looks.iter().filter(|look| look.contains(name)).count();
        assert!(
            inside >= 3 && looks.len() > inside,
            "{name}: {inside} in {kind}"
        );
        for look in looks {
            let callers = look.split_once("#1 ").unwrap_or_default().1;
            assert!(callers.contains("jitfd_test_enter"), "{look}");
            assert!(callers.contains("child_enters_trampolines"), "{look}");
        }
    }
}
