// SPDX-License-Identifier: GPL-2.0
//! Closures over a number, of each peer, from many threads; and that libffi's are
//! what they are measured as.

use std::hint::black_box;
use std::sync::Mutex;
use std::thread;

use jitfd_peers::{Bare, Description, Entry, Ffi, Kernel, Signals, Signature, Text};
use jitfd_peers::{mapping_of, target};

use crate::suite::harness::{self, Test};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::sys;

pub(super) fn tests() -> Vec<Test> {
    harness::tests![
        page_faults_from_threads,
        system_calls_from_threads,
        signals_from_threads,
        text_calls,
        libffi_calls,
        libffi_trampolines_alone,
        libffi_is_static,
        all_work_under_mdwe,
        callers_are_found,
    ]
}

const COUNT: usize = 600;
const RSI: usize = 6;

fn numbers() -> &'static [u64] {
    Vec::leak((0..COUNT as u64).map(|n| n << 20 | 5).collect())
}

fn described(context: &u64) -> Option<Description> {
    let to = Description::to(target as *const () as usize);
    to.set(RSI, (&raw const *context).addr() as u64).ok()
}

/// Calls all of them from four threads.
fn call(codes: &[usize], numbers: &[u64]) -> Outcome {
    equal("trampolines", codes.len(), numbers.len())?;
    let wrong = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|thread| scope.spawn(move || wrong(codes, numbers, thread)))
            .collect();
        let wrong = threads.into_iter().map(|thread| thread.join());
        wrong.map(|wrong| wrong.unwrap_or(1)).sum::<usize>()
    });
    equal("wrong results", wrong, 0)
}

fn wrong(codes: &[usize], numbers: &[u64], thread: u64) -> usize {
    let calls = codes.iter().zip(numbers).cycle().skip(thread as usize);
    let wrong = calls.take(3 * COUNT).filter(|(code, number)| {
        // SAFETY: Each is a closure of this type, and lives.
        let closure: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(**code) };
        closure(thread) != **number + thread
    });
    wrong.count()
}

/// One closure over a number, of each kind, kept for ever.
fn one_of_each(number: &'static u64) -> Checked<Vec<(&'static str, usize)>> {
    let what = described(number).or_fail("a description")?;
    let kernel = Kernel::open().or_fail("/dev/trampfd")?;
    let made = |entry| {
        let made = kernel.trampoline(&what, entry).or_fail("a trampoline")?;
        Ok(Box::leak(Box::new(made)).code())
    };
    let signals = Signals::install(1).or_fail("a handler")?;
    let signature = Signature::new().or_fail("a signature")?;
    let closure = Ffi::new(signature, number).or_fail("a closure")?;
    let bare = Bare::new(number).or_fail("a static trampoline")?;
    Ok(vec![
        ("page fault", made(Entry::PageFault)?),
        ("system call", made(Entry::SystemCall)?),
        ("signal", signals.trampoline(what).or_fail("room")?.code()),
        ("libffi", Box::leak(Box::new(closure)).code()),
        ("libffi alone", Box::leak(Box::new(bare)).code()),
        ("text", Text::new(number).or_fail("a stub")?.code()),
    ])
}

/// None of them needs memory that is writable and then executable.
fn all_work_under_mdwe() -> Outcome {
    const SET_MDWE: i32 = 65;
    const REFUSE_EXEC_GAIN: usize = 1;
    sys::prctl(SET_MDWE, REFUSE_EXEC_GAIN).or_fail("PR_SET_MDWE")?;
    for (name, code) in one_of_each(&41)? {
        // SAFETY: It is a closure of this type, and lives.
        let closure: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code) };
        equal(name, closure(1), 42)?;
    }
    Ok(())
}

static SEEN: Mutex<String> = Mutex::new(String::new());

extern "C" fn look_back(argument: u64) -> u64 {
    let seen = std::backtrace::Backtrace::force_capture().to_string();
    if let Ok(mut text) = SEEN.lock() {
        *text = seen;
    }
    argument + 1
}

