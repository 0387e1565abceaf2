// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is noted about a page, and what a request or a fault does to it. Nothing here
//! makes a system call.
//!
//! ```text
//!                     executable: publish
//!        Ordinary ----------------------------> Code
//!         ^    |                                | |
//!         |    | executable, never touched      | | a write where writing was
//! a way   |    v                                | | asked for: a copy
//! other   |   Idle --- executed: publish -----> | v
//!         +-- or writable, readable, none ---- Writable
//! ```
//!
//! Memory that is asked for writable *and* executable (`--faults`) is `Both`: ordinary,
//! and writable, until it is executed; then it is `Code(Both)` until it is written to.
//!
//! A code page always stays readable and executable: the kernel would not make it
//! executable again under `PR_SET_MDWE`. What the program has asked for since is noted,
//! and only a page that it does write to becomes another one.

/// What a program may do with a page, in its own eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Execute and read.
    Execute,
    /// Write, execute and read.
    Both,
    /// Write and read.
    Write,
    /// Read.
    Read,
    /// Nothing.
    Nothing,
}

/// A page, as this library knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Of no concern: ordinary memory, or none. All pages are at first.
    Ordinary,
    /// Ordinary memory that can be read; the program has made it executable, and had
    /// never touched it. It is published when it is executed.
    Idle,
    /// Code of `/dev/jit`, with what the program has asked for last.
    Code(Access),
    /// Ordinary memory that can be written to, and was code.
    Writable,
    /// Ordinary memory that can be written to; the program has asked for executing, too.
    /// It is published when it is executed.
    Both,
    /// It was changing when the process was forked: code or ordinary memory.
    Unsure,
    /// The same, where the program has asked for writing and executing.
    UnsureBoth,
}

/// What a request does to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing but a note.
    Note(Page),
    /// Ordinary memory becomes code, or idle if it was never touched.
    Publish,
    /// The kernel's `mprotect()`; then the page is ordinary.
    Protect,
    /// Code becomes ordinary memory; then as before.
    WithdrawAndProtect,
}

/// What the program did that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It executed.
    Execute,
    /// It wrote.
    Write,
    /// It read.
    Read,
}

/// What is done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// The page becomes code, of which this is noted.
    Publish(Access),
    /// The page becomes ordinary memory that can be written to.
    Withdraw,
    /// Nothing: another thread has just done it.
    Retry,
}

impl Page {
    /// As a byte; 0 is [`Page::Ordinary`].
    pub const fn to_byte(self) -> u8 {
        match self {
            Page::Ordinary => 0,
            Page::Idle => 1,
            Page::Writable => 2,
            Page::Unsure => 3,
            Page::Code(Access::Execute) => 4,
            Page::Code(Access::Write) => 5,
            Page::Code(Access::Read) => 6,
            Page::Code(Access::Nothing) => 7,
            Page::Code(Access::Both) => 8,
            Page::Both => 9,
            Page::UnsureBoth => 10,
        }
    }

    /// The page that such a byte means.
    pub const fn from_byte(byte: u8) -> Page {
        match byte {
            1 => Page::Idle,
            2 => Page::Writable,
            3 => Page::Unsure,
            4 => Page::Code(Access::Execute),
            5 => Page::Code(Access::Write),
            6 => Page::Code(Access::Read),
            7 => Page::Code(Access::Nothing),
            8 => Page::Code(Access::Both),
            9 => Page::Both,
            10 => Page::UnsureBoth,
            _ => Page::Ordinary,
        }
    }

    /// What `mprotect()` does.
    pub const fn request(self, access: Access) -> Step {
        match (self, access) {
            (Page::Code(_), Access::Nothing) => Step::WithdrawAndProtect,
            (Page::Code(_), _) => Step::Note(Page::Code(access)),
            (Page::Idle, Access::Execute) => Step::Note(Page::Idle),
            (_, Access::Execute) => Step::Publish,
            (Page::Writable | Page::Both, Access::Both) => Step::Note(Page::Both),
            (Page::Unsure | Page::UnsureBoth, _) => Step::WithdrawAndProtect,
            (Page::Ordinary | Page::Writable | Page::Both | Page::Idle, _) => Step::Protect,
        }
    }

