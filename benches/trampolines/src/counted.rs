// SPDX-License-Identifier: GPL-2.0

//! Work for the instruction counter: calls and creations between its marks.

use crate::calls::{self, Callee};
use crate::marks;
use crate::record::Record;
use crate::ways::{self, Place, Start, Way};

/// How often each is counted: an interrupt spoils one.
pub const TIMES: usize = 31;

/// What the marks cost alone.
const EMPTY: &str = "nothing";

/// What "making one" costs where nothing is made: to put it into the list of those
/// that are kept.
const KEEPING: (&str, &str) = ("keeping one", "call");
/// A way that makes nothing.
const FLOOR: &str = "indirect call";

/// System calls for scale: one that does nothing; one of a number that no table
/// has, so only the entry and the exit; one of an unused number, where trampfd's
/// redirection comes before the refusal.
const CALLS: [(&str, libc::c_long); 3] = [
    ("getppid", libc::SYS_getppid),
    ("no call", 1 << 20),
    ("unused call", jitfd_peers::UNUSED_CALL + 1),
];

/// A fault that the kernel serves before it looks for a mapping: `time()` in the
/// vsyscall page, which `vsyscall=xonly` has no code for. The kernel sees whose fault
/// it is, does the work, pops the return address, and leaves: of all that enters the
/// kernel by a fault, the least that there is.
const EMULATED: (&str, usize) = ("vsyscall fault", 0xffff_ffff_ff60_0400);

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
    fault(record)?;
    let contexts: &'static [u64] = Vec::leak(vec![9; TIMES + 1]);
    let nothing = Start {
        count: 0,
        place: Place::Guest,
    };
    makings(
        ways::one(FLOOR, &nothing)?.as_mut(),
        contexts,
        KEEPING,
        record,
    )?;
    for way in ways.iter_mut() {
        count(way.as_mut(), contexts, record)?;
    }
    Ok(())
}

fn fault(record: &mut Record) -> Result<(), String> {
    let (name, address) = EMULATED;
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    // Executable, but not readable: it is emulated.
    let emulated = |line: &str| line.contains(" --xp ") && line.ends_with("[vsyscall]");
    if !maps.lines().any(emulated) {
        return Err("vsyscalls are not emulated: boot with vsyscall=xonly".to_owned());
    }
    for _ in 0..TIMES {
        // SAFETY: The kernel serves it as a function of this type.
        let result = unsafe { calls::emulated(address) };
        if result <= 0 {
            return Err(format!("{name}: a wrong result"));
        }
        record.counted(name, "call");
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
    let named = (way.name(), "make");
    makings(way, contexts, named, record)?;
    way.keep(kept.len());
    Ok(())
}

fn makings(
    way: &mut dyn Way,
    contexts: &'static [u64],
    (name, kind): (&str, &str),
    record: &mut Record,
) -> Result<(), String> {
    for context in contexts.chunks(1).skip(1) {
        marks::begin();
        let made = way.make(context);
        marks::end();
        made?;
        record.counted(name, kind);
    }
    Ok(())
}
