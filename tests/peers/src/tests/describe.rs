// SPDX-License-Identifier: GPL-2.0
//! What a description says, each way that takes one does: registers set, all others
//! kept, values pushed, the target reached.

use jitfd_peers::probe::{State, WORDS, after_call, probe, witness};
use jitfd_peers::{Description, Entry, Kernel, NAMES, PUSHES, RSP, Refused, Signals, Trampoline};

use crate::suite::harness::{self, Test};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal};
use crate::suite::sys;

/// A way to have a trampoline from a description.
#[derive(Clone, Copy, Debug)]
enum Way {
    PageFault,
    SystemCall,
    Signal,
}

const WAYS: [(Way, &str); 3] = [
    (Way::PageFault, "fault"),
    (Way::SystemCall, "call"),
    (Way::Signal, "signal"),
];

/// r11: the instruction that enters the kernel leaves the flags there.
const R11: usize = 11;

type Function = fn(Way) -> Outcome;

const TESTS: [(&str, Function); 7] = [
    ("changes_nothing_else", changes_nothing_else),
    ("sets_each_register", sets_each_register),
    ("sets_all_registers", sets_all_registers),
    ("pushes_in_order", pushes_in_order),
    (
        "pushes_to_a_page_that_is_not_there_yet",
        pushes_to_a_new_page,
    ),
    ("does_both", does_both),
    ("many_differ", many_differ),
];

pub(super) fn tests() -> Vec<Test> {
    let each = |(way, short): (Way, &str)| {
        let short = short.to_owned();
        TESTS.map(move |(name, run)| Test::new(format!("{short}::{name}"), move || run(way)))
    };
    let mut tests: Vec<Test> = WAYS.into_iter().flat_map(each).collect();
    tests.extend(harness::tests![refuses_what_cannot_be_described]);
    tests
}

fn refuses_what_cannot_be_described() -> Outcome {
    let none = Description::to(1);
    let both = none.set(3, 7).and_then(|it| it.set(3, 8));
    let registers = both.map(|both| both.registers().collect());
    equal("set twice", registers, Ok(vec![(3, 8)]))?;
    equal("rsp", none.set(RSP, 0).err(), Some(Refused::Register(RSP)))?;
    equal("r16", none.set(16, 0).err(), Some(Refused::Register(16)))?;
    let full = (0..PUSHES as u64).try_fold(none, |it, value| it.push(value));
    let full = full.ok().or_fail("as many as there is room for")?;
    equal("a push too many", full.push(8).err(), Some(Refused::Pushes))
}

/// A trampoline of any kind, as long as it is kept.
struct Made {
    code: usize,
    _kept: Option<Trampoline>,
}

/// All of one kind.
enum Maker {
    Kernel(Kernel, Entry),
    Signals(&'static Signals),
}

impl Maker {
    fn of(way: Way) -> Checked<Self> {
        let kernel = || Kernel::open().or_fail("/dev/trampfd");
        Ok(match way {
            Way::PageFault => Maker::Kernel(kernel()?, Entry::PageFault),
            Way::SystemCall => Maker::Kernel(kernel()?, Entry::SystemCall),
            Way::Signal => Maker::Signals(Signals::install(4096).or_fail("a handler")?),
        })
    }

    fn make(&self, what: Description) -> Checked<Made> {
        match self {
            Maker::Kernel(kernel, entry) => {
                let made = kernel.trampoline(&what, *entry).or_fail("a trampoline")?;
                Ok(Made {
                    code: made.code(),
                    _kept: Some(made),
                })
            }
            Maker::Signals(all) => Ok(Made {
                code: all.trampoline(what).or_fail("room")?.code(),
                _kept: None,
            }),
        }
    }
}

/// Registers and vectors that are all different.
fn start(seed: u64) -> State {
    let value = |n: usize| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n as u64 + 1) << 40;
    let mut registers = std::array::from_fn(value);
    registers[RSP] = 0;
    State {
        registers,
        vectors: std::array::from_fn(|n| value(n + NAMES)),
        stack: [0; WORDS],
    }
}

