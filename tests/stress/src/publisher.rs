// SPDX-License-Identifier: GPL-2.0

//! Publishes functions: one by one, in batches, and into reserved ranges that
//! are filled later, out of order. Announces each the moment it is published.

use crate::board::Board;
use crate::emit;
use crate::random::Random;
use crate::verdict::must;
use jitfd::{Align, AppendHandle, Chunk, validate};

/// A reserved range and the function that will fill it.
struct Slot {
    offset: usize,
    id: usize,
    code: Chunk,
}

/// Publishes until the board is full.
pub fn run(append: &AppendHandle, board: &Board, mut random: Random) {
    let mut slots = Vec::new();
    loop {
        let more = match random.below(8) {
            0 => batch(append, board, &mut random),
            1 | 2 => reserve(append, board, &mut random, &mut slots),
            _ => one(append, board, &mut random),
        };
        if slots.len() > 24 || (!more && !slots.is_empty()) {
            fill(append, board, &mut random, &mut slots);
        }
        if !more {
            break;
        }
        if random.one_in(16) {
            std::thread::yield_now();
        }
    }
}

fn code(id: usize, random: &mut Random) -> Chunk {
    let bytes = emit::function(id as u32, random);
    let code = must(validate(&bytes, &Default::default()), "validate");
    match random.below(4) {
        0 => code,
        _ => code.aligned(Align::NONE),
    }
}

fn one(append: &AppendHandle, board: &Board, random: &mut Random) -> bool {
    let Some(id) = board.take(1) else {
        return false;
    };
    let chunk = code(id, random);
    let offsets = must(append.publish_all(&[&chunk]), "append");
    announce(board, id, &offsets);
    true
}

fn batch(append: &AppendHandle, board: &Board, random: &mut Random) -> bool {
    let count = 2 + random.below(40);
    let Some(first) = board.take(count) else {
        return false;
    };
    let chunks: Vec<_> = (first..first + count).map(|id| code(id, random)).collect();
    let borrowed: Vec<_> = chunks.iter().collect();
    let offsets = must(append.publish_all(&borrowed), "append a batch");
    announce(board, first, &offsets);
    true
}

fn announce(board: &Board, first: usize, offsets: &[usize]) {
    for (id, &offset) in (first..).zip(offsets) {
        board.announce(id, offset);
    }
}

fn reserve(
    append: &AppendHandle,
    board: &Board,
    random: &mut Random,
    slots: &mut Vec<Slot>,
) -> bool {
    let Some(id) = board.take(1) else {
        return false;
    };
    let code = code(id, random);
    let offset = must(append.reserve(code.len(), Align::NONE), "reserve");
    slots.push(Slot { offset, id, code });
    true
}

fn fill(append: &AppendHandle, board: &Board, random: &mut Random, slots: &mut Vec<Slot>) {
    while !slots.is_empty() {
        let slot = slots.swap_remove(random.below(slots.len()));
        must(append.fill(slot.offset, &slot.code), "fill");
        board.announce(slot.id, slot.offset);
    }
}
