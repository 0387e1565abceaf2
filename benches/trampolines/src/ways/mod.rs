// SPDX-License-Identifier: GPL-2.0

//! What is measured: [`Way`]s to have a trampoline to [`jitfd_peers::target`] that
//! brings a number's address along as the second argument.

mod closures;
mod embedded;
mod floor;
mod peers;
mod product;

use jitfd::{Backend, Fallback, Jit};

use crate::calls::Callee;

/// A way to make trampolines.
pub trait Maker {
    /// One of them, removed when dropped.
    type Made;

    /// Makes one.
    fn make(&self, context: &'static u64) -> Result<Self::Made, String>;

    /// How it is called.
    fn callee(made: &Self::Made) -> Callee;
}

/// A [`Maker`] with what it has made. Loops are in here, so that making one is
/// never a virtual call.
pub trait Way {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Calls in a sample of warm calls: few where one is long.
    fn calls(&self) -> usize;

    /// Whether making one is work at all, and can be undone.
    fn makes(&self) -> bool;

    /// Makes one for each context, and keeps them.
    fn make(&mut self, contexts: &'static [u64]) -> Result<(), String>;

    /// Removes all but the first `kept`.
    fn keep(&mut self, kept: usize);

    /// How all of them are called.
    fn callees(&self) -> Vec<Callee>;

    /// Makes one for each context, for ever; notes where. How many, and what
    /// stopped it.
    fn crowd(&self, contexts: &'static [u64], codes: &mut [usize]) -> (usize, Option<String>);
}

struct Of<M: Maker> {
    name: &'static str,
    calls: usize,
    makes: bool,
    maker: M,
    made: Vec<M::Made>,
}

impl<M: Maker> Way for Of<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn calls(&self) -> usize {
        self.calls
    }

    fn makes(&self) -> bool {
        self.makes
    }

    #[inline(never)]
    fn make(&mut self, contexts: &'static [u64]) -> Result<(), String> {
        self.made.reserve(contexts.len());
        for context in contexts {
            self.made.push(self.maker.make(context)?);
        }
        Ok(())
    }

    fn keep(&mut self, kept: usize) {
        self.made.truncate(kept);
    }

    fn callees(&self) -> Vec<Callee> {
        self.made.iter().map(M::callee).collect()
    }

    fn crowd(&self, contexts: &'static [u64], codes: &mut [usize]) -> (usize, Option<String>) {
        for (index, (context, code)) in contexts.iter().zip(codes).enumerate() {
            match self.maker.make(context) {
                Ok(made) => {
                    *code = M::callee(&made).address();
                    std::mem::forget(made);
                }
                Err(error) => return (index, Some(error)),
            }
        }
        (contexts.len(), None)
    }
}

fn of<M: Maker + 'static>(name: &'static str, calls: usize, makes: bool, maker: M) -> Box<dyn Way> {
    Box::new(Of {
        name,
        calls,
        makes,
        maker,
        made: Vec::new(),
    })
}

/// Where all is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a guest, with `/dev/jit` and trampfd.
    Guest,
    /// On a machine as it is: jitfd over dual mapping, and nothing that is in the
    /// kernel.
    Here,
}

/// What a way starts with.
pub struct Start {
    /// Room for so many, counting those that were removed.
    pub count: usize,
    pub place: Place,
}

impl Start {
    /// What jitfd publishes with.
    fn jit(&self) -> Result<Jit, String> {
        let fallback = match self.place {
            Place::Guest => Fallback::Never,
            Place::Here => Fallback::Only(Backend::DualMapping),
        };
        Jit::open(fallback).map_err(|error| error.to_string())
    }
}

type Open = fn(&Start) -> Result<Box<dyn Way>, String>;

/// A way: its name, how it starts, and the part of a crowd that it is asked to make.
struct Entry(&'static str, Open, Part);

/// One in so many; none if there is nothing to make.
type Part = Option<usize>;

/// The ways of user code, in the order of the table.
const USER: [Entry; 13] = [
    Entry("direct call", floor::direct, None),
    Entry("indirect call", floor::indirect, None),
    Entry("stub in text", floor::text, None),
    Entry("closure in text", floor::closure, None),
    Entry("jitfd table", product::table, Some(1)),
    Entry("jitfd table of 256", product::small_table, Some(1)),
    Entry("jitfd closure", closures::typed, Some(1)),
    Entry("jitfd all registers", closures::registers, Some(1)),
    Entry("jitfd return page", closures::returning, Some(1)),
    Entry("jitfd embedded", embedded::embedded, Some(10)),
    Entry("libffi static trampoline", peers::bare, Some(1)),
    Entry("libffi closure", peers::ffi, Some(1)),
    Entry("signal", peers::signal, Some(1)),
];

/// Those of trampfd.
const KERNEL: [Entry; 2] = [
    Entry("system call", peers::system_call, Some(1)),
    Entry("page fault", peers::page_fault, Some(1)),
];

/// All that there are.
fn entries(place: Place) -> impl Iterator<Item = &'static Entry> {
    let kernel: &[Entry] = match place {
        Place::Guest => &KERNEL,
        Place::Here => &[],
    };
    USER.iter().chain(kernel)
}

/// The names of those that make something, and how many of a crowd of `count`.
pub fn crowds(place: Place, count: usize) -> impl Iterator<Item = (&'static str, usize)> {
    entries(place).filter_map(move |Entry(name, _, part)| Some((*name, count / (*part)?)))
}

/// One of them.
pub fn one(name: &str, start: &Start) -> Result<Box<dyn Way>, String> {
    let found = entries(start.place).find(|Entry(known, _, _)| *known == name);
    found.ok_or(format!("no way is named {name}"))?.1(start)
}

/// All of them.
pub fn all(start: &Start) -> Result<Vec<Box<dyn Way>>, String> {
    entries(start.place)
        .map(|Entry(_, open, _)| open(start))
        .collect()
}
