// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a trampoline of a table costs to make and to call, next to the plain way to
//! hand them out: a list of free ones under a mutex and a block of memory for each,
//! as libffi's static trampolines do it.
//!
//! ```text
//! cargo run --release -p jitfd-bench --bin trampoline_speed
//! ```

use jitfd::{Error, Fallback, Jit, Register};
use jitfd_trampoline::{Table, Trampoline};
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

const MILLION: usize = 1_000_000;
/// Each row is the best of so many.
const TRIES: usize = 5;

fn main() -> Result<(), Error> {
    let jit = Jit::open(Fallback::Any)?;
    let start = Instant::now();
    let table = Table::create(&jit, Register::Rdi)?;
    println!("a table of {}: {:?}", jit.backend(), start.elapsed());
    println!("nanoseconds for each");
    row("bind and free, one at a time", || {
        for _ in 0..MILLION {
            drop(black_box(bind(&table)));
        }
    });
    let plain = Plain::default();
    row("  plain: the same", || {
        for _ in 0..MILLION {
            plain.give(black_box(plain.take()));
        }
    });
    four_threads(&table, &plain);
    million(&table);
    million_plain();
    calls(&table)
}

extern "C" fn target(context: *mut c_void) -> usize {
    context.addr()
}

fn bind(table: &Table) -> Trampoline<'_> {
    // SAFETY: the target takes any context.
    let bound = unsafe { table.bind(target as *const c_void, null_mut()) };
    bound.unwrap_or_else(|error| panic!("{error}"))
}

/// What is done without the library: the slots of a copy that somebody has mapped.
#[derive(Default)]
struct Plain {
    free: Mutex<Vec<usize>>,
}

/// The bytes of libffi's closure, beside what describes its trampoline.
type Closure = [u64; 7];

impl Plain {
    fn take(&self) -> (usize, Box<Closure>) {
        let slot = self.free.lock().map_or(None, |mut free| free.pop());
        (slot.unwrap_or(1), Box::new([0; 7]))
    }

    fn give(&self, (slot, closure): (usize, Box<Closure>)) {
        drop(closure);
        if let Ok(mut free) = self.free.lock() {
            free.push(slot);
        }
    }
}

fn four_threads(table: &Table, plain: &Plain) {
    let together = |work: &(dyn Fn() + Sync)| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..MILLION / 4).for_each(|_| work()));
            }
        });
    };
    row("the same, by four threads", || {
        together(&|| drop(black_box(bind(table))));
    });
    row("  plain: the same", || {
        together(&|| plain.give(black_box(plain.take())));
    });
}

fn million(table: &Table) {
    let mut entries = Vec::with_capacity(MILLION);
    entries.extend((0..MILLION).map(|_| None));
    let (mut make, mut free) = (f64::MAX, f64::MAX);
    for _ in 0..TRIES {
        let start = Instant::now();
        entries
            .iter_mut()
            .for_each(|place| *place = Some(bind(table)));
        make = make.min(nanoseconds(start));
        let start = Instant::now();
        entries.iter_mut().for_each(|place| *place = None);
        free = free.min(nanoseconds(start));
    }
    print("bind a million", make);
    print("free a million", free);
}

fn million_plain() {
    let plain = Plain::default();
    let mut entries = Vec::with_capacity(MILLION);
    let (mut make, mut free) = (f64::MAX, f64::MAX);
    for _ in 0..TRIES {
        let start = Instant::now();
        entries.extend((0..MILLION).map(|_| plain.take()));
        make = make.min(nanoseconds(start));
        let start = Instant::now();
        entries.drain(..).for_each(|entry| plain.give(entry));
        free = free.min(nanoseconds(start));
    }
    print("  plain: make a million", make);
    print("  plain: free a million", free);
}

fn calls(table: &Table) -> Result<(), Error> {
    let context = without_provenance_mut(1);
    // SAFETY: the target takes any context.
    let trampoline = unsafe { table.bind(target as *const c_void, context)? };
    // SAFETY: as above.
    let through = unsafe { *trampoline.entry::<extern "C" fn() -> usize>() };
    row("a call through an entry", || {
        for _ in 0..MILLION {
            black_box(black_box(through)());
        }
    });
    row("  plain: a call of the target", || {
        for _ in 0..MILLION {
            black_box(black_box(target as extern "C" fn(_) -> _)(context));
        }
    });
    Ok(())
}

fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / MILLION as f64
}

fn row(name: &str, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        work();
        best = best.min(nanoseconds(start));
    }
    print(name, best);
}

fn print(name: &str, each: f64) {
    println!("{name:32} {each:8.1}");
}
