// SPDX-License-Identifier: MIT OR Apache-2.0

//! What closures and return trampolines cost to make and to call.
//!
//! ```text
//! cargo run --release -p jitfd-bench --bin closure_speed
//! ```

use jitfd::{Error, Fallback};
use jitfd_trampoline::{ClosureOptions, ReturnOptions};
use std::hint::black_box;
use std::time::Instant;

const MILLION: usize = 1_000_000;
/// Each row is the best of so many.
const TRIES: usize = 5;

type One = unsafe extern "C" fn(u64) -> u64;
type Six = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64) -> u64;

extern "C" fn plain(number: u64, context: &u64) -> u64 {
    number + *context
}

fn main() -> Result<(), Error> {
    let options = ClosureOptions::new().fallback(Fallback::Any);
    let returning = ReturnOptions::new().fallback(Fallback::Any);
    let by = black_box(2);
    println!("nanoseconds for each");
    row("make and drop, nothing captured", || {
        drop(black_box(options.create(|number: u64| number + 1)));
    });
    row("make and drop, 8 bytes captured", || {
        drop(black_box(options.create(move |number: u64| number + by)));
    });
    row("  plain: such a box", || {
        drop(black_box(Box::new(black_box(by))));
    });
    million(&options, by);

    row("  plain: a call with a context", || {
        let function: extern "C" fn(u64, &u64) -> u64 = black_box(plain);
        black_box(function(40, &by));
    });
    let one = options.create(move |number: u64| number + by)?;
    let one: One = one.as_fn();
    // SAFETY: the closure is not dropped before the end.
    row("call, one argument", || {
        // SAFETY: a function of this type, whose closure is there.
        let _ = black_box(unsafe { black_box(one)(40) });
    });
    let six = options.create(move |a: u64, _: u64, _: u64, _: u64, _: u64, _: u64| a + by)?;
    let call: Six = six.as_fn();
    row("call, six integer arguments", || {
        // SAFETY: the closure is there.
        black_box(unsafe { black_box(call)(40, 0, 0, 0, 0, 0) });
    });
    let registers = options.create_registers(move |registers| {
        registers.set_integer(registers.integers()[0] + by);
    })?;
    // SAFETY: what is above is such a function.
    let call: One = unsafe { registers.function()? };
    // SAFETY: the closure is there.
    row("call, saved registers", || {
        // SAFETY: a function of this type, whose closure is there.
        let _ = black_box(unsafe { black_box(call)(40) });
    });
    // SAFETY: the caller expects an integer.
    let trampoline = returning.create(move |saved| unsafe {
        use jitfd::Register;
        saved.set(Register::Rax, saved.get(Register::Rdi) + by);
    })?;
    // SAFETY: what is above is such a function.
    let call: One = unsafe { trampoline.function()? };
    // SAFETY: the trampoline is there.
    row("call, a return trampoline", || {
        // SAFETY: a function of this type, whose closure is there.
        let _ = black_box(unsafe { black_box(call)(40) });
    });
    Ok(())
}

fn million(options: &ClosureOptions<'_>, by: u64) {
    let mut closures = Vec::with_capacity(MILLION);
    let start = Instant::now();
    closures.extend((0..MILLION).map(|_| options.create(move |number: u64| number + by)));
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