/// A backtrace in the target goes on to the caller: nothing is left of the
/// trampoline by then.
fn callers_are_found() -> Outcome {
    let what = Description::to(look_back as *const () as usize);
    let kernel = Kernel::open().or_fail("/dev/trampfd")?;
    let fault = kernel.trampoline(&what, Entry::PageFault);
    let fault = fault.or_fail("a trampoline")?;
    let call = kernel.trampoline(&what, Entry::SystemCall);
    let call = call.or_fail("a trampoline")?;
    let signals = Signals::install(1).or_fail("a handler")?;
    let signal = signals.trampoline(what).or_fail("room")?;
    let codes = [fault.code(), call.code(), signal.code()];
    for (code, name) in codes.into_iter().zip(["fault", "call", "signal"]) {
        // SAFETY: It is a closure of this type, and lives.
        let closure: extern "C" fn(u64) -> u64 = unsafe { std::mem::transmute(code) };
        equal(name, caller_to_be_found(closure), 3)?;
        let seen = SEEN.lock().map(|mut text| std::mem::take(&mut *text));
        let seen = seen.unwrap_or_default();
        let found = seen.contains("caller_to_be_found");
        holds(found, format!("{name}: no caller in {seen}"))?;
    }
    Ok(())
}

#[inline(never)]
fn caller_to_be_found(closure: extern "C" fn(u64) -> u64) -> u64 {
    black_box(closure(1)) + 1
}

fn kernel_from_threads(entry: Entry) -> Outcome {
    let numbers = numbers();
    let kernel = Kernel::open().or_fail("/dev/trampfd")?;
    let mut all = Vec::new();
    for number in numbers {
        let what = described(number).or_fail("a description")?;
        all.push(kernel.trampoline(&what, entry).or_fail("a trampoline")?);
    }
    let codes: Vec<usize> = all.iter().map(|made| made.code()).collect();
    call(&codes, numbers)
}

fn page_faults_from_threads() -> Outcome {
    kernel_from_threads(Entry::PageFault)
}

fn system_calls_from_threads() -> Outcome {
    kernel_from_threads(Entry::SystemCall)
}

fn signals_from_threads() -> Outcome {
    let numbers = numbers();
    let signals = Signals::install(COUNT).or_fail("a handler")?;
    let made = |number| Some(signals.trampoline(described(number)?)?.code());
    let codes: Vec<usize> = numbers.iter().filter_map(made).collect();
    let full = signals.trampoline(Description::to(1)).is_none();
    holds(full, "more than there is room for")?;
    call(&codes, numbers)
}

fn text_calls() -> Outcome {
    let numbers = numbers();
    let made = |number| Some(Text::new(number)?.code());
    let codes: Vec<usize> = numbers.iter().filter_map(made).collect();
    call(&codes, numbers)
}

fn libffi_calls() -> Outcome {
    let numbers = numbers();
    let signature = Signature::new().or_fail("a signature")?;
    let made: Vec<Ffi> = numbers
        .iter()
        .filter_map(|number| Ffi::new(signature, number))
        .collect();
    let codes: Vec<usize> = made.iter().map(Ffi::code).collect();
    call(&codes, numbers)
}

fn libffi_trampolines_alone() -> Outcome {
    let numbers = numbers();
    let made: Vec<Bare> = numbers.iter().filter_map(Bare::new).collect();
    let codes: Vec<usize> = made.iter().map(Bare::code).collect();
    call(&codes, numbers)
}

/// The code is in a read-only, executable mapping of this program's file, and
/// nothing anonymous is executable.
fn libffi_is_static() -> Outcome {
    holds(Bare::supported(), "libffi has no static trampolines")?;
    let signature = Signature::new().or_fail("a signature")?;
    let number = 5;
    let closure = Ffi::new(signature, &number).or_fail("a closure")?;
    let line = mapping_of(closure.code()).or_fail("maps")?;
    let line = line.or_fail("the code is mapped nowhere")?;
    let program = std::env::current_exe().or_fail("a path")?;
    let program = program.to_string_lossy().into_owned();
    holds(
        line.contains(" r-xp ") && line.ends_with(&program),
        format!("not the program's file: {line}"),
    )?;
    let maps = std::fs::read_to_string("/proc/self/maps").or_fail("maps")?;
    let mut executable = maps.lines().filter(|line| {
        let mut fields = line.split_whitespace();
        let executable = fields.nth(1).is_some_and(|rights| rights.contains('x'));
        executable && !matches!(fields.nth(3), Some(name) if name.starts_with(['/', '[']))
    });
    match executable.next() {
        None => Ok(()),
        Some(line) => holds(false, format!("anonymous and executable: {line}")),
    }
}
