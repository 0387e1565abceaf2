// SPDX-License-Identifier: GPL-2.0

//! Executes functions: mostly the newest ones, the moment they appear, and
//! checks that each is who it should be.

use crate::board::Board;
use crate::emit;
use crate::random::Random;
use crate::verdict;
use std::sync::atomic::Ordering;

/// Runs until the round is over.
pub fn run(base: usize, board: &Board, mut random: Random) {
    while !board.is_over() {
        some(base, board, &mut random, 256);
    }
}

/// Makes up to `count` calls.
pub fn some(base: usize, board: &Board, random: &mut Random, count: u64) {
    let mut calls = 0;
    for _ in 0..count {
        let id = choose(board, random);
        if let Some(offset) = board.find(id) {
            call(base, id, offset, random.next() as u32);
            calls += 1;
        }
    }
    board.shared().calls.fetch_add(calls, Ordering::Relaxed);
}

/// Mostly among the last few, which are being published right now.
fn choose(board: &Board, random: &mut Random) -> usize {
    let next = board.shared().next.load(Ordering::Relaxed);
    let next = next.clamp(1, board.capacity());
    if random.one_in(8) {
        return random.below(next);
    }
    (next - 1).saturating_sub(random.below(12))
}

/// Calls one function and checks its result.
pub fn call(base: usize, id: usize, offset: usize, x: u32) {
    // SAFETY: The board says that a function of this type was published at
    // this offset, and `base` is where this process maps the region.
    let function: emit::Function = unsafe { std::mem::transmute(base + offset) };
    let result = function(x);
    if result != emit::expected(id as u32, x) {
        verdict::wrong(id, offset, x, result);
    }
}
