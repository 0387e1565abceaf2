// SPDX-License-Identifier: MIT OR Apache-2.0

//! Limits of the process: a backend that is bound by one says so, and nothing is
//! ended by a signal.

use super::process::{End, child};
use super::{create, jit, returns, run};
use jitfd::space::SpaceOptions;
use jitfd::{Backend, Error, Fallback, Jit, Kind, Published, Rules, Trial, probe, validate};
use std::fs::File;
use std::os::fd::FromRawFd;

/// The largest file that this process may write, in bytes.
fn limit_files(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the limit is readable; only this child has it.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
}

/// How much this process may map, in bytes. What it has stays.
fn limit_addresses(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the limit is readable; only this child has it.
    unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
}

/// Each bit of the status that is missing is a promise that was broken.
fn all(promises: &[bool]) -> i32 {
    let kept = promises.iter().enumerate().filter(|(_, kept)| **kept);
    kept.fold(0, |all, (index, _)| all | 1 << index)
}

/// Only dual mapping has a file.
pub fn a_limit_on_files_is_an_error_and_no_signal(backend: Backend) {
    let is_bound = backend == Backend::DualMapping;
    let large = validate(&[0x90; 9000], &Rules::new()).unwrap();
    let right = |error: Option<Error>| match error {
        Some(error) => {
            is_bound
                && error.kind() == Some(Kind::FileSize)
                && error.to_string().contains("RLIMIT_FSIZE")
        }
        None => !is_bound,
    };
    let jit = jit(backend);

    let in_child = child(|| {
        let old = create(backend, 1 << 20);
        limit_files(4096);
        // What fits, works: also after what does not.
        let refused = right(old.publish(&large).err());
        let small = old.publish(&returns(5));
        all(&[
            right(jit.region(1 << 20).err()),
            right(jit.code(&large).err()),
            refused,
            small.is_ok_and(|at| run(&old, at.offset) == 5),
            jit.region(4096).is_ok(),
            jit.code(&returns(1)).is_ok(),
        ])
    });
    assert_eq!(in_child, End::Status(0b11_1111));
}

/// A publication works or is an error; what was published runs on.
pub fn a_limit_on_addresses_takes_no_code_away(backend: Backend) {
    let codes = [1, 2, 3, 4].map(returns);
    let in_child = child(|| {
        let region = create(backend, 1 << 20);
        let first = region.publish(&codes[0]);
        limit_addresses(1 << 20);
        let bounded = [1, 2].map(|number| region.publish(&codes[number]));
        limit_addresses(libc::RLIM_INFINITY);
        let last = region.publish(&codes[3]);
        let right = |at: &Result<Published, Error>, value| match at {
            Ok(at) => run(&region, at.offset) == value,
            Err(error) => error.kind() == Some(Kind::NoMemory),
        };
        all(&[
            first.is_ok() && right(&first, 1),
            right(&bounded[0], 2) && right(&bounded[1], 3),
            last.is_ok() && right(&last, 4),
        ])
    });
    assert_eq!(in_child, End::Status(0b111));
}

pub fn the_probe_and_the_choice_agree_under_a_limit_on_files(_: Backend) {
    let in_child = child(|| {
        limit_files(0);
        let jit = Jit::open(Fallback::Any).unwrap();
        let chosen = Some(jit.backend());
        all(&[
            chosen.is_some_and(|backend| backend != Backend::DualMapping),
            probe().choice(Fallback::Any) == chosen,
            jit.region(4096).is_ok() && jit.code(&returns(1)).is_ok(),
        ])
    });
    assert_eq!(in_child, End::Status(0b111));
}

/// That nothing could be tried is not that nothing works.
pub fn a_probe_that_cannot_fork_says_so(_: Backend) {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let in_child = child(|| {
        // SAFETY: numbers, and a limit that is readable. Root has no such limit.
        unsafe {
            if libc::geteuid() == 0 && libc::setuid(12345) != 0 {
                return 2;
            }
            libc::setrlimit(libc::RLIMIT_NPROC, &raw const none);
        }
        let probe = probe();
        let mut trials = probe.trials.iter();
        i32::from(trials.all(|(_, trial)| {
            let text = trial.to_string();
            matches!(trial, Trial::Untried(error) if error.kind() == Some(Kind::Processes))
                && text.contains("cannot fork")
                && text.contains("RLIMIT_NPROC")
        }))
    });
    assert_eq!(in_child, End::Status(1));
}

