// SPDX-License-Identifier: GPL-2.0

//! What is measured: [`Way`]s to have a trampoline to [`jitfd_peers::target`] that
//! brings a number's address along as the second argument.

mod closures;
mod embedded;
mod floor;
mod peers;
mod product;

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

type Open = fn(usize) -> Result<Box<dyn Way>, String>;

/// A way: its name, how it starts with room for a number of trampolines, and the part
/// of a crowd that it is asked to make.
struct Entry(&'static str, Open, Part);

/// One in so many; none if there is nothing to make.
type Part = Option<usize>;

/// All ways, in the order of the table.
const ALL: [Entry; 15] = [
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
    Entry("system call", peers::system_call, Some(1)),
    Entry("page fault", peers::page_fault, Some(1)),
];

/// The names of those that make something, and how many of a crowd of `count`.
pub fn crowds(count: usize) -> impl Iterator<Item = (&'static str, usize)> {
    let all = ALL.iter();
    all.filter_map(move |Entry(name, _, part)| Some((*name, count / (*part)?)))
}

/// One of them, with room for `count`.
pub fn one(name: &str, count: usize) -> Result<Box<dyn Way>, String> {
    let found = ALL.iter().find(|Entry(known, _, _)| *known == name);
    found.ok_or(format!("no way is named {name}"))?.1(count)
}

/// All of them, with room for `count`, counting those that were removed.
pub fn all(count: usize) -> Result<Vec<Box<dyn Way>>, String> {
    ALL.iter().map(|Entry(_, open, _)| open(count)).collect()
}
