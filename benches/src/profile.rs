// SPDX-License-Identifier: GPL-2.0

//! Work for the instruction counter (`benches/profile/count.c`): the calls
//! between two marks are counted, instruction by instruction. What time can't
//! show on a busy host, this can.

use std::arch::asm;
use std::fs;
use std::path::Path;

use crate::error::{Result, doing};
use crate::executors::Executors;
use crate::methods::{
    self, BATCH, CLOCK, DUAL_BATCH, Dual, FLIP, FLOOR, JITFD, JITFD_BATCH, Method,
};
use crate::sys;

/// Calls before the counting begins.
const WARM: usize = 16;

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

/// Runs each section, with one executing thread.
pub fn run(functions: usize, symbols: &Path) -> Result<()> {
    fs::copy("/proc/kallsyms", symbols).map_err(doing("copy /proc/kallsyms"))?;
    sys::pin(0)?;
    let settled = Dual::settled()?;
    let rounds = functions.div_ceil(64).max(1);
    let mut methods = methods::all(rounds + 1)?;
    let executors = Executors::start(1, settled);
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
    let calls = if method.functions() == BATCH {
        functions / BATCH
    } else {
        functions
    };
    for call in 0..WARM + calls {
        method.prepare();
        catch_up();
        if call >= WARM {
            begin();
        }
        let result = method.call();
        mark!(0);
        result?;
    }
    Ok(())
}
