// SPDX-License-Identifier: GPL-2.0

//! Which address spaces have mappings of regions, so that the traps of all others
//! are passed on at once.
//!
//! Context: any. No locks.

use kernel::{
    bindings,
    sync::atomic::{Atomic, Relaxed},
};

/// A hash table of counters has so many.
pub(crate) const BUCKETS: usize = 256;

/// One of [`BUCKETS`] for an address in the kernel.
pub(crate) fn bucket<T>(of: *const T) -> usize {
    (of as usize >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56
}

/// How many mappings the address spaces of each hash value have. A #BP in a
/// process without mappings is passed on at once; a false hit costs a look.
static WATCHED: [Atomic<i32>; BUCKETS] = [const { Atomic::new(0) }; BUCKETS];

fn counter(mm: *const bindings::mm_struct) -> &'static Atomic<i32> {
    &WATCHED[bucket(mm)]
}

/// Whether `mm` may have a mapping.
pub(crate) fn is_watched(mm: *const bindings::mm_struct) -> bool {
    counter(mm).load(Relaxed) != 0
}

/// A mapping appeared in `mm`.
pub(crate) fn watch(mm: *const bindings::mm_struct) {
    counter(mm).fetch_add(1, Relaxed);
}

/// A mapping of `mm` is gone.
pub(crate) fn unwatch(mm: *const bindings::mm_struct) {
    counter(mm).fetch_sub(1, Relaxed);
}
