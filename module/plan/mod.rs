// SPDX-License-Identifier: GPL-2.0

//! The pure core of jit.ko: every decision of the publish protocol, and none
//! of its actions.
//!
//! No allocation, no unsafe, no locks, no panic. The module calls these
//! functions, the host's property tests drive them, and the model checker puts
//! a model of x86 around them: one text, three users. Inside the module this is
//! a plain submodule, so it refers to itself by `super::`, never by `crate::`.
//!
//! In the order in which data flows:
//! [`abi`] (what userspace says) → [`request`] (what it means, or why it is
//! refused) → [`span`] (which bytes of which pages, in which order) →
//! [`lifecycle`] (what is done to one page) → [`stale`] (what a #BP means) →
//! [`ledger`] (when a replaced page may be freed), [`mms`] (whom a flush concerns).

#![cfg_attr(not(MODULE), no_std)]
#![cfg_attr(not(MODULE), forbid(unsafe_code))]
#![cfg_attr(not(MODULE), deny(missing_docs))]

#[path = "../uapi/abi.rs"]
pub mod abi;
pub mod ledger;
pub mod lifecycle;
pub mod mms;
pub mod refusal;
pub mod request;
pub mod span;
pub mod stale;
