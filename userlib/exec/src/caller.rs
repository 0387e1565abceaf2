// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--only`: who asks for executable memory, by the address to which the C library's
//! function returns.

use core::arch::asm;

use crate::{code, maps, options};

/// The caller's stack behind the return address. As the last parameter of a function of
/// the C library, of which its callers know nothing: the ABI has it there, for it is too
/// large for registers, and whatever was there before the call is in it.
#[repr(C)]
pub struct Behind([usize; 3]);

impl Behind {
    /// The address to which the function returns that has this parameter.
    pub fn return_address(&self) -> usize {
        let address;
        // SAFETY: the return address is right before the parameters that are on the stack.
        unsafe {
            asm!(
                "mov {}, qword ptr [{} - 8]",
                out(reg) address,
                in(reg) self,
                options(nostack, readonly, preserves_flags)
            );
        }
        address
    }
}

/// Whether code at this address may ask for executable memory.
pub fn may_ask(address: usize) -> bool {
    let mut room = [0; options::ONLY];
    let Some(names) = options::only(&mut room) else {
        return true;
    };
    let mut is_named = false;
    code::each_mapping(|line| {
        let is_there = maps::mapping(line)
            .is_some_and(|mapping| (mapping.start..mapping.end).contains(&address));
        if is_there {
            let path = maps::path(line);
            is_named = names
                .split(|&byte| byte == b':')
                .any(|name| maps::is_named(path, name));
        }
        !is_there
    });
    is_named
}
