// SPDX-License-Identifier: GPL-2.0

//! What no trampoline can be cheaper than; and jitfd's stub in the program's text, to
//! the target and to a function that calls a closure.

use std::arch::global_asm;

use jitfd_peers::{Text, target};

use super::{Maker, Start, Way, of};
use crate::calls::Callee;

struct Floor(Callee);

impl Maker for Floor {
    type Made = Callee;

    fn make(&self, _: &'static u64) -> Result<Callee, String> {
        Ok(self.0)
    }

    fn callee(made: &Callee) -> Callee {
        *made
    }
}

pub fn direct(_: &Start) -> Result<Box<dyn Way>, String> {
    Ok(of("direct call", 64, false, Floor(Callee::Direct)))
}

pub fn indirect(_: &Start) -> Result<Box<dyn Way>, String> {
    let target = Callee::At(target as *const () as usize);
    Ok(of("indirect call", 64, false, Floor(target)))
}

struct InText;

impl Maker for InText {
    type Made = Text;

    fn make(&self, context: &'static u64) -> Result<Text, String> {
        Text::new(context).ok_or_else(|| "all stubs of the text are used".to_owned())
    }

    fn callee(made: &Text) -> Callee {
        Callee::At(made.code())
    }
}

pub fn text(_: &Start) -> Result<Box<dyn Way>, String> {
    Ok(of("stub in text", 64, false, InText))
}

struct ClosureInText;

// What the compiler makes of a function that adds what a closure has captured, a
// reference to a number. Aligned, since the emulator looks a function up at each
// call if it lies on two pages.
global_asm!(
    ".pushsection .text.trampolines_captured, \"ax\"",
    ".globl trampolines_captured",
    ".type trampolines_captured, @function",
    ".p2align 6",
    "trampolines_captured:",
    "mov rax, [rsi]",
    "add rdi, [rax]",
    "mov rax, rdi",
    "ret",
    ".size trampolines_captured, . - trampolines_captured",
    ".popsection",
);

unsafe extern "C" {
    fn trampolines_captured();
}

impl Maker for ClosureInText {
    type Made = Text;

    fn make(&self, context: &'static u64) -> Result<Text, String> {
        let captured: &'static &'static u64 = Box::leak(Box::new(context));
        let target = trampolines_captured as *const () as usize;
        let made = Text::to(target, (&raw const *captured).addr());
        made.ok_or_else(|| "all stubs of the text are used".to_owned())
    }

    fn callee(made: &Text) -> Callee {
        Callee::At(made.code())
    }
}

pub fn closure(_: &Start) -> Result<Box<dyn Way>, String> {
    Ok(of("closure in text", 64, false, ClosureInText))
}
