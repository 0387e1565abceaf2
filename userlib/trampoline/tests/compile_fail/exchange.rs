// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of two calls can't be exchanged.

use jitfd_trampoline::{Registers, SavedRegisters};

fn of_arguments(inner: &mut Registers, outer: &mut Registers) {
    std::mem::swap(inner, outer);
}

fn of_all(inner: &mut SavedRegisters, outer: &mut SavedRegisters) {
    std::mem::swap(inner, outer);
}

fn main() {}
