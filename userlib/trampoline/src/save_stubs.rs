// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stubs of a table whose trampolines save all registers: each leaves its own
//! address on the stack and enters the body that they have in common.

use crate::assemble::{Assembly, quadword_at};
use crate::frame::Cover;
use crate::kind::{Kind, Stubs};
use crate::return_body::{self, CAPACITY};
use crate::stub::{SLOT, STUB, Shape, TRAP};
use iced_x86::{Code, Instruction, Register as Encoded};
use jitfd::tools::Frame;
use jitfd::{Error, Register};
use jitfd_code::Chunk;

/// Where in a stub the stack has `rax` on top of the return address.
const PUSHED: u8 = 5;
const STRIDE: u8 = 32;
const _: () = assert!(STRIDE as usize == STUB);

/// The code of a copy.
fn assemble(shape: Shape) -> Result<Chunk, Error> {
    let mut code = Assembly::new()?;
    for number in 0..shape.capacity() {
        let stub = number * STUB;
        code.pad_to(stub)?;
        code.entry()?;
        code.push(Instruction::with1(Code::Push_r64, Encoded::RAX))?;
        let itself = quadword_at(stub);
        code.push(Instruction::with2(Code::Lea_r64_m, Encoded::RAX, itself))?;
        let target_there = quadword_at(shape.slot(stub) + SLOT / 2);
        code.push(Instruction::with1(Code::Jmp_rm64, target_there))?;
        code.pad_to(stub + TRAP)?;
        code.entry()?;
    }
    code.pad_to(shape.code_len())?;
    code.finish()
}

/// The frame of the stubs, wherever one is interrupted: the return address is on top
/// of the stack, or below `rax` from the second instruction's end on.
fn frame() -> Frame {
    Frame::leaf().cfa_repeated(0, Register::Rsp, 8, STRIDE, PUSHED, 8)
}

/// The stubs of such a table. Their body can be entered from now on.
pub(crate) fn stubs(debuggers: bool) -> Result<Stubs, Error> {
    return_body::prepare();
    let shape = Shape::new(CAPACITY);
    Ok(Stubs {
        code: assemble(shape)?,
        shape,
        kind: Kind::SaveAll,
        cover: Cover {
            name: "jitfd_return_trampoline",
            frame: frame(),
            debuggers,
        },
    })
}
