// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `jitfd-run` asks for, by environment variables, and what is said on standard
//! error.

use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU8};

use crate::shared;
use crate::sys::{self, Errno};
use crate::text::Line;

/// The options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `JITFD_EXEC_REPORT`: count, and say so at the end.
    pub report: bool,
    /// `JITFD_EXEC_UNSHARE`: shared anonymous memory may become code of this process.
    pub unshare: bool,
    /// `JITFD_EXEC_FAULTS`: memory may be asked for writable and executable at once.
    pub faults: bool,
    /// `JITFD_EXEC_ONLY`: only some libraries may ask.
    pub only: bool,
    /// `JITFD_EXEC_STAND_IN`: a file in memory instead of `/dev/jit`.
    pub stand_in: bool,
}

const KNOWN: u8 = 1;
static BITS: AtomicU8 = AtomicU8::new(0);

fn is_set(name: &CStr) -> bool {
    // SAFETY: the name ends with a NUL. The first to ask is one of the program's first
    // calls, when no other thread is there to change the environment.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a value ends with a NUL.
    !value.is_null() && unsafe { *value } != 0
}

/// What was asked for. A program that changes its environment later changes nothing here.
pub fn get() -> Options {
    let mut bits = BITS.load(Acquire);
    if bits & KNOWN == 0 {
        let names = [
            c"JITFD_EXEC_REPORT",
            c"JITFD_EXEC_UNSHARE",
            c"JITFD_EXEC_STAND_IN",
            c"JITFD_EXEC_FAULTS",
        ];
        bits = KNOWN;
        for (name, bit) in names.into_iter().zip([2, 4, 8, 16]) {
            bits |= if is_set(name) { bit } else { 0 };
        }
        bits |= if keep_only() { 32 } else { 0 };
        BITS.store(bits, Release);
    }
    Options {
        report: bits & 2 != 0,
        unshare: bits & 4 != 0,
        faults: bits & 16 != 0,
        only: bits & 32 != 0,
        stand_in: bits & 8 != 0,
    }
}

/// Bytes that the names of libraries may have, with the one that ends them.
pub const ONLY: usize = 1024;

/// `JITFD_EXEC_ONLY`: a copy, for programs write over their environment.
static ONLY_NAMES: [AtomicU8; ONLY] = [const { AtomicU8::new(0) }; ONLY];

fn keep_only() -> bool {
    // SAFETY: as in `is_set`.
    let value = unsafe { libc::getenv(c"JITFD_EXEC_ONLY".as_ptr()) };
    if value.is_null() {
        return false;
    }
    // SAFETY: a value ends with a NUL.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    for (to, from) in ONLY_NAMES.iter().zip(value.iter().take(ONLY - 1)) {
        to.store(*from, Relaxed);
    }
    !value.is_empty()
}

/// The names of the libraries that may ask, with colons between them; none if all may.
pub fn only(room: &mut [u8; ONLY]) -> Option<&[u8]> {
    if !get().only {
        return None;
    }
    for (to, from) in room.iter_mut().zip(&ONLY_NAMES) {
        *to = from.load(Relaxed);
    }
    let end = room.iter().position(|&byte| byte == 0)?;
    room.get(..end)
}

/// Says once that a request was refused by `--only`.
pub fn say_not_named(address: usize) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        say(format_args!(
            "jitfd-run: executable memory was asked for from {address:#x}, which is in none \
             of the libraries of --only: refused"
        ));
    }
}

fn say(text: fmt::Arguments<'_>) {
    let _ = sys::write(libc::STDERR_FILENO, Line::new(text).bytes());
}

/// Says once why a publication has failed; `cause` tells it in words.
pub fn say_why(error: Errno, cause: impl FnOnce(Errno) -> &'static str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        let cause = cause(error);
        say(format_args!(
            "jitfd-run: code could not be published (errno {error}): {cause}"
        ));
    }
}

/// Says why the program is ended: code that writes to its own page.
pub fn say_self_writing(instruction: usize, address: usize) {
    say(format_args!(
        "jitfd-run: the instruction at {instruction:#x} writes to its own page ({address:#x}): \
         no memory is writable and executable at once, so the program ends"
    ));
}

/// Says what was counted, if there is something; and how many mappings are code.
pub fn report(mappings: usize) {
    let counts = shared::counts();
    let [publications, bytes, withdrawn, faults, refusals, failures] = [
        &counts.publications,
        &counts.bytes,
        &counts.withdrawn,
        &counts.faults,
        &counts.refusals,
        &counts.failures,
    ]
    .map(|counter| counter.load(Relaxed));
    if [publications, withdrawn, refusals, failures] != [0; 4] || is_first() {
        let pid = sys::getpid();
        say(format_args!(
            "jitfd-run: pid={pid} publications={publications} bytes={bytes} \
             withdrawn={withdrawn} faults={faults} refusals={refusals} failures={failures} \
             mappings={mappings}"
        ));
    }
}

/// Whether `jitfd-run` has started this process, rather than one of its own programs.
fn is_first() -> bool {
    // SAFETY: as above: the name ends with a NUL. Near its end a program has no threads
    // that change the environment; if it has, it may not call exit() either.
    let value = unsafe { libc::getenv(c"JITFD_EXEC_REPORT".as_ptr()) };
    // SAFETY: a value ends with a NUL.
    !value.is_null() && unsafe { libc::atoi(value) } == sys::getpid()
}
