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
//! What the model assumes of hardware, beside the architecture's promises: an
//! instruction inside one page is fetched by one translation, unless a
//! scenario says otherwise; and a CPU that sets the Accessed bit of an entry
//! caches that very entry, not one that was exchanged for it meanwhile.

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
