// SPDX-License-Identifier: GPL-2.0
//! C++ exceptions through every kind of trampoline: thrown by C++, through Rust and
//! what the library has made, and caught by C++. The last line is
//! "suite: N passed, N failed".
//!
//! ```text
//! exceptions [--kernel]   over /dev/jit and under PR_SET_MDWE; else over the fallbacks
//! ```

use jitfd::{Backend, Error, Fallback, Jit, Register};
use jitfd_trampoline::{Closure, Registers, SaveAllTrampoline, SavedRegisters, Table};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::process::ExitCode;

type Takes = unsafe extern "C-unwind" fn(c_int);
type TakesMany = unsafe extern "C-unwind" fn(c_int, c_int, c_int, c_int, c_int, c_int, c_int, f64);

unsafe extern "C-unwind" {
    fn jitfd_test_destroyed() -> c_int;
    fn jitfd_test_throw(value: c_int);
    fn jitfd_test_throw_sum(value: c_int, context: *const c_int);
    fn jitfd_test_catch(function: Takes, value: c_int) -> c_int;
    fn jitfd_test_catch_many(function: TakesMany, value: c_int) -> c_int;
}

thread_local! {
    static DROPPED: Cell<c_int> = const { Cell::new(0) };
}

/// Is dropped where an exception passes.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

fn throw(value: c_int) {
    let _guard = Guard;
    // SAFETY: it takes any number.
    unsafe { jitfd_test_throw(value) };
}

fn caught(function: Takes, value: c_int) -> c_int {
    // SAFETY: the callers pass functions that are there.
    unsafe { jitfd_test_catch(function, value) }
}

fn caught_of_many(function: TakesMany, value: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { jitfd_test_catch_many(function, value) }
}

fn table(jit: &Jit) -> Result<bool, Error> {
    let table = Table::create(jit, Register::Rsi)?;
    let mut context: c_int = 2;
    let target = jitfd_test_throw_sum as *const c_void;
    // SAFETY: the target is called with a number, and the context is one.
    let trampoline = unsafe { table.bind(target, (&raw mut context).cast())? };
    // SAFETY: as above; the trampoline outlives the call.
    Ok(caught(unsafe { *trampoline.entry() }, 40) == 42)
}

fn closure(jit: &Jit) -> Result<bool, Error> {
    let closure = Closure::new(jit, throw)?.unwinding();
    // SAFETY: it outlives the call.
    Ok(caught(unsafe { *closure.entry() }, 42) == 42)
}

fn closure_of_many(jit: &Jit) -> Result<bool, Error> {
    let throw_first =
        |a: c_int, _: c_int, _: c_int, _: c_int, _: c_int, _: c_int, _: c_int, _: f64| throw(a);
    let closure = Closure::new(jit, throw_first)?.unwinding();
    // SAFETY: it outlives the call.
    Ok(caught_of_many(unsafe { *closure.entry() }, 42) == 42)
}

/// One of functions that take a number.
fn by_registers<'f>(
    jit: &Jit,
    function: impl Fn(&mut Registers) + Send + Sync + 'f,
) -> Result<Closure<'f, Takes>, Error> {
    type Aborting = unsafe extern "C" fn(c_int);
    // SAFETY: the callers pass closures that take a number.
    let closure = unsafe { Closure::<Aborting>::with_registers(jit, function) }?;
    Ok(closure.unwinding())
}

fn registers(jit: &Jit) -> Result<bool, Error> {
    let closure = by_registers(jit, |registers| {
        // SAFETY: it is called with a number.
        throw(unsafe { registers.argument() });
    })?;
    // SAFETY: it outlives the call.
    Ok(caught(unsafe { *closure.entry() }, 42) == 42)
}

fn first(saved: &SavedRegisters) -> c_int {
    saved.get(Register::Rdi) as c_int
}

