// SPDX-License-Identifier: MIT OR Apache-2.0

//! The handler of `SIGSEGV`: the program writes to code after it has asked that it be
//! writable, or executes what it had never touched, or (`--faults`) what it has asked for
//! both writable and executable. Everything else is the program's own
//! business, and its own handler's.

use core::ffi::{c_int, c_void};

use crate::page::{Cure, Fault};
use crate::shared::{self, Held};
use crate::signals;
use crate::sys::{self, Mask, PAGE};
use crate::{code, options, table};

/// `si_code`: the mapping does not permit it.
const NOT_PERMITTED: c_int = 2;
/// Bits of a page fault's error code.
const BY_WRITING: i64 = 1 << 1;
const BY_EXECUTING: i64 = 1 << 4;

/// From now on faults are handled.
pub fn handle(held: &Held) {
    signals::install(held, on_fault);
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both.
    let (code, address, machine, mask) = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        let mask = (&raw const context.uc_sigmask).cast::<Mask>().read();
        (
            (*info).si_code,
            (*info).si_addr().addr(),
            &context.uc_mcontext,
            mask,
        )
    };
    let register = |index: c_int| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        machine.gregs.get(index).copied().unwrap_or_default()
    };
    if code == NOT_PERMITTED {
        let error = register(libc::REG_ERR);
        let fault = if error & BY_EXECUTING != 0 {
            Fault::Execute
        } else if error & BY_WRITING != 0 {
            Fault::Write
        } else {
            Fault::Read
        };
        if cured(fault, address, register(libc::REG_RIP) as usize) {
            return;
        }
    }
    // SAFETY: as the kernel has called this one.
    unsafe { pass_on(signal, info, context, code, mask) };
}

/// Whether the instruction can be tried again.
fn cured(fault: Fault, address: usize, instruction: usize) -> bool {
    let page = address / PAGE;
    let held = shared::lock();
    let cure = table::get(page).fault(fault);
    if shared::writes_to_itself(page, instruction, fault) && cure == Some(Cure::Withdraw) {
        options::say_self_writing(instruction, address);
        // The instruction is tried again, and ends the process.
        signals::give_up(&held);
        return true;
    }
    let result = match cure {
        None => return false,
        Some(Cure::Publish(access)) => code::publish(&held, page..page + 1, access),
        Some(Cure::Withdraw) => code::withdraw(&held, page..page + 1),
        Some(Cure::Retry) => return !shared::is_repeated(address, instruction),
    };
    shared::add(&shared::counts().faults, 1);
    result.is_ok()
}

/// Does what would have happened without this library.
///
/// # Safety
/// The arguments are those of the kernel, and `mask` the signals that were blocked.
unsafe fn pass_on(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    code: c_int,
    mask: Mask,
) {
    let by_instruction = code > 0;
    let held = shared::lock();
    let own = signals::take_own(&held);
    match own.sa_sigaction {
        libc::SIG_IGN if !by_instruction => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The instruction is tried again, and ends the process.
            signals::give_up(&held);
            if !by_instruction {
                sys::raise(signal);
            }
        }
        handler => {
            drop(held);
            // SAFETY: the program says that this is a handler, and which signals it
            // wants blocked. Its caller's are restored when this one returns.
            unsafe {
                let more = (&raw const own.sa_mask).cast::<Mask>().read();
                let blocked = (mask | more) & !sys::bit(libc::SIGSEGV);
                sys::block(libc::SIG_SETMASK, blocked);
                let handler: signals::Handler =
                    core::mem::transmute(core::ptr::with_exposed_provenance::<()>(handler));
                handler(signal, info, context);
            }
        }
    }
}
