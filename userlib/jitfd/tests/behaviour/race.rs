// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source of a chunk changes while it is validated and published: what runs
//! is what was checked.

use super::{create, read};
use jitfd::*;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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

/// Validates and publishes until both verdicts have come often enough. What is
/// published often enough is only validated.
///
/// # Panics
/// If one of them does not come any more: then nothing races.
fn publish(backend: Backend, source: &[AtomicU8]) {
    let rules = Rules::new();
    let (mut published, mut refused, mut alike) = (0, 0, 0);
    let mut region = create(backend, 1 << 20);
    let mut last = None;
    while published < OFTEN || refused < OFTEN {
        let chunk = validate_shared(source, &rules).ok();
        alike = if last == Some(chunk.is_some()) {
            alike + 1
        } else {
            0
        };
        last = Some(chunk.is_some());
        assert!(
            alike < MOST,
            "no race: {published} published, {refused} refused"
        );
        let Some(chunk) = chunk else {
            refused += 1;
            continue;
        };
        if published < OFTEN {
            if region.stats().unwrap().cursor > 1 << 19 {
                region = create(backend, 1 << 20);
            }
            run(&region, &chunk);
            published += 1;
        }
    }
}

/// Publishes `chunk`; what is in the region then is what was checked, and runs.
fn run(region: &Region, chunk: &Chunk) {
    assert!(validate(chunk.bytes(), &Rules::new()).is_ok());
    let at = region.publish(chunk).unwrap();
    assert_eq!(read(region, at.offset, at.len), chunk.bytes());
    // SAFETY: it passed, so behind `mov eax, 1` there is `ret`.
    let one = unsafe { region.entry::<extern "C" fn() -> i32>(at).unwrap() };
    assert_eq!(one(), 1);
}

const OFTEN: usize = 500;
/// So many verdicts in a row are not alike by chance, nor because the other thread
/// waits for a CPU.
const MOST: usize = 200_000;

pub fn what_was_validated_is_what_is_published(backend: Backend) {
    let (source, stop) = (source(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| scribble(&source, &stop));
        // So that a failure ends the other thread too.
        let result = std::panic::catch_unwind(|| publish(backend, &source));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}
