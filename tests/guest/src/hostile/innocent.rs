// SPDX-License-Identifier: GPL-2.0
//! A process of the victim that has some memory and does nothing: what the kernel
//! kills first if it does not see who took the memory.

use crate::suite::cgroup::Group;
use crate::suite::memory::Mapping;
use crate::suite::outcome::{Checked, Outcome};
use crate::suite::process::{Child, Gate, become_user};

use super::bounds::VICTIM;

/// The process.
pub struct Innocent {
    child: Child,
    go: Gate,
}

impl Innocent {
    /// One in `group` that has `len` bytes, and takes `more` when it is told to.
    pub fn start(group: &Group, len: usize, more: usize) -> Checked<Self> {
        let (ready, go) = (Gate::new()?, Gate::new()?);
        let child = Child::start(|| {
            group.enter()?;
            become_user(VICTIM)?;
            let memory = Mapping::anonymous((len + more) / crate::suite::sys::PAGE)?;
            memory.take(0, len);
            ready.open()?;
            go.wait()?;
            memory.take(len, more);
            Ok(())
        })?;
        ready.wait_for(&child)?;
        Ok(Innocent { child, go })
    }

    /// Whether nobody has killed it.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Has it take what it was to take, and waits until it has ended by itself.
    pub fn grow(self) -> Outcome {
        self.go.open()?;
        self.child.join()
    }
}
