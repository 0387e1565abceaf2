// SPDX-License-Identifier: GPL-2.0

//! Work for the instruction counter (`benches/profile/count.c`): the calls
//! between two marks are counted, instruction by instruction. What time can't
//! show on a busy host, this can.

use std::arch::asm;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{Result, doing};
use crate::executors::Executors;
use crate::methods::{self, CLOCK, DUAL_BATCH, Dual, FLIP, FLOOR, JITFD, JITFD_BATCH, Method};
use crate::sys;

/// Functions before the counting begins, and the time until the pages that they
/// replaced are ready for use: the steady state of a compiler that publishes
/// less than a few hundred functions in a timer tick.
const WARM: usize = 512;
const SETTLE: Duration = Duration::from_millis(500);

/// A mark: a no-operation that nothing else contains. `$number` starts a
/// section; 0 ends it; 255 lets the counter write what it has.
macro_rules! mark {
    ($number:literal) => {
        // SAFETY: An instruction that does nothing: nop dword [rax + mark].
        unsafe {
            asm!(concat!(
                ".byte 0x0f, 0x1f, 0x80, ",
                $number,
                ", 0x54, 0x49, 0x4a"
            ))
        }
    };
}

/// Runs each section, with `threads` executing threads.
pub fn run(functions: usize, threads: usize, symbols: &Path) -> Result<()> {
    fs::copy("/proc/kallsyms", symbols).map_err(doing("copy /proc/kallsyms"))?;
    sys::pin(0)?;
    let settled = Dual::settled()?;
    let rounds = (WARM + functions).div_ceil(64);
    let mut methods = methods::all(rounds + 1)?;
    let executors = Executors::start(threads, settled);
    for method in &mut methods {
        let window = method.window().unwrap_or(settled);
        executors.turn_to(window);
        section(method.as_mut(), functions, || executors.catch_up(window))?;
        executors.turn_to(settled);
    }
    mark!(255);
    println!("bench: ok profile functions={functions}");
    Ok(())
}

fn section(method: &mut dyn Method, functions: usize, catch_up: impl Fn()) -> Result<()> {
    let begin: fn() = match method.name() {
        CLOCK => || mark!(1),
        FLOOR => || mark!(2),
        FLIP => || mark!(3),
        DUAL_BATCH => || mark!(4),
        JITFD => || mark!(5),
        JITFD_BATCH => || mark!(6),
        _ => return Ok(()),
    };
    let each = method.functions().max(1);
    for _ in 0..WARM / each {
        method.prepare();
        catch_up();
        method.call()?;
    }
    thread::sleep(SETTLE);
    for _ in 0..functions / each {
        method.prepare();
        catch_up();
        begin();
        let result = method.call();
        mark!(0);
        result?;
    }
    Ok(())
}
