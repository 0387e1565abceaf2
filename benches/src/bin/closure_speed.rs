// SPDX-License-Identifier: MIT OR Apache-2.0

//! What closures and return trampolines cost to make and to call.
//!
//! ```text
//! cargo run --release -p jitfd-bench --bin closure_speed
//! ```

use jitfd::{Error, Fallback, Jit, Register};
use jitfd_trampoline::{Closure, SaveAllTrampoline};
use std::hint::black_box;
use std::time::Instant;

const MILLION: usize = 1_000_000;
/// Each row is the best of so many.
const TRIES: usize = 5;

type One = extern "C" fn(u64) -> u64;
type Six = extern "C" fn(u64, u64, u64, u64, u64, u64) -> u64;

extern "C" fn plain(number: u64, context: &u64) -> u64 {
    number + *context
}

fn main() -> Result<(), Error> {
    let jit = &Jit::open(Fallback::Any)?;
    let by = black_box(2);
    println!("nanoseconds for each");
    row("make and drop, nothing captured", || {
        drop(black_box(Closure::new(jit, |number: u64| number + 1)));
    });
    row("make and drop, 8 bytes captured", || {
        drop(black_box(Closure::new(jit, move |number: u64| number + by)));
    });
    row("  plain: such a box", || {
        drop(black_box(Box::new(black_box(by))));
    });
    million(jit, by);

    row("  plain: a call with a context", || {
        let function: extern "C" fn(u64, &u64) -> u64 = black_box(plain);
        black_box(function(40, &by));
    });
    let one = Closure::new(jit, move |number: u64| number + by)?;
    // SAFETY: the closure is not dropped before the end.
    let call: One = unsafe { *one.entry() };
    row("call, one argument", || {
        black_box(black_box(call)(40));
    });
    let six = move |a: u64, _: u64, _: u64, _: u64, _: u64, _: u64| a + by;
    let six = Closure::new(jit, six)?;
    // SAFETY: as above.
    let call: Six = unsafe { *six.entry() };
    row("call, six integer arguments", || {
        black_box(black_box(call)(40, 0, 0, 0, 0, 0));
    });
    // SAFETY: it reads and returns what such a function does.
    let registers = unsafe {
        Closure::<One>::with_registers(jit, move |registers| {
            registers.returned[0] = registers.integers[0] + by;
        })
    }?;
    // SAFETY: as above.
    let call: One = unsafe { *registers.entry() };
    row("call, saved registers", || {
        black_box(black_box(call)(40));
    });
    // SAFETY: the caller expects an integer.
    let trampoline = SaveAllTrampoline::new(jit, move |saved| unsafe {
        saved.set(Register::Rax, saved.get(Register::Rdi) + by);
    })?;
    // SAFETY: what is above is such a function, and is not dropped before the end.
    let call: One = unsafe { *trampoline.entry() };
    row("call, a trampoline that saves all", || {
        black_box(black_box(call)(40));
    });
    Ok(())
}

fn million(jit: &Jit, by: u64) {
    let mut closures = Vec::with_capacity(MILLION);
    let start = Instant::now();
    closures.extend((0..MILLION).map(|_| Closure::new(jit, move |number: u64| number + by)));
    print("make a million", nanoseconds(start));
    let start = Instant::now();
    drop(closures);
    print("drop a million", nanoseconds(start));
}

fn row(name: &str, work: impl Fn()) {
    let mut best = f64::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        (0..MILLION).for_each(|_| work());
        best = best.min(nanoseconds(start));
    }
    print(name, best);
}

fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / MILLION as f64
}

fn print(name: &str, each: f64) {
    println!("{name:34} {each:8.1}");
}
