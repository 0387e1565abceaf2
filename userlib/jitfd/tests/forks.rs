// SPDX-License-Identifier: MIT OR Apache-2.0

//! Children of a busy parent, forked at any moment: they make closures and call them,
//! or are told why not, and none waits for a thread that it does not have.

use jitfd::{Fallback, Jit};
use jitfd_trampoline::{Closure, LibffiClosures};
use std::sync::atomic::{AtomicBool, Ordering};

const CHILDREN: usize = 300;
/// What a child does takes milliseconds.
const SECONDS: u32 = 60;

/// More closures than a thread keeps slots of: each call takes and gives slots back.
fn closures(jit: &Jit, count: usize) -> Result<(), jitfd::Error> {
    let make = |number: usize| Closure::new(jit, move |more: usize| number + more);
    let all: Vec<_> = (0..count).map(make).collect::<Result<_, _>>()?;
    for (closure, number) in all.iter().zip(0..) {
        // SAFETY: the closure is there.
        assert_eq!(unsafe { closure.entry()(1) }, number + 1);
    }
    Ok(())
}

fn of_libffi(all: &LibffiClosures, count: usize) -> Result<(), jitfd::Error> {
    let made: Vec<_> = (0..count)
        .map(|_| all.alloc(56))
        .collect::<Result<_, _>>()?;
    for (closure, _) in made {
        // SAFETY: it is from there, and nobody has called it.
        unsafe { all.free(closure) };
    }
    Ok(())
}

/// Whether a forked child that does `work` came to an end of its own.
fn ends(work: impl FnOnce() -> Result<(), jitfd::Error>) -> bool {
    // SAFETY: the child works with what is its own, and ends.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork");
        if pid == 0 {
            libc::alarm(SECONDS);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            libc::_exit(i32::from(done.is_err()));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

#[test]
fn children_of_a_busy_parent_make_closures() {
    let jit = Jit::open(Fallback::Any).unwrap();
    let libffi = LibffiClosures::new(&jit).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (jit, libffi, done) = (&jit, &libffi, &done);
            scope.spawn(move || {
                // One of them needs a copy of the code each time, and has it unmapped.
                let count = if thread == 0 { 5_000 } else { 100 };
                while !done.load(Ordering::Relaxed) {
                    closures(jit, count).unwrap();
                    of_libffi(libffi, 100).unwrap();
                }
            });
        }
        let ended = (0..CHILDREN).position(|_| {
            !ends(|| {
                // Of the parent's, and chosen anew.
                closures(&jit, 200)?;
                closures(&Jit::open(Fallback::Any)?, 200)?;
                of_libffi(&libffi, 200)
            })
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(ended, None, "the number of the child that hung or failed");
    });
}
