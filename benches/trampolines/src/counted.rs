// SPDX-License-Identifier: GPL-2.0

//! Work for the instruction counter: calls and creations between its marks.

use crate::calls::{self, Callee};
use crate::marks;
use crate::record::Record;
use crate::ways::Way;

/// How often each is counted: an interrupt spoils one.
pub const TIMES: usize = 31;

/// What the marks cost alone.
const EMPTY: &str = "nothing";

/// System calls for scale: one that does nothing; one of a number that no table
/// has, so only the entry and the exit; one of an unused number, where trampfd's
/// redirection comes before the refusal.
const CALLS: [(&str, libc::c_long); 3] = [
    ("getppid", libc::SYS_getppid),
    ("no call", 1 << 20),
    ("unused call", jitfd_peers::UNUSED_CALL + 1),
];

/// Counts a call and a creation of each way.
pub fn run(ways: &mut [Box<dyn Way>], record: &mut Record) -> Result<(), String> {
    marks::arm();
    // What was translated before is not counted.
    std::thread::sleep(std::time::Duration::from_millis(500));
    for _ in 0..TIMES {
        marks::begin();
        marks::end();
        record.counted(EMPTY, "call");
    }
    for (name, number) in CALLS {
        for _ in 0..TIMES {
            marks::begin();
            // SAFETY: Without arguments, these calls do nothing.
            unsafe { libc::syscall(number) };
            marks::end();
            record.counted(name, "call");
        }
    }
    let contexts: &'static [u64] = Vec::leak(vec![9; TIMES + 1]);
    for way in ways.iter_mut() {
        count(way.as_mut(), contexts, record)?;
    }
    Ok(())
}

fn count(way: &mut dyn Way, contexts: &'static [u64], record: &mut Record) -> Result<(), String> {
    let kept = way.callees();
    let last = *kept.last().ok_or("nothing was made")?;
    for _ in 0..TIMES {
        // SAFETY: Its way keeps it.
        let result = unsafe { calls::counted(last, &contexts[0]) };
        if last != Callee::Direct && result == 0 {
            return Err("a wrong result".to_owned());
        }
        record.counted(way.name(), "call");
    }
    if !way.makes() {
        return Ok(());
    }
    for context in contexts.chunks(1).skip(1) {
        marks::begin();
        let made = way.make(context);
        marks::end();
        made?;
        record.counted(way.name(), "make");
    }
    way.keep(kept.len());
    Ok(())
}
