// SPDX-License-Identifier: MIT OR Apache-2.0

//! A look at all code that trampolines consist of, by a decoder: where it can be
//! entered, and that calls and returns are in balance.
//!
//! With shadow stacks a return must go where the last call came from; with indirect
//! branch tracking an indirect call or jump must land on `endbr64`.

use crate::kind::Kind;
use crate::register::{ContextRegister, encoded};
use crate::stub::{STUB, TRAP};
use crate::{marshal, return_body};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use jitfd::Backend;
use jitfd_code::internal::num::{to_u64, to_usize};
use std::ops::Range;

/// The instructions at these addresses, of code that is mapped.
fn decoded(code: Range<usize>) -> Vec<Instruction> {
    let start: *const u8 = std::ptr::with_exposed_provenance(code.start);
    #[expect(unsafe_code, reason = "reads code")]
    // SAFETY: the callers pass addresses of code that is never unmapped.
    let bytes = unsafe { std::slice::from_raw_parts(start, code.len()) };
    let decoder = Decoder::with_ip(64, bytes, to_u64(code.start), DecoderOptions::NONE);
    decoder.into_iter().collect()
}

fn is_call(instruction: &Instruction) -> bool {
    use FlowControl::{Call, IndirectCall};
    matches!(instruction.flow_control(), Call | IndirectCall)
}

fn is_return(instruction: &Instruction) -> bool {
    instruction.flow_control() == FlowControl::Return
}

/// The instructions of a published stub, up to its jump.
fn stub_of(kind: Kind, backend: Backend) -> Vec<Instruction> {
    let table = kind.table(backend).unwrap();
    let (target, context) = (std::ptr::null(), std::ptr::null_mut());
    #[expect(unsafe_code, reason = "a trampoline that is not called")]
    // SAFETY: nobody calls it.
    let stub = unsafe { table.take(target, context) }.unwrap();
    let start = stub.as_ptr().expose_provenance();
    assert_eq!(start % STUB, 0);
    let trap = decoded(start + TRAP..start + STUB);
    assert_eq!(trap[0].code(), Code::Endbr64);
    assert!(trap[1..].iter().all(|next| next.code() == Code::Int3));
    let mut stub = decoded(start..start + TRAP);
    let jump = stub
        .iter()
        .position(|next| next.flow_control() == FlowControl::IndirectBranch);
    let rest = stub.split_off(jump.unwrap() + 1);
    assert!(rest.iter().all(|next| next.code() == Code::Int3));
    stub
}

#[test]
fn stubs_are_entered_at_endbr64_and_neither_call_nor_return() {
    for backend in [Backend::DualMapping, Backend::ProtectFlips] {
        for context_register in ContextRegister::ALL {
            let stub = stub_of(Kind::Carrying(context_register), backend);
            let codes: Vec<_> = stub.iter().map(Instruction::code).collect();
            assert_eq!(codes, [Code::Endbr64, Code::Mov_r64_rm64, Code::Jmp_rm64]);
            assert_eq!(stub[1].op0_register(), encoded(context_register.register()));
        }
        let stub = stub_of(Kind::SaveAll, backend);
        let codes: Vec<_> = stub.iter().map(Instruction::code).collect();
        let expected = [
            Code::Endbr64,
            Code::Push_r64,
            Code::Lea_r64_m,
            Code::Jmp_rm64,
        ];
        assert_eq!(codes, expected);
        let itself = stub[2].ip_rel_memory_address();
        assert_eq!(
            (stub[2].op0_register(), itself),
            (Register::RAX, stub[0].ip())
        );
    }
}

/// Checks what holds for both bodies; returns the ways out of one: a return, or an
/// indirect jump.
fn ways_out(body: &Range<usize>) -> Vec<Code> {
    let code = decoded(body.clone());
    assert_eq!(code[0].code(), Code::Endbr64);
    assert_eq!(code.iter().filter(|next| is_call(next)).count(), 1);
    let mut ways = Vec::new();
    for (at, next) in code.iter().enumerate() {
        assert!(!next.is_invalid(), "{next}");
        match next.flow_control() {
            FlowControl::Return | FlowControl::IndirectBranch => {
                ways.push(next.code());
                // The return address was pushed by a call, not by the body.
                let before = code[at - 1].mnemonic();
                assert!(matches!(before, Mnemonic::Leave | Mnemonic::Lea));
            }
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                assert!(body.contains(&to_usize(next.near_branch_target())));
            }
            FlowControl::IndirectCall => {
                // The handler: by a pointer in memory.
                assert_eq!(next.code(), Code::Call_rm64);
            }
            other => assert_eq!(other, FlowControl::Next, "{next}"),
        }
    }
    let last = code.last().unwrap();
    assert!(is_return(last) || last.flow_control() == FlowControl::IndirectBranch);
    ways
}

#[test]
fn bodies_are_entered_at_endbr64_and_leave_as_they_were_entered() {
    assert_eq!(ways_out(&marshal::extent()), [Code::Retnq]);
    assert_eq!(
        ways_out(&return_body::extent()),
        [Code::Retnq, Code::Jmp_rm64]
    );
}
