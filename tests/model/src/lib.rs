// SPDX-License-Identifier: GPL-2.0

//! An exhaustive explorer of the publish protocol. The decisions are those of
//! `module/plan`, called as the module calls them; around them is a model of
//! x86 and of the parts of Linux that matter.
//!
//! In reading order: [`scenario`] (the bounds) → [`rules`] (what a mutation
//! drops) → [`memory`] and [`cpu`] (the machine) → [`tlb`] and [`state`] →
//! [`publisher`], [`swap`], [`retire`] and [`kernel`] (its steps) → [`judge`]
//! (what must never be) → [`reduce`] (what need not be told apart) → [`model`]
//! (the whole, for `stateright`) → [`cases`] (the scenarios) → [`run`].
//!
//! What the model assumes of hardware, beside the architecture's promises:
//!
//! * An instruction inside one page is fetched by one translation, unless a
//!   scenario says otherwise (`split_fetch`).
//! * "Never accessed = never cached": a CPU sets the Accessed bit of an entry
//!   before it caches it. Only Intel promises it, and not for all processors.
//!   [`scenario::Accessed`] takes it away; `tests/accessed.rs` shows what is wrong
//!   then, and that nothing is with the module's parameter `accessed_bit=0`.
//! * A CPU that sets the Accessed bit caches that very entry, not one that was
//!   exchanged for it meanwhile. Without the one before nobody needs this one.
//!
//! And of Linux: a CPU sets its bit in `mm_cpumask` and leaves lazy mode before
//! it compares generations, and flushes if they differ; an offline CPU comes back
//! with an empty TLB; munmap() flushes before a mapping is made in the same place.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod cases;
pub mod cpu;
pub mod judge;
pub mod kernel;
pub mod memory;
pub mod model;
pub mod publisher;
pub mod reduce;
pub mod retire;
pub mod rules;
pub mod run;
pub mod scenario;
pub mod state;
pub mod swap;
pub mod tlb;