fn save_all(jit: &Jit) -> Result<bool, Error> {
    let trampoline = SaveAllTrampoline::new(jit, |saved| throw(first(saved)))?.unwinding();
    // SAFETY: what is above takes a number, and outlives the call.
    Ok(caught(unsafe { *trampoline.entry() }, 42) == 42)
}

fn jump(jit: &Jit) -> Result<bool, Error> {
    // SAFETY: it goes to a function that takes a number.
    let trampoline = SaveAllTrampoline::new(jit, |saved| unsafe {
        let _guard = Guard;
        saved.set(Register::Rdi, saved.get(Register::Rdi) + 2);
        saved.jump(jitfd_test_throw as *const c_void);
    })?;
    let trampoline = trampoline.unwinding();
    // SAFETY: as above; it outlives the call.
    Ok(caught(unsafe { *trampoline.entry() }, 40) == 42)
}

fn all_in_one(jit: &Jit) -> Result<bool, Error> {
    let inner = SaveAllTrampoline::new(jit, |saved| throw(first(saved)))?.unwinding();
    // SAFETY: what is above takes a number, and outlives the calls.
    let inner: Takes = unsafe { *inner.entry() };
    let middle = by_registers(jit, move |registers| {
        let _guard = Guard;
        // SAFETY: it is called with a number, as the inner one.
        unsafe { inner(registers.argument()) };
    })?;
    // SAFETY: as above.
    let middle: Takes = unsafe { *middle.entry() };
    let outer = Closure::new(jit, move |value: c_int| {
        let _guard = Guard;
        // SAFETY: as above.
        unsafe { middle(value + 1) };
    })?;
    let outer = outer.unwinding();
    // SAFETY: it outlives the call.
    Ok(caught(unsafe { *outer.entry() }, 41) == 42)
}

type Test = fn(&Jit) -> Result<bool, Error>;

/// Each with how many guards of Rust an exception passes.
const TESTS: [(&str, c_int, Test); 7] = [
    ("table", 0, table),
    ("closure", 1, closure),
    ("closure_of_many", 1, closure_of_many),
    ("registers", 1, registers),
    ("save_all", 1, save_all),
    ("jump", 1, jump),
    ("all_in_one", 3, all_in_one),
];

/// Whether it has passed; says why not.
fn passes(name: &str, backend: Backend, guards: c_int, run: Test) -> bool {
    // SAFETY: it returns a number.
    let destroyed = || unsafe { jitfd_test_destroyed() };
    let before = (destroyed(), DROPPED.get());
    let result = Jit::open(Fallback::Only(backend)).and_then(|jit| run(&jit));
    let after = (destroyed() - before.0, DROPPED.get() - before.1);
    let good = result == Ok(true) && after == (2, guards);
    let word = if good { "ok" } else { "FAILED" };
    println!("{word} exceptions::{name} over {backend}");
    if !good {
        println!("  {result:?}, objects of C++ and of Rust: {after:?}");
    }
    good
}

/// Gives up the ordinary ways to make memory executable.
fn harden() -> bool {
    const PR_SET_MDWE: c_int = 65;
    const REFUSE_EXEC_GAIN: c_int = 1;
    // SAFETY: concerns later calls of this process only.
    unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) == 0 }
}

fn main() -> ExitCode {
    jitfd::set_fallback_hook(|_| {});
    let kernel = std::env::args().any(|word| word == "--kernel");
    let backends: &[Backend] = if kernel {
        &[Backend::Kernel, Backend::DualMapping]
    } else {
        &[Backend::DualMapping, Backend::ProtectFlips]
    };
    if kernel && !harden() {
        println!("PR_SET_MDWE is refused");
        return ExitCode::FAILURE;
    }
    let all = backends
        .iter()
        .flat_map(|&backend| TESTS.map(|test| (backend, test)));
    let results: Vec<bool> = all
        .map(|(backend, (name, guards, run))| passes(name, backend, guards, run))
        .collect();
    let passed = results.iter().filter(|&&good| good).count();
    let failed = results.len() - passed;
    println!("suite: {passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
