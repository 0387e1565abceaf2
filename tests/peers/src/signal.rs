// SPDX-License-Identifier: GPL-2.0

//! "Use existing kernel functionality. Raise a signal, modify the state, and
//! return from the signal": the second alternative in the mail of
//! Documentation/trampolines.rst.
//!
//! Trampolines are addresses in a mapping without permissions, [`STRIDE`] apart:
//! executing one raises SIGSEGV, whose handler finds the description by the
//! address. No page is ever allocated there, and none has to be executable. Faults
//! elsewhere get the default action.
//!
//! The handler runs on the interrupted stack: the kernel leaves the 128 bytes of
//! the red zone below the stack pointer alone, which is room for the eight values
//! that can be pushed.

use std::io;
use std::mem::zeroed;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::description::{Description, NAMES, PUSHES};
use crate::sys::{Mapping, PAGE};

/// Between two trampolines, in bytes.
pub const STRIDE: usize = 16;

const _: () = assert!(PUSHES * size_of::<u64>() <= 128, "the red zone");

/// Where a register is in `gregs`, by its number.
const PLACES: [libc::c_int; NAMES] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// All trampolines of the process.
///
/// # Invariants
///
/// `mapping` spans `slots.len() * STRIDE` bytes. A slot below `used` is set.
#[derive(Debug)]
pub struct Signals {
    mapping: Mapping,
    slots: Box<[OnceLock<Description>]>,
    used: AtomicUsize,
}

static ALL: OnceLock<Signals> = OnceLock::new();

/// One trampoline. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Signal(usize);

impl Signals {
    /// Room for `count` trampolines, and the handler. Once in a process.
    pub fn install(count: usize) -> io::Result<&'static Signals> {
        let len = (count * STRIDE).next_multiple_of(PAGE);
        let signals = Signals {
            mapping: Mapping::new(None, len, libc::PROT_NONE)?,
            slots: (0..count).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
        };
        let signals = ALL.get_or_init(|| signals);
        handle()?;
        Ok(signals)
    }

    /// The next trampoline; `None` when there is no room.
    pub fn trampoline(&self, what: Description) -> Option<Signal> {
        let index = self.used.fetch_add(1, Ordering::Relaxed);
        self.slots.get(index)?.set(what).ok()?;
        Some(Signal(self.mapping.base() + index * STRIDE))
    }

    fn find(&self, address: usize) -> Option<&Description> {
        let offset = address.checked_sub(self.mapping.base())?;
        let slot = self.slots.get(offset / STRIDE)?;
        slot.get().filter(|_| offset % STRIDE == 0)
    }
}

impl Signal {
    /// Its address.
    pub fn code(self) -> usize {
        self.0
    }
}

fn handle() -> io::Result<()> {
    // SAFETY: All zeroes is a valid action; the handler is async-signal-safe.
    let result = unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does what the trampoline at the interrupted instruction is described to do.
/// It reads what is never written again, and writes to the signal's frame and the
/// interrupted stack, so that it may interrupt anything.
extern "C" fn on_fault(number: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: The kernel passes the state that it has saved, for this call.
    let gregs = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let address = gregs[libc::REG_RIP as usize] as usize;
    let Some(what) = ALL.get().and_then(|all| all.find(address)) else {
        // SAFETY: The default action is always allowed; the fault happens again.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        return;
    };
    for (name, value) in what.registers() {
        gregs[PLACES[name] as usize] = value as i64;
    }
    let mut top = gregs[libc::REG_RSP as usize] as usize;
    for &value in what.pushes() {
        top -= size_of::<u64>();
        // SAFETY: The caller's stack, below what it uses; the red zone keeps the
        // signal's frame away. If there is no stack, this fault is the default one.
        unsafe { (top as *mut u64).write(value) };
    }
    gregs[libc::REG_RSP as usize] = top as i64;
    gregs[libc::REG_RIP as usize] = what.target() as i64;
}
