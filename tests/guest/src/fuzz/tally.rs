// SPDX-License-Identifier: GPL-2.0
//! How often each call came to each result: shows what a run has covered.

use std::collections::BTreeMap;
use std::fmt;

use super::call::{Call, Look};

/// Results by the name of the call and the errno, 0 for a success.
#[derive(Default)]
pub struct Tally(BTreeMap<(&'static str, i32), u64>);

impl Tally {
    /// Counts a call.
    pub fn count(&mut self, call: &Call, errno: Option<i32>) {
        let entry = (name(call), errno.unwrap_or(0));
        *self.0.entry(entry).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for (&(name, errno), count) in &self.0 {
            if name != last {
                write!(f, "\n  {name}:")?;
                last = name;
            }
            match errno {
                0 => write!(f, " ok {count}")?,
                _ => write!(f, ", errno {errno} {count}")?,
            }
        }
        Ok(())
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Open { .. } => "open",
        Call::Duplicate { .. } => "dup",
        Call::Close { .. } => "close",
        Call::Create { .. } => "JIT_CREATE",
        Call::Clone { .. } => "JIT_CLONE",
        Call::Publish { what, .. } if what.fill => "JIT_FILL",
        Call::Publish { .. } => "JIT_APPEND",
        Call::Reserve { .. } => "JIT_RESERVE",
        Call::Seal { .. } => "JIT_SEAL",
        Call::Stats { .. } => "JIT_STATS",
        Call::Code { .. } => "JIT_CREATE_CODE",
        Call::Unknown { .. } => "unknown ioctl",
        Call::Map(_) => "mmap",
        Call::Memory { .. } => "mmap memory",
        Call::Unmap { .. } => "munmap",
        Call::Protect { .. } => "mprotect",
        Call::Remap(_) => "mremap",
        Call::Advise { .. } => "madvise",
        Call::Settle { .. } => "wait until freed",
        Call::Look(Look::Load { .. }) => "load",
        Call::Look(Look::Store { .. }) => "store",
        Call::Look(Look::Debugger { .. }) => "/proc/self/mem",
        Call::Look(Look::Run { .. }) => "execute",
        Call::Look(Look::Mappings) => "/proc/self/maps",
        Call::Look(Look::Info { .. }) => "fdinfo",
        Call::Fork { .. } => "fork",
    }
}
