// SPDX-License-Identifier: MIT OR Apache-2.0

//! How often publishing one chunk allocates. Alone in its program: the allocator
//! counts for all.

use jitfd::{Backend, Fallback, Jit, Rules, validate};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
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

/// The list that is returned, and what the backend needs.
#[test]
fn publishing_one_chunk_allocates_three_times_or_four() {
    let chunk = validate(&[0xc3], &Rules::new()).unwrap();
    for (backend, most) in [(Backend::DualMapping, 3), (Backend::ProtectFlips, 4)] {
        let jit = Jit::open(Fallback::Only(backend)).unwrap();
        let region = jit.region(1 << 20).unwrap();
        // The first one gets memory for the map of boundaries too.
        region.publish(&chunk).unwrap();
        let before = CALLS.get();
        region.publish(&chunk).unwrap();
        let count = CALLS.get() - before;
        assert!(count <= most, "{backend}: {count}");
    }
}
