// SPDX-License-Identifier: GPL-2.0

//! jitfd's embedded form: constants in code, published one by one.

use jitfd::space::{CodeSpace, SpaceOptions};
use jitfd::{Published, RegionOptions, Register, Window};
use jitfd_peers::target;
use jitfd_trampoline::Thunk;

use super::product::context;
use super::{Maker, Start, Way, of};
use crate::calls::Callee;

struct Embedded(CodeSpace);

impl Maker for Embedded {
    type Made = Published;

    fn make(&self, number: &'static u64) -> Result<Published, String> {
        let thunk = Thunk::to(target as *const () as usize);
        let thunk = thunk.set(Register::Rsi, context(number).addr() as u64);
        let function = thunk.publish(&self.0, "add");
        function.map_err(|error| error.to_string())
    }

    fn callee(made: &Published) -> Callee {
        Callee::At(made.address)
    }
}

pub fn embedded(start: &Start) -> Result<Box<dyn Way>, String> {
    let region = RegionOptions {
        window: Some(Window::reaching(target as *const () as usize)),
        ..Default::default()
    };
    let near = SpaceOptions {
        region,
        ..Default::default()
    };
    let space = start.jit()?.space(near);
    let space = space.map_err(|error| error.to_string())?;
    Ok(of("jitfd embedded", 64, true, Embedded(space)))
}
