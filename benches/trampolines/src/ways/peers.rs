// SPDX-License-Identifier: GPL-2.0

//! The other ways.

use jitfd_peers::target;
use jitfd_peers::{Bare, Description, Entry, Ffi, Kernel, Signal, Signals, Signature, Trampoline};

use super::{Maker, Start, Way, of};
use crate::calls::Callee;

/// The second argument's register.
const RSI: usize = 6;

fn described(context: &'static u64) -> Result<Description, String> {
    let to = Description::to(target as *const () as usize);
    let set = to.set(RSI, (&raw const *context).addr() as u64);
    set.map_err(|refused| format!("{refused:?}"))
}

struct StaticFfi(&'static Signature);

impl Maker for StaticFfi {
    type Made = Ffi<'static>;

    fn make(&self, context: &'static u64) -> Result<Self::Made, String> {
        Ffi::new(self.0, context).ok_or_else(|| "no memory".to_owned())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.code())
    }
}

pub fn ffi(_: &Start) -> Result<Box<dyn Way>, String> {
    let signature = Signature::new().ok_or("no signature")?;
    Ok(of("libffi closure", 64, true, StaticFfi(signature)))
}

struct BareFfi;

impl Maker for BareFfi {
    type Made = Bare<'static>;

    fn make(&self, context: &'static u64) -> Result<Self::Made, String> {
        Bare::new(context).ok_or_else(|| "no memory".to_owned())
    }

    fn callee(made: &Self::Made) -> Callee {
        Callee::At(made.code())
    }
}

pub fn bare(_: &Start) -> Result<Box<dyn Way>, String> {
    if !Bare::supported() {
        return Err("libffi has no static trampolines here".to_owned());
    }
    Ok(of("libffi static trampoline", 64, true, BareFfi))
}

struct Handler(&'static Signals);

impl Maker for Handler {
    type Made = Signal;

    fn make(&self, context: &'static u64) -> Result<Signal, String> {
        let made = self.0.trampoline(described(context)?);
        made.ok_or_else(|| "all addresses are used".to_owned())
    }

    fn callee(made: &Signal) -> Callee {
        Callee::At(made.code())
    }
}

pub fn signal(start: &Start) -> Result<Box<dyn Way>, String> {
    let signals = Signals::install(start.count).map_err(|error| format!("signals: {error}"))?;
    Ok(of("signal", 8, true, Handler(signals)))
}

struct InKernel(Kernel, Entry);

impl Maker for InKernel {
    type Made = Trampoline;

    fn make(&self, context: &'static u64) -> Result<Trampoline, String> {
        let made = self.0.trampoline(&described(context)?, self.1);
        made.map_err(|error| error.to_string())
    }

    fn callee(made: &Trampoline) -> Callee {
        Callee::At(made.code())
    }
}

fn kernel(name: &'static str, entry: Entry) -> Result<Box<dyn Way>, String> {
    let kernel = Kernel::open().map_err(|error| format!("/dev/trampfd: {error}"))?;
    Ok(of(name, 8, true, InKernel(kernel, entry)))
}

pub fn system_call(_: &Start) -> Result<Box<dyn Way>, String> {
    kernel("system call", Entry::SystemCall)
}

pub fn page_fault(_: &Start) -> Result<Box<dyn Way>, String> {
    kernel("page fault", Entry::PageFault)
}
