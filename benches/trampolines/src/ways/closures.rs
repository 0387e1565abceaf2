// SPDX-License-Identifier: GPL-2.0

//! jitfd's closures: typed, by all registers, and by a return page.

use jitfd::trampoline::{Closure, Gpr, RegisterClosure, Registers};
use jitfd::trampoline::{ReturnTrampoline, SavedRegisters};

use super::{Maker, Way, of};
use crate::calls::Callee;

struct Typed;

impl Maker for Typed {
    type Made = Closure<'static, extern "C" fn(u64) -> u64>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let closure = Closure::new(move |argument: u64| argument.wrapping_add(*number));
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn typed(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("jitfd closure", 64, true, Typed))
}

struct AllRegisters;

impl Maker for AllRegisters {
    type Made = RegisterClosure<'static>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let closure = RegisterClosure::new(move |registers: &mut Registers| {
            let argument = registers.integers()[0];
            registers.set_integer(argument.wrapping_add(*number));
        });
        closure.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn registers(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("jitfd all registers", 64, true, AllRegisters))
}

struct Returning;

impl Maker for Returning {
    type Made = ReturnTrampoline<'static>;

    fn make(&self, number: &'static u64) -> Result<Self::Made, String> {
        let made = ReturnTrampoline::new(move |saved: &mut SavedRegisters| {
            let argument = saved.get(Gpr::Rdi);
            // SAFETY: It is called as a function that returns a number.
            unsafe { saved.set(Gpr::Rax, argument.wrapping_add(*number)) };
        });
        made.map_err(|error| error.to_string())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.as_ptr().addr())
    }
}

pub fn returning(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("jitfd return page", 64, true, Returning))
}
