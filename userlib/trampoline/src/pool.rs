// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all threads share of a table: its copies, and who has which slot.
//!
//! Locks: one mutex, held while slots are moved between here and a thread, a word
//! of them at a time, and while a copy is mapped; inside it that of the unwinder's
//! tables (`unwind_sys.rs`). Copies are unmapped outside of it. Nothing of the caller
//! runs under it. A forked child waits for none of its parent's threads: if one of them
//! had the mutex, it has slots of its own from then on, in copies of its own.

use crate::copy::{Copy, Stub};
use crate::frame::Cover;
use crate::slots::{Given, Slots};
use crate::stub::Shape;
use jitfd::Error;
use jitfd::internal::Call;
use jitfd::internal::{ForkLock, PerProcess, SharedCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Pool {
    /// No other table of the process has it, ever. Not 0.
    id: u64,
    shape: Shape,
    source: SharedCode,
    cover: Cover,
    state: ForkLock<State>,
    /// Of a process in which that is nobody's any more.
    own: PerProcess<Mutex<State>>,
}

/// # Invariants
/// `copies` has those that `slots` knows, at their numbers; a slot that is taken is
/// in a copy that is mapped.
#[derive(Debug)]
struct State {
    slots: Slots,
    copies: Vec<Option<Copy>>,
}

/// What a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) copies: usize,
    pub(crate) taken: usize,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Pool {
    /// With one copy, so that it is known now whether code can be mapped.
    pub(crate) fn new(source: SharedCode, shape: Shape, cover: Cover) -> Result<Self, Error> {
        let mut state = State::new(shape);
        state.grow(&source, shape, &cover)?;
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            shape,
            source,
            cover,
            state: ForkLock::new(state),
            own: PerProcess::new(),
        })
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    /// Does `work` while no other thread of this process does any.
    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let failed = |error| Error::system(Call::Owner, &error);
        // Nothing that can panic comes between two changes that belong together.
        if let Some(mut state) = self.state.lock().map_err(failed)? {
            return Ok(work(&mut state));
        }
        let new = || Ok(Mutex::new(State::new(self.shape)));
        let own = self.own.get_or_make(new).map_err(failed)?;
        let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(work(&mut own))
    }

    pub(crate) fn count(&self) -> Count {
        let count = self.with_state(|state| Count {
            copies: state.copies.iter().flatten().count(),
            taken: state.slots.taken(),
        });
        // Without an answer to whose process this is nothing can be taken.
        count.unwrap_or_default()
    }

    /// Takes one to `most` free slots, and has each put away. Nothing is taken if
    /// it fails.
    pub(crate) fn take(&self, most: usize, put: impl FnMut(Stub)) -> Result<(), Error> {
        self.with_state(|state| {
            let run = match state.slots.take(most) {
                Some(run) => Some(run),
                None => {
                    state.grow(&self.source, self.shape, &self.cover)?;
                    state.slots.take(most)
                }
            };
            if let Some(run) = run {
                if let Some(Some(copy)) = state.copies.get(run.copy) {
                    run.slots().map(|slot| copy.stub(slot)).for_each(put);
                }
            }
            Ok(())
        })?
    }

    /// Gives slots back that were taken from here, and are cleared. Those of copies
    /// that only the parent's state knew are lost to a forked child.
    pub(crate) fn give(&self, stubs: impl Iterator<Item = Stub>) {
        let emptied = self.with_state(|state| {
            let mut emptied = Vec::new();
            for stub in stubs {
                #[expect(unsafe_code, reason = "reads the number of a copy")]
                // SAFETY: the slot is taken, so its copy is mapped, by the invariant
                // of the state.
                let (number, slot) = unsafe { stub.numbers(self.shape) };
                let copy = state.copies.get(number).and_then(Option::as_ref);
                let known = copy.is_some_and(|copy| copy.stub(slot) == stub);
                if known && state.slots.give(number, slot) == Given::Emptied {
                    emptied.extend(state.copies.get_mut(number).and_then(Option::take));
                }
            }
            emptied
        });
        // Unmapped when nobody is kept waiting.
        drop(emptied);
    }
}

impl State {
    fn new(shape: Shape) -> Self {
        Self {
            slots: Slots::new(shape.capacity()),
            copies: Vec::new(),
        }
    }

    fn grow(&mut self, source: &SharedCode, shape: Shape, cover: &Cover) -> Result<(), Error> {
        self.copies.try_reserve(1).map_err(|_| Error::no_memory())?;
        let copy = Copy::new(source, shape, cover, self.slots.next_copy())?;
        let number = self.slots.add().ok_or_else(Error::no_memory)?;
        match self.copies.get_mut(number) {
            Some(vacant) => *vacant = Some(copy),
            None => self.copies.push(Some(copy)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Table;
    use jitfd::{Fallback, Jit, Register};
    use std::ffi::c_void;

    /// The status of a forked child that does `work`, which must not panic. A child
    /// that hangs dies, which counts as -1.
    #[expect(unsafe_code, reason = "forks")]
    fn in_child(work: impl FnOnce() -> u8) -> i32 {
        // SAFETY: the child does `work` and ends.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0, "fork");
            if pid == 0 {
                libc::alarm(300);
                libc::_exit(work().into());
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                -1
            }
        }
    }

    extern "C" fn context(context: *mut c_void) -> usize {
        context.addr()
    }

    /// Binds more than a thread keeps, calls them, and gives them back.
    fn works(table: &Table) -> bool {
        let bound: Vec<_> = (0..200)
            .map(|number| {
                let pointer = std::ptr::without_provenance_mut(number);
                #[expect(unsafe_code, reason = "the target takes any context")]
                // SAFETY: as just said.
                unsafe {
                    table.bind(context as *const c_void, pointer).unwrap()
                }
            })
            .collect();
        bound.iter().zip(0..).all(|(trampoline, number)| {
            #[expect(unsafe_code, reason = "calls what was bound")]
            // SAFETY: it is such a function, and the trampoline is there.
            let function = unsafe { trampoline.entry::<extern "C" fn() -> usize>() };
            function() == number
        })
    }

    #[test]
    fn a_child_waits_for_no_thread_of_its_parent() {
        let jit = Jit::open(Fallback::Any).unwrap();
        let table = Table::create(&jit, Register::Rdi).unwrap();
        assert!(works(&table));
        #[expect(unsafe_code, reason = "the target takes any context")]
        // SAFETY: as just said.
        let before = unsafe { table.bind(context as *const c_void, std::ptr::null_mut()) };
        let mut before = before.ok();
        let held = table.pool().state.lock().unwrap().unwrap();
        let status = in_child(|| {
            let own = works(&table) && works(&table);
            // Of the parent's copy: it is not taken for one of the child's own.
            drop(before.take());
            table.trim();
            let count = table.pool().count();
            let grandchild = in_child(|| works(&table).into());
            u8::from(own) + 2 * u8::from(count.copies == 1) + 4 * u8::from(grandchild == 1)
        });
        drop(held);
        assert_eq!(status, 7);
        assert!(works(&table));
    }
}
