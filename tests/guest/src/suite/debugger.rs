// SPDX-License-Identifier: GPL-2.0
//! A debugger at work while code is published: it steps through new code, sees
//! every int3 of the program, and never sees a stale trap.

use std::sync::atomic::{AtomicU64, Ordering::*};

use super::asm;
use super::execute::call;
use super::harness::{Test, tests};
use super::memory::{Mapping, debugger_view};
use super::outcome::{Checked, OrFail, Outcome, equal, failed};
use super::patience::reaches;
use super::process::Child;
use super::race::append_identity;
use super::region::Region;
use super::sys::PAGE;
use super::tracer::Traced;

pub fn tests() -> Vec<Test> {
    let limit = std::time::Duration::from_secs(90);
    tests![
        steps_through_new_code,
        steps_through_new_code_across_pages,
        steps_over_unpublished_code_to_sigbus,
        sees_published_int3,
        never_sees_a_stale_trap,
        steps_while_another_thread_publishes,
        reads_new_code_while_it_is_published,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

/// Two numbers in memory that processes share.
struct Numbers(Mapping);

impl Numbers {
    fn new() -> Checked<Self> {
        Ok(Numbers(Mapping::shared(1)?))
    }

    fn get(&self, index: usize) -> &AtomicU64 {
        let base = std::ptr::with_exposed_provenance::<AtomicU64>(self.0.addr());
        assert!(index < 8);
        // SAFETY: the mapping is zeroed, larger, and lives as long as `self`.
        unsafe { &*base.add(index) }
    }
}

/// Sends the stopped thread to `addr`.
fn go_to(traced: &Traced, addr: usize) -> Outcome {
    let mut registers = traced.registers()?;
    registers.rip = addr as u64;
    // No system call is to be restarted there.
    registers.orig_rax = u64::MAX;
    traced.set_registers(&registers)
}

/// One step that must end at `addr`.
fn step_to(traced: &Traced, addr: usize) -> Outcome {
    equal("the signal of a step", traced.step(0)?, libc::SIGTRAP)?;
    equal("where a step ends", traced.registers()?.rip as usize, addr)
}

/// Lets the child execute the function at `addr`, step by step.
fn step_through_answer(traced: &Traced, addr: usize, value: u32) -> Outcome {
    go_to(traced, addr)?;
    step_to(traced, addr + 5)?;
    equal("eax", traced.registers()?.rax, u64::from(value))
}

fn steps_through_new_code() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(0))?;
    let (child, traced) = Traced::idle_child()?;
    for value in 0..300 {
        let offset = region.append(&asm::answer(value))?;
        step_through_answer(&traced, region.at(offset), value)?;
    }
    traced.detach()?;
    child.end()
}

fn steps_through_new_code_across_pages() -> Outcome {
    let region = Region::new(8)?;
    let (child, traced) = Traced::idle_child()?;
    for page in 1..7u64 {
        region.skip_to(page * PAGE as u64 - page % 5 - 7)?;
        let before = region.append(&asm::answer(1))?;
        step_through_answer(&traced, region.at(before), 1)?;
        let across = region.append(&asm::answer(2))?;
        step_through_answer(&traced, region.at(across), 2)?;
        step_through_answer(&traced, region.at(before), 1)?;
    }
    traced.detach()?;
    child.end()
}

fn steps_over_unpublished_code_to_sigbus() -> Outcome {
    let region = Region::new(2)?;
    region.append(&vec![0x90; PAGE])?;
    let (child, traced) = Traced::idle_child()?;
    let end = region.at(PAGE as u64);
    go_to(&traced, end - 1)?;
    step_to(&traced, end)?;
    equal("the signal", traced.step(0)?, libc::SIGBUS)?;
    region.append(&asm::answer(3))?;
    step_to(&traced, end + 5)?;
    equal("eax", traced.registers()?.rax, 3)?;
    traced.detach()?;
    child.end()
}

fn sees_published_int3() -> Outcome {
    let region = Region::new(2)?;
    let (child, traced) = Traced::idle_child()?;
    for value in 0..100 {
        let offset = region.append(&asm::breakpoint_then(value))?;
        let addr = region.at(offset);
        go_to(&traced, addr)?;
        traced.go_on(0)?;
        let status = traced.wait()?;
        let stop = libc::WIFSTOPPED(status).then(|| libc::WSTOPSIG(status));
        equal("the stop", stop, Some(libc::SIGTRAP))?;
        equal("its place", traced.registers()?.rip as usize, addr + 1)?;
        step_to(&traced, addr + 6)?;
        equal("eax", traced.registers()?.rax, u64::from(value))?;
    }
    traced.detach()?;
    child.end()
}

