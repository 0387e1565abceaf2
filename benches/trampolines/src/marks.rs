// SPDX-License-Identifier: GPL-2.0

//! What the instruction counter (`count.c`) looks for: no-operations that nothing
//! else contains.

use std::arch::asm;

macro_rules! mark {
    ($number:literal) => {
        // SAFETY: An instruction that does nothing: nop dword [rax + mark].
        unsafe {
            asm!(concat!(
                ".byte 0x0f, 0x1f, 0x80, ",
                $number,
                ", 0x50, 0x4d, 0x54"
            ))
        }
    };
}

/// Instructions are counted from here.
#[inline(always)]
pub fn begin() {
    mark!(1);
}

/// To here.
#[inline(always)]
pub fn end() {
    mark!(2);
}

/// Counting is possible from now on; what is timed comes before.
pub fn arm() {
    mark!(3);
}