/// Calls the trampoline; it has to do what is described, and nothing else.
fn check(maker: &Maker, what: Description, from: &State) -> Outcome {
    let made = maker.make(what)?;
    let own_stack = from.registers[RSP] == 0;
    // SAFETY: The description goes to the witness; the stack is the probe's own or
    // one of the test's with room.
    let seen = unsafe { probe(made.code, from) };
    let mut wanted = *from;
    for (name, value) in what.registers() {
        wanted.registers[name] = value;
    }
    wanted.registers[RSP] = match own_stack {
        true => seen.registers[RSP],
        false => from.registers[RSP] - 8 - 8 * what.pushes().len() as u64,
    };
    let set = |wanted: usize| what.registers().any(|(name, _)| name == wanted);
    if matches!(maker, Maker::Kernel(_, Entry::SystemCall)) && !set(R11) {
        wanted.registers[R11] = seen.registers[R11];
    }
    equal("registers", seen.registers, wanted.registers)?;
    equal("vectors", seen.vectors, wanted.vectors)?;
    let mut stack: Vec<u64> = what.pushes().iter().rev().copied().collect();
    stack.push(after_call());
    equal("the stack", seen.stack[..stack.len()].to_vec(), stack)
}

fn settable() -> impl Iterator<Item = usize> {
    (0..NAMES).filter(|&name| name != RSP)
}

fn set(what: Description, name: usize, value: u64) -> Checked<Description> {
    what.set(name, value).ok().or_fail("a register")
}

fn push(what: Description, value: u64) -> Checked<Description> {
    what.push(value).ok().or_fail("a push")
}

fn changes_nothing_else(way: Way) -> Outcome {
    check(&Maker::of(way)?, Description::to(witness()), &start(1))
}

fn sets_each_register(way: Way) -> Outcome {
    let maker = Maker::of(way)?;
    for name in settable() {
        let what = set(Description::to(witness()), name, !0 - name as u64)?;
        check(&maker, what, &start(2))?;
    }
    Ok(())
}

fn all_registers(salt: u64) -> Checked<Description> {
    settable().try_fold(Description::to(witness()), |what, name| {
        set(what, name, salt << 32 | name as u64)
    })
}

fn sets_all_registers(way: Way) -> Outcome {
    check(&Maker::of(way)?, all_registers(7)?, &start(3))
}

fn pushes_in_order(way: Way) -> Outcome {
    let maker = Maker::of(way)?;
    let mut what = Description::to(witness());
    for value in 0..PUSHES as u64 {
        what = push(what, 0x1111_2222_3333_0000 + value)?;
        check(&maker, what, &start(4))?;
    }
    Ok(())
}

/// The return address, and what the code of the call saves below it, are in a page
/// that is there; the values go to the page below, which nobody has touched.
fn pushes_to_a_new_page(way: Way) -> Outcome {
    const PAGES: usize = 16;
    let maker = Maker::of(way)?;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let stack = sys::mmap(0, PAGES * 4096, sys::RW, anonymous, -1, 0).or_fail("a stack")?;
    let what = (0..PUSHES as u64).try_fold(Description::to(witness()), push)?;
    for (above, page) in [8, 16, 24].into_iter().zip((1..PAGES - 1).rev().step_by(4)) {
        let mut from = start(5);
        from.registers[RSP] = (stack + page * 4096 + above) as u64;
        check(&maker, what, &from)?;
    }
    Ok(())
}

fn does_both(way: Way) -> Outcome {
    let maker = Maker::of(way)?;
    let what = push(push(all_registers(9)?, 31)?, 32)?;
    (0..100).try_for_each(|seed| check(&maker, what, &start(seed)))
}

fn many_differ(way: Way) -> Outcome {
    let maker = Maker::of(way)?;
    let described = |n: u64| push(set(all_registers(n)?, 0, n)?, !n);
    let made: Vec<Made> = (0..1000)
        .map(|n| maker.make(described(n)?))
        .collect::<Checked<_>>()?;
    for (n, made) in made.iter().enumerate().rev() {
        // SAFETY: The description goes to the witness.
        let seen = unsafe { probe(made.code, &start(6)) };
        equal("rax", seen.registers[0], n as u64)?;
        equal("rdi", seen.registers[7], (n as u64) << 32 | 7)?;
        equal("the stack", seen.stack[0], !(n as u64))?;
    }
    Ok(())
}