/// How many descriptors this process has open.
fn open_descriptors() -> usize {
    // One is that of the list itself.
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() - 1)
}

/// The number that Documentation and README have.
pub fn a_region_has_two_descriptors_at_most(backend: Backend) {
    const SPACES: usize = 8;
    let (each, without_map) = match backend {
        Backend::Kernel => (2, 1),
        Backend::DualMapping => (1, 1),
        _ => (0, 0),
    };
    let jit = jit(backend);
    let space = || jit.space(SpaceOptions::default());
    let in_child = child(|| {
        let before = open_descriptors();
        let spaces: Vec<_> = (0..SPACES).filter_map(|_| space().ok()).collect();
        let of_spaces = open_descriptors() - before;
        let (map, append, mapping) = create(backend, 1 << 20).split();
        drop(map);
        let of_parts = open_descriptors() - before - of_spaces;
        // SAFETY: the child's own descriptor. The number is the lowest that is free.
        let free = unsafe {
            let free = libc::dup(libc::STDERR_FILENO);
            libc::close(free);
            free
        };
        let most = u64::try_from(free).unwrap_or(0) + 3;
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: the limit is readable; only this child has it.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        let more: Vec<_> = (0..SPACES).map(|_| space()).collect();
        let refused = more.iter().filter_map(|space| space.as_ref().err());
        let mut text = refused.map(|error| (error.kind(), error.to_string()));
        let told = text.all(|(kind, text)| {
            kind == Some(Kind::TooManyFiles) && text.contains("two descriptors")
        });
        let made = more.iter().filter(|space| space.is_ok()).count();
        drop((spaces, append, mapping));
        all(&[
            of_spaces == SPACES * each,
            of_parts == without_map,
            told && (made < SPACES || each == 0),
        ])
    });
    assert_eq!(in_child, End::Status(0b111));
}

/// New files, until one has a number that was closed.
fn open_files() -> Vec<File> {
    let open = || {
        // SAFETY: the name is a C string, and a new descriptor is nobody else's.
        unsafe { File::from_raw_fd(libc::memfd_create(c"of the program".as_ptr(), 0)) }
    };
    std::iter::repeat_with(open).take(16).collect()
}

/// As a daemon does it, too late.
pub fn descriptors_that_the_program_closes_are_missed(backend: Backend) {
    let missed = |error: Option<Error>| match backend {
        Backend::ProtectFlips => error.is_none(),
        _ => error.is_some_and(|error| {
            // The kernel finds out that another file does not know its calls.
            matches!(error.kind(), Some(Kind::Closed | Kind::Foreign))
                && !error.to_string().contains("unexpected")
        }),
    };
    let large = validate(&[0x90; 9000], &Rules::new()).unwrap();
    let in_child = child(|| {
        let region = create(backend, 1 << 20);
        let old = region.publish(&returns(7));
        // SAFETY: closes what is not its own, which is what is tried here. The
        // child uses no other file.
        unsafe { libc::close_range(3, u32::MAX, 0) };
        let closed = missed(region.publish(&large).err());
        let files = open_files();
        let reopened = missed(region.publish(&large).err());
        let len = |file: &File| file.metadata().map_or(1, |data| data.len());
        let untouched = files.iter().all(|file| len(file) == 0);
        let runs = old.is_ok_and(|at| run(&region, at.offset) == 7);
        let kept = backend == Backend::Kernel || {
            drop(region);
            files.iter().all(|file| file.metadata().is_ok())
        };
        std::mem::forget(files);
        all(&[closed, reopened, untouched, runs, kept])
    });
    assert_eq!(in_child, End::Status(0b1_1111));
}
