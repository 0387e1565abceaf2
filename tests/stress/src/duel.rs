// SPDX-License-Identifier: GPL-2.0

//! Duels: one thread publishes a function whose first instruction lies across
//! a page boundary; another already executes at its address, over and over,
//! trapping on the 0xCC that is there before. It must get in whole or not at
//! all: a trap anywhere but at the first byte, or a wrong result, is a torn
//! instruction.
//!
//! * an *append* duel is about rule R3: the page after the boundary is new, and
//!   must be there first;
//! * a *fault* duel is about rule R4: a mapping whose first fault races with a
//!   publication must not be left with the old version;
//! * a *stale* duel is about rule R6: a CPU that keeps a translation must not
//!   see the page reused;
//! * a *fill* duel is about the synchronous flush: both pages are live, and the
//!   executing CPU has the page after the boundary, with 0xCC where the rest of
//!   the instruction comes to lie, in its TLB.

use crate::emit::{self, Function};
use crate::sys;
use crate::verdict::{self, must};
use crate::wait::{spin_until, until, wait};
use jitfd::{Align, AppendHandle, Chunk, Fallback, Jit, Mapping, RegionOptions, validate};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;
/// Pages of a region, each boundary of which is one duel.
const PAGES: usize = 65;

/// What duels have seen.
#[derive(Default)]
pub struct Outcome {
    /// Duels fought.
    pub duels: u64,
    /// Traps before the function was there.
    pub early: u64,
    /// Fills that paid for a synchronous flush.
    pub straddles: u64,
}

/// What the two threads tell each other: the duel they are at, the address to
/// execute, and a function on the page after the boundary.
#[derive(Default)]
struct Arena {
    target: AtomicUsize,
    neighbour: AtomicUsize,
    number: AtomicUsize,
    /// The executing thread is at it.
    started: AtomicUsize,
    done: AtomicUsize,
}

/// A whole region of duels.
pub fn fight(fill: bool) -> Outcome {
    let options = RegionOptions {
        capacity: PAGES * PAGE,
        boundary_map: false,
        ..Default::default()
    };
    let (map, append, mapping) = must(
        Jit::open(Fallback::Never).and_then(|jit| jit.region(options)),
        "create",
    )
    .split();
    let arena = Arena::default();
    std::thread::scope(|scope| {
        scope.spawn(|| execute(&arena));
        for number in 1..PAGES {
            let host = Host {
                append: &append,
                mapping: &mapping,
                arena: &arena,
            };
            host.duel(number, fill);
        }
        arena.done.store(1, Ordering::Release);
    });
    let stats = must(map.stats(), "stats");
    Outcome {
        duels: PAGES as u64 - 1,
        early: sys::early_traps(),
        straddles: stats.straddles,
    }
}

/// One thread maps the region anew each time and calls a function on its
/// newest page; another publishes on that page at the moment of the first
/// fault. The mapping must show what was published: it hangs, or fails, if the
/// fault has installed the version from before.
pub fn fault() -> u64 {
    const ROUNDS: usize = 1500;
    let options = RegionOptions {
        capacity: PAGES * PAGE,
        boundary_map: false,
        ..Default::default()
    };
    let (map, append, _mapping) = must(
        Jit::open(Fallback::Never).and_then(|jit| jit.region(options)),
        "create",
    )
    .split();
    let len = contender(0).len();
    let append = |id: usize| {
        let code = chunk(&contender(id as u32));
        must(append.publish_all(&[&code]), "append");
    };
    append(0);
    let about_to_fault = AtomicUsize::new(0);
    let published = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 1..ROUNDS {
                let mapping = must(map.map(PAGES * PAGE, None), "map");
                about_to_fault.store(id, Ordering::Release);
                // The publication takes a while to get to the entry.
                for _ in 0..id * 37 % 4000 {
                    std::hint::spin_loop();
                }
                call(mapping.address() + (id - 1) * len, (id - 1) as u32, 3);
                wait(&published, id);
                call(mapping.address() + id * len, id as u32, 7);
            }
        });
        for id in 1..ROUNDS {
            wait(&about_to_fault, id);
            append(id);
            published.store(id, Ordering::Release);
        }
    });
    ROUNDS as u64
}

