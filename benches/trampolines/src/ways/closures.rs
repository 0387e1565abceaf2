// SPDX-License-Identifier: GPL-2.0

//! jitfd's closures: typed, by the registers of arguments, and by all registers.

use jitfd::{Jit, Register};
use jitfd_trampoline::{Closure, Registers, SaveAllTrampoline, SavedRegisters};

use super::{Maker, Start, Way, of};
use crate::calls::Callee;

type Add = extern "C" fn(u64) -> u64;

struct Typed(Jit);

impl Maker for Typed {
    type Made = Closure<'static, Add>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let add = move |argument: u64| argument.wrapping_add(*number);
        let closure = Closure::new(&self.0, add);
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        // SAFETY: It is called while it is there.
        Callee::At(unsafe { *made.entry() } as usize)
    }
}

pub fn typed(start: &Start) -> Result<Box<dyn Way>, String> {
    Ok(of("jitfd closure", 64, true, Typed(start.jit()?)))
}

struct AllRegisters(Jit);

impl Maker for AllRegisters {
    type Made = Closure<'static, Add>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let add = move |registers: &mut Registers| {
            registers.returned[0] = registers.integers[0].wrapping_add(*number);
        };
        // SAFETY: It reads and returns what such a function does.
        let closure = unsafe { Closure::with_registers(&self.0, add) };
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        // SAFETY: It is called while it is there.
        Callee::At(unsafe { *made.entry() } as usize)
    }
}

pub fn registers(start: &Start) -> Result<Box<dyn Way>, String> {
    let maker = AllRegisters(start.jit()?);
    Ok(of("jitfd all registers", 64, true, maker))
}

struct Returning(Jit);

impl Maker for Returning {
    type Made = SaveAllTrampoline<'static>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let made = SaveAllTrampoline::new(&self.0, move |saved: &mut SavedRegisters| {
            let argument = saved.get(Register::Rdi);
            // SAFETY: It is called as a function that returns a number.
            unsafe { saved.set(Register::Rax, argument.wrapping_add(*number)) };
        });
        made.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.address())
    }
}

pub fn returning(start: &Start) -> Result<Box<dyn Way>, String> {
    Ok(of("jitfd return page", 64, true, Returning(start.jit()?)))
}
