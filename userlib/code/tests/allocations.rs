// SPDX-License-Identifier: MIT OR Apache-2.0

//! Validation allocates a fixed number of times per chunk, however many
//! instructions that has. Alone in its program: the allocator counts for all.

use jitfd_code::{Class, Rules, validate};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

/// By all threads; the test harness has one of its own.
static CALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN_CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
    OWN_CALLS.set(OWN_CALLS.get() + 1);
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often this thread allocates to validate `count` times `instructions`.
fn allocations(instructions: &[u8], count: usize, options: &Rules) -> usize {
    let code = instructions.repeat(count);
    let before = OWN_CALLS.get();
    validate(&code, options).unwrap();
    OWN_CALLS.get() - before
}

/// A plain instruction, one for the full decoder, and a branch inside.
const CODE: [u8; 11] = [
    0x48, 0x89, 0xc3, 0xc5, 0xf8, 0x77, 0x75, 0xf8, 0x0f, 0x01, 0xd0,
];

/// A call that leaves any chunk.
const CALL_OUT: [u8; 5] = [0xe8, 0, 0, 0, 0x80];

#[test]
fn none_per_instruction() {
    let few = 10;
    // The full decoder makes its tables when it is first used.
    allocations(&CODE, few, &Rules::new());
    let named = || Rules::new().forbid_mnemonic("cpuid").unwrap();
    for options in [
        Rules::new(),
        Rules::new().forbid(Class::Privileged),
        Rules::new().entry(0),
        named(),
    ] {
        let base = allocations(&CODE, few, &options);
        assert!(base <= 5, "{base} allocations");
        for count in [1000, 50_000] {
            assert_eq!(allocations(&CODE, count, &options), base, "{options:?}");
        }
    }
    // Branches out of the chunk are listed; the list doubles when it is full.
    let base = allocations(&CALL_OUT, few, &Rules::new());
    let many = allocations(&CALL_OUT, few << 14, &Rules::new());
    assert!(many <= base + 14, "{many} allocations, {base} for {few}");
    // Threads cost some each, not some per instruction.
    let large = (4 << 20) / CODE.len();
    let before = CALLS.load(Ordering::Relaxed);
    allocations(&CODE, large, &Rules::new().threads(4));
    let divided = CALLS.load(Ordering::Relaxed) - before;
    assert!(divided < 200, "{divided} allocations");
}
