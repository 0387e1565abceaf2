// SPDX-License-Identifier: GPL-2.0

//! jitfd's own stub, linked into the program's text: what its table form would
//! cost if nothing were made at run time. The same instructions, 32 bytes apart,
//! with 16 bytes of data each.

use std::arch::global_asm;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::target;

/// How many there are.
pub const COUNT: usize = 32768;

const STRIDE: usize = 32;

global_asm!(
    ".pushsection .text.peers_stubs, \"ax\"",
    ".globl peers_stubs",
    ".p2align 12",
    "peers_stubs:",
    ".set peers_index, 0",
    ".rept {count}",
    ".p2align 5, 0xcc",
    "endbr64",
    "mov rsi, qword ptr [rip + peers_slots + 16 * peers_index]",
    "jmp qword ptr [rip + peers_slots + 16 * peers_index + 8]",
    ".set peers_index, peers_index + 1",
    ".endr",
    ".p2align 12, 0xcc",
    ".popsection",
    ".pushsection .bss.peers_slots, \"aw\", @nobits",
    ".globl peers_slots",
    ".p2align 12",
    "peers_slots:",
    ".zero 16 * {count}",
    ".popsection",
    count = const COUNT,
);

unsafe extern "C" {
    safe static peers_stubs: [u8; STRIDE * COUNT];
    safe static peers_slots: [[AtomicUsize; 2]; COUNT];
}

static USED: AtomicUsize = AtomicUsize::new(0);

/// A stub that goes to [`target`] with its number. It lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub struct Text(usize);

impl Text {
    /// The next stub; `None` when all are used.
    pub fn new(context: &'static u64) -> Option<Self> {
        let context = (&raw const *context).addr();
        Text::to(target as *const () as usize, context)
    }

    /// The next stub, to another target.
    pub fn to(target: usize, context: usize) -> Option<Self> {
        let index = USED.fetch_add(1, Ordering::Relaxed);
        let [data, to] = peers_slots.get(index)?;
        data.store(context, Ordering::Relaxed);
        to.store(target, Ordering::Relaxed);
        Some(Text((&raw const peers_stubs).addr() + index * STRIDE))
    }

    /// Its address.
    pub fn code(self) -> usize {
        self.0
    }
}
