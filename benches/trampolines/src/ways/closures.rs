// SPDX-License-Identifier: GPL-2.0

//! jitfd's closures: typed, by all registers, and by a return page.

use jitfd::Register;
use jitfd_trampoline::{Closure, ClosureOptions, RegisterClosure, Registers};
use jitfd_trampoline::{ReturnOptions, SaveAllTrampoline, SavedRegisters};

use super::{Maker, Start, Way, of};
use crate::calls::Callee;

struct Typed(ClosureOptions<'static>);

impl Maker for Typed {
    type Made = Closure<'static, extern "C" fn(u64) -> u64>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let add = move |argument: u64| argument.wrapping_add(*number);
        let closure = self.0.create(add);
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn typed(start: &Start) -> Result<Box<dyn Way>, String> {
    let options = ClosureOptions::new().fallback(start.fallback());
    Ok(of("jitfd closure", 64, true, Typed(options)))
}

struct AllRegisters(ClosureOptions<'static>);

impl Maker for AllRegisters {
    type Made = RegisterClosure<'static>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let closure = self.0.create_registers(move |registers: &mut Registers| {
            let argument = registers.integers()[0];
            registers.set_integer(argument.wrapping_add(*number));
        });
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn registers(start: &Start) -> Result<Box<dyn Way>, String> {
    let options = ClosureOptions::new().fallback(start.fallback());
    Ok(of("jitfd all registers", 64, true, AllRegisters(options)))
}

struct Returning(ReturnOptions<'static>);

impl Maker for Returning {
    type Made = SaveAllTrampoline<'static>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let made = self.0.create(move |saved: &mut SavedRegisters| {
            let argument = saved.get(Register::Rdi);
            // SAFETY: It is called as a function that returns a number.
            unsafe { saved.set(Register::Rax, argument.wrapping_add(*number)) };
        });
        made.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn returning(start: &Start) -> Result<Box<dyn Way>, String> {
    let options = ReturnOptions::new().fallback(start.fallback());
    Ok(of("jitfd return page", 64, true, Returning(options)))
}
