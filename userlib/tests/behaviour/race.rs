// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source of a chunk changes while it is validated and published: what runs
//! is what was checked.

use super::{create, read};
use jitfd::*;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// mov eax, 1; ret; and then NOPs up to 4 KiB, so that the copy takes a while.
fn source() -> Vec<AtomicU8> {
    let mut code = vec![0xb8, 1, 0, 0, 0, 0xc3];
    code.resize(4096, 0x90);
    code.into_iter().map(AtomicU8::new).collect()
}

/// Makes `ret` a byte that is no instruction, and some NOP a jump; then all as it
/// was.
fn scribble(source: &[AtomicU8], stop: &AtomicBool) {
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let nop = &source[6 + round * 37 % 4000];
        source[5].store(0x06, Ordering::Relaxed);
        nop.store(0xeb, Ordering::Relaxed);
        source[5].store(0xc3, Ordering::Relaxed);
        nop.store(0x90, Ordering::Relaxed);
    }
}

/// Validates and publishes until both verdicts have come often enough, or time
/// is up; returns how often each came.
fn publish(backend: Backend, source: &[AtomicU8]) -> (usize, usize) {
    let validator = Validator::new(Options::new());
    let (mut published, mut refused) = (0, 0);
    let mut region = create(backend, 1 << 20);
    let start = Instant::now();
    while (published < OFTEN || refused < OFTEN) && start.elapsed() < LIMIT {
        let Ok(chunk) = validator.validate_shared(source) else {
            refused += 1;
            continue;
        };
        if region.stats().unwrap().cursor > 1 << 19 {
            region = create(backend, 1 << 20);
        }
        run(&region, &chunk);
        published += 1;
    }
    (published, refused)
}

/// Publishes `chunk`; what is in the region then is what was checked, and runs.
fn run(region: &JitFd, chunk: &Validated) {
    assert!(validate(chunk.bytes(), &Options::new()).is_ok());
    let at = region.append(chunk).unwrap();
    assert_eq!(read(region, at.offset, at.len), chunk.bytes());
    // SAFETY: it passed, so behind `mov eax, 1` there is `ret`.
    let one = unsafe { region.entry::<extern "C" fn() -> i32>(at.offset).unwrap() };
    assert_eq!(one(), 1);
}

const OFTEN: usize = 500;
const LIMIT: Duration = Duration::from_secs(60);

pub fn what_was_validated_is_what_is_published(backend: Backend) {
    let (source, stop) = (source(), AtomicBool::new(false));
    let counts = std::thread::scope(|scope| {
        scope.spawn(|| scribble(&source, &stop));
        // So that a failure ends the other thread too.
        let result = std::panic::catch_unwind(|| publish(backend, &source));
        stop.store(true, Ordering::Relaxed);
        result.unwrap()
    });
    assert!(
        counts.0 >= OFTEN && counts.1 >= OFTEN,
        "no race: {counts:?}"
    );
}