    /// What is noted while code becomes ordinary memory.
    pub const fn changing(self) -> Page {
        match self {
            Page::Code(Access::Both) | Page::Both | Page::UnsureBoth => Page::UnsureBoth,
            _ => Page::Unsure,
        }
    }

    /// What the page is once it is ordinary memory that can be written to.
    pub const fn withdrawn(self) -> Page {
        match self.changing() {
            Page::UnsureBoth => Page::Both,
            _ => Page::Writable,
        }
    }

    /// What is done about a fault; nothing, if the program's own request forbids what it
    /// did.
    pub const fn fault(self, fault: Fault) -> Option<Cure> {
        match (self, fault) {
            (
                Page::Unsure | Page::UnsureBoth | Page::Code(Access::Write | Access::Both),
                Fault::Write,
            ) => Some(Cure::Withdraw),
            (Page::Unsure | Page::Idle, Fault::Execute) => Some(Cure::Publish(Access::Execute)),
            (Page::UnsureBoth | Page::Both, Fault::Execute) => Some(Cure::Publish(Access::Both)),
            (Page::Code(_), Fault::Execute) | (Page::Writable | Page::Both, Fault::Write) => {
                Some(Cure::Retry)
            }
            _ => None,
        }
    }
}

/// The pages of a range in parts: each the longest for which `of` is the same. A part is
/// the number of its first page, that of the first behind it, and the value.
pub fn parts<T: Copy + PartialEq>(
    pages: core::ops::Range<usize>,
    mut of: impl FnMut(usize) -> T,
) -> impl Iterator<Item = (core::ops::Range<usize>, T)> {
    let mut next = pages.start;
    let mut value = None;
    core::iter::from_fn(move || {
        if next >= pages.end {
            return None;
        }
        let first = next;
        let this = value.take().unwrap_or_else(|| of(first));
        next += 1;
        while next < pages.end {
            let other = of(next);
            if other != this {
                value = Some(other);
                break;
            }
            next += 1;
        }
        Some((first..next, this))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESSES: [Access; 5] = [
        Access::Execute,
        Access::Both,
        Access::Write,
        Access::Read,
        Access::Nothing,
    ];

    fn all() -> Vec<Page> {
        let mut pages = vec![Page::Ordinary, Page::Idle, Page::Writable, Page::Both];
        pages.extend([Page::Unsure, Page::UnsureBoth]);
        pages.extend(ACCESSES.map(Page::Code));
        pages
    }

    /// What the kernel has at a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Real {
        Memory(Access),
        Code,
    }

    /// The page and its memory after the kernel's `mprotect()`.
    fn protected(access: Access) -> (Page, Real) {
        match access {
            Access::Both => (Page::Both, Real::Memory(Access::Write)),
            _ => (Page::Ordinary, Real::Memory(access)),
        }
    }

    /// The page and its memory after a request that succeeds.
    fn after(page: Page, real: Real, access: Access, touched: bool) -> (Page, Real) {
        match page.request(access) {
            Step::Note(page) => (page, real),
            Step::Publish if touched || real == Real::Code => (Page::Code(access), Real::Code),
            Step::Publish => (Page::Idle, Real::Memory(Access::Read)),
            Step::Protect => {
                assert_ne!(
                    real,
                    Real::Code,
                    "the kernel's mprotect() on code: {page:?}"
                );
                protected(access)
            }
            Step::WithdrawAndProtect => protected(access),
        }
    }

    /// The page and its memory after an access, and whether the program may do it.
    fn used(page: Page, real: Real, fault: Fault) -> (Page, Real, bool) {
        let allowed = match (real, fault) {
            (Real::Code, Fault::Write) => false,
            (Real::Code, _) | (Real::Memory(Access::Write), Fault::Read | Fault::Write) => true,
            (Real::Memory(Access::Read), Fault::Read) => true,
            (Real::Memory(_), _) => false,
        };
        if allowed {
            return (page, real, true);
        }
        match page.fault(fault) {
            Some(Cure::Publish(access)) => (Page::Code(access), Real::Code, true),
            Some(Cure::Withdraw) => (page.withdrawn(), Real::Memory(Access::Write), true),
            Some(Cure::Retry) => {
                panic!("{page:?} is {real:?}: {fault:?} would be retried for ever")
            }
            None => (page, real, false),
        }
    }

    #[test]
    fn a_byte_is_a_page_and_0_is_an_ordinary_one() {
        for page in all() {
            assert_eq!(Page::from_byte(page.to_byte()), page);
        }
        assert_eq!(Page::from_byte(0), Page::Ordinary);
        assert_eq!(Page::from_byte(255), Page::Ordinary);
    }

    /// All sequences of six requests and uses: after each, what was asked for last can be
    /// done, memory is never writable where executing was asked for, and nothing is ever
    /// writable and executable.
    #[test]
    fn whatever_the_program_does_it_can_do_what_it_asked_for_last() {
        fn look(page: Page, real: Real, wanted: Access, depth: u32) {
            let can = |fault| used(page, real, fault).2;
            assert_eq!(
                can(Fault::Write),
                matches!(wanted, Access::Write | Access::Both),
                "{page:?} {real:?}"
            );
            if matches!(wanted, Access::Execute | Access::Both) {
                assert!(can(Fault::Execute), "{page:?} {real:?}");
            }
            if wanted == Access::Execute {
                assert_ne!(real, Real::Memory(Access::Write), "{page:?}");
            }
            if wanted != Access::Nothing {
                assert!(can(Fault::Read), "{page:?} {real:?}");
            }
            if depth == 0 {
                return;
            }
            for access in ACCESSES {
                for touched in [false, true] {
                    let (page, real) = after(page, real, access, touched);
                    look(page, real, access, depth - 1);
                }
            }
            for fault in [Fault::Execute, Fault::Write, Fault::Read] {
                let (page, real, _) = used(page, real, fault);
                if depth > 1 {
                    look(page, real, wanted, depth - 2);
                }
            }
        }
        look(
            Page::Ordinary,
            Real::Memory(Access::Write),
            Access::Write,
            6,
        );
    }

    /// A child may have either of them where its parent was at work.
    #[test]
    fn a_page_that_was_changing_is_right_either_way() {
        for real in [Real::Code, Real::Memory(Access::Write)] {
            for access in ACCESSES {
                for unsure in [Page::Unsure, Page::UnsureBoth] {
                    let (page, real) = after(unsure, real, access, true);
                    let can = |fault| used(page, real, fault).2;
                    let both = access == Access::Both;
                    assert_eq!(can(Fault::Write), both || access == Access::Write);
                    assert_eq!(can(Fault::Execute), both || access == Access::Execute);
                }
            }
            for unsure in [Page::Unsure, Page::UnsureBoth] {
                let (page, real, can) = used(unsure, real, Fault::Write);
                assert!(can && used(unsure, real, Fault::Execute).2);
                if page != unsure {
                    let again = used(page, real, Fault::Execute).2;
                    assert_eq!(again, unsure == Page::UnsureBoth);
                }
            }
        }
    }

    #[test]
    fn parts_are_the_longest() {
        let pages = [1, 1, 2, 3, 3, 3];
        let found: Vec<_> = parts(10..16, |page| pages[page - 10]).collect();
        assert_eq!(found, [(10..12, 1), (12..13, 2), (13..16, 3)]);
        assert_eq!(parts(3..3, |_| 0).count(), 0);
        let mut asked = 0;
        let _ = parts(0..6, |_| asked += 1).count();
        assert_eq!(asked, 6);
    }
}
