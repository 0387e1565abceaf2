// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program's own unwinder, by way of the `backtrace` crate and of panics.

use super::chain::{Chain, chain};
use super::jit;
use jitfd::Backend;
use jitfd::space::{Reloc, RelocKind, SpaceOptions, Target};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    static TRACE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

extern "C-unwind" fn trace() {
    let mut frames = Vec::new();
    backtrace::trace(|frame| {
        frames.push(frame.ip() as usize);
        true
    });
    TRACE.set(frames);
}

extern "C-unwind" fn throw() {
    // A panic that says nothing.
    resume_unwind(Box::new(42_i32));
}

/// A chain whose end calls `target`.
fn calling(backend: Backend, target: extern "C-unwind" fn()) -> Chain {
    let target = Target::Address(target as *const () as usize);
    let call = Reloc::new(5, RelocKind::Call32, target, -4);
    let space = jit(backend).space(SpaceOptions::default()).unwrap();
    chain(space, [0xe8, 0, 0, 0, 0], &[call])
}

/// The names of generated functions on the way to `trace`, and how many frames
/// come after them.
fn traced(chain: &Chain) -> (Vec<&str>, usize) {
    chain.call();
    let frames = TRACE.take();
    let names = frames
        .iter()
        .map(|ip| chain.space.lookup(ip.wrapping_sub(1)));
    let names: Vec<_> = names.collect();
    let after = names.iter().rev().take_while(|name| name.is_none()).count();
    let known = names.into_iter().flatten().map(|symbol| symbol.name);
    (known.collect(), after)
}

pub fn backtraces_go_through_generated_code(backend: Backend) {
    let chain = calling(backend, trace);
    let (before, _) = traced(&chain);
    assert_ne!(before, ["jitfd_inner", "jitfd_outer"]);
    // SAFETY: the table describes the code, which outlives it.
    let table = unsafe { chain.eh_frame().register() };
    let (names, after) = traced(&chain);
    assert_eq!(names, ["jitfd_inner", "jitfd_outer"]);
    assert!(after > 3, "the test's own callers");
    drop(table);
    assert_eq!(traced(&chain).0, before);
}

pub fn panics_pass_through_generated_code(backend: Backend) {
    let chain = calling(backend, throw);
    // SAFETY: the table describes the code, which outlives it.
    let _table = unsafe { chain.eh_frame().register() };
    let caught = catch_unwind(AssertUnwindSafe(|| chain.call()));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&42));
}

pub fn many_tables_come_and_go(backend: Backend) {
    let chains: Vec<_> = (0..50).map(|_| calling(backend, trace)).collect();
    // SAFETY: the tables describe the code, which outlives them.
    let register = |chain: &Chain| unsafe { chain.eh_frame().register() };
    let mut tables: Vec<_> = chains.iter().map(register).map(Some).collect();
    for at in [49, 0, 25, 7] {
        tables[at] = None;
    }
    for (chain, table) in chains.iter().zip(&tables) {
        let whole = traced(chain).0 == ["jitfd_inner", "jitfd_outer"];
        assert_eq!(whole, table.is_some());
    }
}