/// One thread executes one function, over and over, and does nothing else; its
/// CPU keeps the translation that it has. Another replaces the page, waits until it is
/// freed, and publishes other pages, which reuse its memory.
pub fn stale() -> u64 {
    const ROUNDS: usize = 24;
    let options = RegionOptions {
        capacity: 8 * PAGES * PAGE,
        boundary_map: false,
        ..Default::default()
    };
    let (_map, append, mapping) = must(
        Jit::open(Fallback::Never).and_then(|jit| jit.region(options)),
        "create",
    )
    .split();
    let full_page = {
        let mut code = contender(1);
        code.resize(PAGE, 0x90);
        chunk(&code).aligned(must(Align::new(PAGE), "align"))
    };
    let tail = chunk(&contender(2));
    let done = AtomicUsize::new(0);
    let victim = AtomicUsize::new(0);
    let laps = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Ordering::Relaxed) == 0 {
                let address = victim.load(Ordering::Acquire);
                for x in 0..if address == 0 { 0 } else { 1000 } {
                    call(address, 3, x);
                }
                laps.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The first of them may have begun before.
        let two_laps = || {
            let before = laps.load(Ordering::Relaxed);
            spin_until("an executor", || laps.load(Ordering::Relaxed) >= before + 2);
        };
        for _ in 0..ROUNDS {
            let code = chunk(&contender(3)).aligned(must(Align::new(PAGE), "align"));
            let at = must(append.publish_all(&[&code]), "append")[0];
            victim.store(mapping.address() + at, Ordering::Release);
            two_laps();
            must(append.publish_all(&[&tail]), "append");
            until("pages to be freed", Duration::from_millis(1), || {
                let stats = must(append.stats(), "stats");
                Some(stats.retired - stats.freed).filter(|&pages| pages != 0)
            });
            for _ in 0..8 {
                must(append.publish_all(&[&full_page]), "append");
            }
            two_laps();
        }
        done.store(1, Ordering::Relaxed);
    });
    ROUNDS as u64
}

pub fn chunk(bytes: &[u8]) -> Chunk {
    must(validate(bytes, &Default::default()), "validate").aligned(Align::NONE)
}

/// Function `id`, starting with its longest instruction, which is 10 bytes.
pub fn contender(id: u32) -> Vec<u8> {
    let mut code = vec![0x48, 0xb9]; // movabs rcx, rotated id
    code.extend(u64::from(id.rotate_left(7)).to_le_bytes());
    code.extend([0x89, 0xf8, 0x35]); // mov eax, edi; xor eax, id
    code.extend(id.to_le_bytes());
    code.extend([0x01, 0xc8, 0xc3]); // add eax, ecx; ret
    code
}

struct Host<'a> {
    append: &'a AppendHandle,
    mapping: &'a Mapping,
    arena: &'a Arena,
}

impl Host<'_> {
    fn append(&self, code: &Chunk) -> usize {
        must(self.append.publish_all(&[code]), "append")[0]
    }

    /// Sets up boundary `number`, waits for the other thread, publishes.
    fn duel(&self, number: usize, fill: bool) {
        let code = chunk(&contender(number as u32));
        // The boundary is inside the first instruction, at any of its bytes.
        let start = number * PAGE - 1 - number % 9;
        self.pad_to(start);
        let base = self.mapping.address();
        let mut neighbour = 0;
        if fill {
            let offset = must(self.append.reserve(code.len(), Align::NONE), "reserve");
            assert_eq!(offset, start);
            neighbour = base + self.append(&chunk(&contender(u32::MAX)));
        }
        sys::expect_early_traps(base + start);
        let early = sys::early_traps();
        self.arena.neighbour.store(neighbour, Ordering::Relaxed);
        self.arena.target.store(base + start, Ordering::Relaxed);
        self.arena.number.store(number, Ordering::Release);
        wait(&self.arena.started, number);
        // In each other duel, not before it has met the 0xCC.
        if number % 2 == 0 {
            spin_until("early traps", || sys::early_traps() != early);
        }
        let before = must(self.append.stats(), "stats");
        if fill {
            must(self.append.fill(start, &code), "fill");
        } else {
            assert_eq!(self.append(&code), start);
        }
        // Rule R1: the page before the boundary is live.
        let after = must(self.append.stats(), "stats");
        if after.swaps == before.swaps || after.in_place != before.in_place {
            verdict::fail(format_args!("page {} was written in place", number - 1));
        }
        // The other thread says that it is through by starting over.
        wait(&self.arena.target, 0);
    }

    /// Fills with NOPs and a function, so that the page is live.
    fn pad_to(&self, offset: usize) {
        let live = contender(0);
        let cursor = must(self.append.stats(), "stats").cursor;
        let mut code = live.clone();
        code.resize(offset - cursor, 0x90);
        let at = self.append(&chunk(&code));
        call(self.mapping.address() + at, 0, 5);
    }
}

pub fn call(address: usize, id: u32, x: u32) {
    // SAFETY: A function of this type is, or is about to be, at this address;
    // until it is, a trap is caught and the call repeated.
    let function: Function = unsafe { std::mem::transmute(address) };
    let result = function(x);
    if result != emit::expected(id, x) {
        verdict::wrong(id as usize, address, x, result);
    }
}

fn execute(arena: &Arena) {
    let mut at = 0;
    while arena.done.load(Ordering::Acquire) == 0 {
        let number = arena.number.load(Ordering::Acquire);
        if number == at {
            std::hint::spin_loop();
            continue;
        }
        at = number;
        let neighbour = arena.neighbour.load(Ordering::Relaxed);
        if neighbour != 0 {
            call(neighbour, u32::MAX, 9);
        }
        arena.started.store(number, Ordering::Release);
        let target = arena.target.load(Ordering::Relaxed);
        for x in 0..50 {
            call(target, number as u32, x);
        }
        arena.target.store(0, Ordering::Release);
    }
}