/// Index of the newest function, plus one, and of what the child has run.
const NEWEST: usize = 0;
const DONE: usize = 1;
const WRONG: usize = 2;

/// In the child: runs each function that is announced, and the newest again
/// meanwhile, until the number is `u64::MAX`.
fn run_announced(numbers: &Numbers, base: usize) -> Outcome {
    loop {
        let newest = numbers.get(NEWEST).load(Acquire);
        if newest == u64::MAX {
            return equal("wrong results", numbers.get(WRONG).load(Relaxed), 0);
        }
        if newest != 0 {
            let offset = newest - 1;
            if call(base + offset as usize) != offset {
                numbers.get(WRONG).fetch_add(1, Relaxed);
            }
            numbers.get(DONE).store(newest, Release);
        }
    }
}

/// Appends a function that returns its offset, and announces it.
fn announce(region: &Region, numbers: &Numbers) -> Checked<u64> {
    let at = append_identity(region)?;
    numbers.get(NEWEST).store(at + 1, Release);
    Ok(at + 1)
}

/// A debugger that only waits: every stop of the child is one too many.
fn never_sees_a_stale_trap() -> Outcome {
    let region = Region::new(8)?;
    let numbers = Numbers::new()?;
    let child = Child::start(|| run_announced(&numbers, region.at(0)))?;
    let traced = Traced::attach(child.pid())?;
    traced.go_on(0)?;
    for _ in 0..1500 {
        let number = announce(&region, &numbers)?;
        while numbers.get(DONE).load(Acquire) != number {
            if let Some(status) = traced.state_now()? {
                return failed(format!("the child stopped or ended: {status:#x}"));
            }
        }
    }
    numbers.get(NEWEST).store(u64::MAX, Release);
    let status = traced.wait()?;
    equal("the child's end", status, 0)
}

/// The child publishes in one thread and executes in another; the other is
/// stepped.
fn steps_while_another_thread_publishes() -> Outcome {
    let numbers = Numbers::new()?;
    const TID: usize = 3;
    const STEPS: usize = 4;
    let child = Child::start(|| {
        let region = Region::new(8)?;
        std::thread::scope(|scope| {
            let runner = scope.spawn(|| {
                // SAFETY: no memory is concerned.
                let tid = unsafe { libc::gettid() };
                numbers.get(TID).store(tid as u64, Release);
                run_announced(&numbers, region.at(0))
            });
            let steps = || numbers.get(STEPS).load(Relaxed);
            // One a step. For more there is no room; the runner goes on with the last.
            for _ in 0..4000 {
                let before = steps();
                if before == u64::MAX {
                    break;
                }
                announce(&region, &numbers)?;
                reaches("steps", before + 1, || Ok(steps()))?;
            }
            reaches("steps", u64::MAX, || Ok(steps()))?;
            numbers.get(NEWEST).store(u64::MAX, Release);
            runner.join().ok().or_fail("the runner panicked")?
        })
    })?;
    while numbers.get(TID).load(Acquire) == 0 {
        std::hint::spin_loop();
    }
    let traced = Traced::attach(numbers.get(TID).load(Relaxed) as libc::pid_t)?;
    let (mut step, mut run, mut newest) = (0, 0, 0);
    while step < 4000 || run < 50 {
        step += 1;
        numbers.get(STEPS).store(step, Relaxed);
        let signal = traced.step(0)?;
        equal(&format!("the signal of step {step}"), signal, libc::SIGTRAP)?;
        let done = numbers.get(DONE).load(Relaxed);
        run += u64::from(done != newest);
        newest = done;
    }
    traced.detach()?;
    numbers.get(STEPS).store(u64::MAX, Relaxed);
    child.join()
}

/// What a debugger reads of new code is the new code, whoever has it mapped.
fn reads_new_code_while_it_is_published() -> Outcome {
    let region = Region::new(8)?;
    let numbers = Numbers::new()?;
    let child = Child::start(|| run_announced(&numbers, region.at(0)))?;
    for _ in 0..500 {
        let offset = announce(&region, &numbers)? - 1;
        let view = debugger_view(child.pid() as u32, region.at(offset), 6);
        equal(
            "the view",
            view.or_fail("read")?,
            asm::answer(offset as u32),
        )?;
    }
    numbers.get(NEWEST).store(u64::MAX, Release);
    child.join()
}
