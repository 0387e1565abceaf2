// SPDX-License-Identifier: GPL-2.0

//! What no trampoline can be cheaper than; and jitfd's stub in the program's text, to
//! the target and to a function that calls a closure.

use jitfd_peers::{Text, target};

use super::{Maker, Way, of};
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

pub fn direct(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("direct call", 64, false, Floor(Callee::Direct)))
}

pub fn indirect(_: usize) -> Result<Box<dyn Way>, String> {
    let target = Callee::At(target as *const () as usize);
    Ok(of("indirect call", 64, false, Floor(target)))
}

struct InText;

impl Maker for InText {
    type Made = Text;

    fn make(&self, context: &'static u64) -> Result<Text, String> {
        Text::new(context).ok_or("all stubs of the text are used".to_owned())
    }

    fn callee(made: &Text) -> Callee {
        Callee::At(made.code())
    }
}

pub fn text(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("stub in text", 64, false, InText))
}

struct ClosureInText;

/// What a typed closure's trampoline goes to, with what is captured as the context.
unsafe extern "C" fn call<F: Fn(u64) -> u64>(argument: u64, closure: *const F) -> u64 {
    // SAFETY: The context is such a closure, for ever.
    let closure = unsafe { &*closure };
    closure(argument)
}

/// A stub to [`call`] for this very closure.
fn bound<F: Fn(u64) -> u64 + 'static>(closure: F) -> Option<Text> {
    let target = call::<F> as unsafe extern "C" fn(u64, *const F) -> u64;
    let closure: &'static F = Box::leak(Box::new(closure));
    Text::to(target as usize, (&raw const *closure).addr())
}

impl Maker for ClosureInText {
    type Made = Text;

    fn make(&self, context: &'static u64) -> Result<Text, String> {
        let made = bound(move |number: u64| number.wrapping_add(*context));
        made.ok_or("all stubs of the text are used".to_owned())
    }

    fn callee(made: &Text) -> Callee {
        Callee::At(made.code())
    }
}

pub fn closure(_: usize) -> Result<Box<dyn Way>, String> {
    Ok(of("closure in text", 64, false, ClosureInText))
}
