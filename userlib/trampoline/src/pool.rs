// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all threads share of a table: its copies, and who has which slot.
//!
//! Locks: one mutex, held while slots are moved between here and a thread, a word
//! of them at a time, and while a copy is mapped. Copies are unmapped outside of
//! it. Nothing of the caller runs under it.

use crate::copy::{Copy, Stub};
use crate::frame::Cover;
use crate::slots::{Given, Slots};
use crate::stub::Shape;
use jitfd::Backend;
use jitfd::Error;
use jitfd::internal::SharedCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Pool {
    /// No other table of the process has it, ever. Not 0.
    id: u64,
    shape: Shape,
    backend: Backend,
    source: SharedCode,
    cover: Cover,
    state: Mutex<State>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) copies: usize,
    pub(crate) taken: usize,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Pool {
    /// With one copy, so that it is known now whether code can be mapped.
    pub(crate) fn new(
        backend: Backend,
        source: SharedCode,
        shape: Shape,
        cover: Cover,
    ) -> Result<Self, Error> {
        let mut state = State {
            slots: Slots::new(shape.capacity()),
            copies: Vec::new(),
        };
        state.grow(&source, shape, &cover)?;
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            shape,
            backend,
            source,
            cover,
            state: Mutex::new(state),
        })
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic comes between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> Count {
        let state = self.state();
        Count {
            copies: state.copies.iter().flatten().count(),
            taken: state.slots.taken(),
        }
    }

    /// Takes one to `most` free slots, and has each put away. Nothing is taken if
    /// it fails.
    pub(crate) fn take(&self, most: usize, put: impl FnMut(Stub)) -> Result<(), Error> {
        let mut state = self.state();
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
    }

    /// Gives slots back that were taken from here, and are cleared.
    pub(crate) fn give(&self, stubs: impl Iterator<Item = Stub>) {
        let mut emptied = Vec::new();
        let mut state = self.state();
        for stub in stubs {
            #[expect(unsafe_code, reason = "reads the number of a copy")]
            // SAFETY: the slot is taken, so its copy is mapped, by the invariant
            // of the state.
            let (copy, slot) = unsafe { stub.numbers(self.shape) };
            if state.slots.give(copy, slot) == Given::Emptied {
                emptied.extend(state.copies.get_mut(copy).and_then(Option::take));
            }
        }
        drop(state);
    }
}

impl State {
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
