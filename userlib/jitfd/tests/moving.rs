// SPDX-License-Identifier: MIT OR Apache-2.0

//! Real code, moved: every branch and every memory operand relative to `rip` goes
//! where it went, or along with its target, and everything else is as it was.

#[path = "../../code/tests/support/mod.rs"]
mod support;

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use jitfd::space::move_code;
use proptest::prelude::*;
use std::sync::OnceLock;
use support::text_of;

/// Where the code is taken to lie.
const FROM: usize = 1 << 40;

fn text() -> &'static [u8] {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    TEXT.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        text_of(&[program.to_str().unwrap()]).unwrap()
    })
}

fn decode(code: &[u8], at: usize) -> Vec<Instruction> {
    Decoder::with_ip(64, code, at as u64, DecoderOptions::NONE)
        .into_iter()
        .collect()
}

/// Whole instructions from a place that `seed` chooses.
fn piece(seed: usize, count: usize) -> Option<(usize, &'static [u8])> {
    let text = text();
    let start = seed % (text.len() - 8192);
    // Decoding falls into step with the real instructions after a few.
    let all = decode(&text[start..start + 8192], FROM + start);
    let chosen = all.get(64..64 + count)?;
    if chosen.iter().any(Instruction::is_invalid) {
        return None;
    }
    let first = usize::try_from(chosen[0].ip()).unwrap() - FROM;
    let end = usize::try_from(chosen.last()?.next_ip()).unwrap() - FROM;
    Some((FROM + first, &text[first..end]))
}

/// What one instruction does, for comparison: targets by the number of the
/// instruction that they are, if it is one of these.
fn meaning(one: &Instruction, all: &[Instruction]) -> String {
    let named = |target| match all.iter().position(|other| other.ip() == target) {
        Some(number) => format!("{:?} instruction {number}", one.mnemonic()),
        None => format!("{:?} {target:#x}", one.mnemonic()),
    };
    if one.op0_kind() == OpKind::NearBranch64 {
        return named(one.near_branch_target());
    }
    if one.is_ip_rel_memory_operand() {
        return named(one.ip_rel_memory_address());
    }
    let kinds: Vec<_> = one.op_kinds().collect();
    let registers: Vec<_> = (0..one.op_count()).map(|at| one.op_register(at)).collect();
    let memory = (
        one.memory_base(),
        one.memory_index(),
        one.memory_displacement64(),
    );
    format!("{:?} {kinds:?} {registers:?} {memory:?}", one.code())
}

fn meanings(code: &[u8], at: usize) -> Vec<String> {
    let all = decode(code, at);
    all.iter().map(|one| meaning(one, &all)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn near_moves_change_nothing_but_distances(
        seed: usize,
        count in 1_usize..200,
        distance in -(1_isize << 30)..(1 << 30),
    ) {
        let Some((from, code)) = piece(seed, count) else {
            return Ok(());
        };
        let to = from.wrapping_add_signed(distance);
        let (bytes, data) = move_code(code, from, to).unwrap();
        prop_assert!(data.is_empty());
        let (after, before) = (meanings(&bytes, to), meanings(code, from));
        prop_assert_eq!(after.len(), before.len());
        for (after, before) in after.iter().zip(&before) {
            prop_assert_eq!(after, before);
        }
    }

    /// Out of reach: targets are addresses behind the code.
    #[test]
    fn far_moves_keep_every_target(seed: usize, count in 1_usize..200) {
        let Some((from, code)) = piece(seed, count) else {
            return Ok(());
        };
        let before = decode(code, from);
        let Ok((bytes, data)) = move_code(code, from, 1 << 46) else {
            prop_assert!(before.iter().any(Instruction::is_ip_rel_memory_operand));
            return Ok(());
        };
        let end = before.last().unwrap().next_ip();
        let outside = before
            .iter()
            .filter(|one| one.op0_kind() == OpKind::NearBranch64)
            .map(Instruction::near_branch_target)
            .filter(|&to| to < from as u64 || to >= end);
        let words: Vec<_> = bytes[data]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        for target in outside {
            prop_assert!(words.contains(&target), "{target:#x} is lost");
        }
    }
}

#[test]
fn pieces_are_found() {
    let found = (0..100).filter(|seed| piece(seed * 7919, 50).is_some());
    assert!(found.count() > 80);
}
