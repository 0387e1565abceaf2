// SPDX-License-Identifier: MIT OR Apache-2.0

//! What unwind tables of many functions cost: one for all, one for each
//! publication, one for each function.
//!
//! ```text
//! cargo run --release -p jitfd-bench --bin unwind_cost -- 40000
//! ```
//!
//! The first backtrace pays for what registering has put off; the later ones show
//! what every panic or exception pays from then on.

use jitfd::Published;
use jitfd::space::SpaceOptions;
use jitfd::tools::{EhFrame, Frame, UnwindTable};
use jitfd::{Chunk, CodeSpace, Error, Fallback, Jit, Rules, validate};
use std::time::{Duration, Instant};

/// Functions of one publication.
const BATCH: usize = 1000;
const BACKTRACES: u32 = 1000;

type Caller = extern "C-unwind" fn(extern "C-unwind" fn());

fn main() -> Result<(), Error> {
    let count = std::env::args().nth(1).and_then(|word| word.parse().ok());
    let count = count.unwrap_or(40_000);
    let space = Jit::open(Fallback::Any)?.space(SpaceOptions::default())?;
    let functions = publish(&space, count)?;
    println!("{count} functions; times in microseconds");
    println!("functions a table   register   first backtrace   later ones, each   deregister");
    for each in [count, BATCH, 1] {
        measure(&space, &functions, each)?;
    }
    Ok(())
}

/// push rbp; mov rbp, rsp; call rdi; pop rbp; ret
fn calls_its_argument() -> Result<Chunk, Error> {
    let code = [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];
    Ok(validate(&code, &Rules::new())?)
}

fn publish(space: &CodeSpace, count: usize) -> Result<Vec<Published>, Error> {
    let chunk = calls_its_argument()?;
    let mut functions = Vec::new();
    while functions.len() < count {
        let batch = vec![("", &chunk); BATCH.min(count - functions.len())];
        functions.extend(space.publish_all(&batch)?);
    }
    Ok(functions)
}

/// The tables for `each` functions a table.
fn tables(functions: &[Published], each: usize) -> Vec<EhFrame> {
    let table = |functions: &[Published]| {
        let mut table = EhFrame::default();
        for function in functions {
            table
                .add(function.address, function.len, &Frame::pointer())
                .expect("memory for a table");
        }
        table
    };
    functions.chunks(each).map(table).collect()
}

fn measure(space: &CodeSpace, functions: &[Published], each: usize) -> Result<(), Error> {
    let tables = tables(functions, each);
    let start = Instant::now();
    // SAFETY: the tables describe the functions, which outlive them.
    let register = |table: EhFrame| unsafe { table.register() };
    let tables: Vec<UnwindTable> = tables.into_iter().map(register).collect();
    let registering = start.elapsed();
    let middle = functions[functions.len() / 2];
    // SAFETY: all of them are such functions.
    let caller = unsafe { space.entry::<Caller>(middle)? };
    let first = timed(|| caller(backtrace_here));
    let later = timed(|| (0..BACKTRACES).for_each(|_| caller(backtrace_here)));
    let dropping = timed(|| drop(tables));
    println!(
        "{each:17}   {:8}   {:15}   {:16.2}   {:10}",
        registering.as_micros(),
        first.as_micros(),
        later.as_secs_f64() * 1e6 / f64::from(BACKTRACES),
        dropping.as_micros(),
    );
    Ok(())
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

extern "C-unwind" fn backtrace_here() {
    let mut frames = 0;
    backtrace::trace(|_| {
        frames += 1;
        true
    });
    assert!(frames > 4, "the backtrace ended in generated code");
}
