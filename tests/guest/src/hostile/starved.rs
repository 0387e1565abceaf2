// SPDX-License-Identifier: GPL-2.0
//! A process that holds something inside of the module and gets no CPU: nobody else
//! waits for it.
//!
//! The attacker calls in a loop on one CPU, at the lowest priority. At random moments
//! a hog of the highest takes that CPU, and keeps it until the victim, on the other
//! CPU, has made some steps more. If the victim needs what the attacker holds, nothing
//! moves any more: that, and no time, is what fails.
//!
//! One such lock is the kernel's: who maps a region holds `i_mmap_rwsem` for some
//! hundred instructions in mmap(), munmap() and fork() (Documentation/mm/jit.rst, "What
//! can block what"). There is no test that nobody waits for it.
//!
//! ```text
//!  CPU 0   attacker | hog ............ | attacker | hog ...... | attacker
//!  CPU 1   victim steps and steps and steps
//! ```

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use jitfd_plan::abi::{
    CREATE_ANY_MM, CloneFrom, Create, CreateCode, JIT_FILL, MAX_REGION, MAX_SEGMENTS, PUBLISH_SYNC,
};

use crate::suite::calls;
use crate::suite::harness::{Test, is_stock_kernel, tests};
use crate::suite::kmod::with_parameters;
use crate::suite::memory::{Mapping, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, all_hold, equal, failed, holds, refused};
use crate::suite::process::{Child, become_user, state};
use crate::suite::race::needs_two_cpus;
use crate::suite::random::Random;
use crate::suite::region::Region;
use crate::suite::shared::{Atomics, Shared};
use crate::suite::sys::{self, PAGE};

use super::bounds::{ATTACKER, STALL, USER_PAGES, VICTIM};

pub fn tests() -> Vec<Test> {
    tests![
        while_it_clones,
        while_it_looks_at_the_counters,
        while_it_flushes,
        while_it_opens_its_account,
        while_it_is_at_its_quota,
        clones_succeed_while_the_source_changes,
        a_clone_has_all_that_is_reserved,
    ]
}

/// What an attacker or a victim does again and again.
type Step<'a> = Box<dyn FnMut() -> Outcome + 'a>;

#[derive(Default)]
struct Board {
    /// Those that are ready.
    ready: AtomicU64,
    /// Attacks that were made.
    attacks: AtomicU64,
    /// Steps that the victim made.
    steps: AtomicU64,
    stop: AtomicU64,
}

// SAFETY: zeros are a valid board, and all of it is atomic.
unsafe impl Atomics for Board {}

/// How often the hog takes the CPU.
const ROUNDS: usize = 150;
const ATTACKING: usize = 0;
const OTHER: usize = 1;

/// Fails if the victim does not make `steps` steps while the attacker is kept from its
/// CPU. What the two do is prepared in their own processes.
fn nobody_waits<'a>(
    steps: u64,
    attack: impl FnOnce() -> Checked<Step<'a>>,
    victim: impl FnOnce() -> Checked<Step<'a>>,
) -> Outcome {
    needs_two_cpus()?;
    let _unlimited = Unlimited::new();
    keep_module_threads_apart();
    let shared = Shared::<Board>::new()?;
    let board = shared.board();
    let attacker = Child::start(|| {
        sys::run_on(ATTACKING).or_fail("take a CPU")?;
        become_user(ATTACKER)?;
        sys::set_policy(libc::SCHED_IDLE, 0).or_fail("SCHED_IDLE")?;
        again_and_again(board, &board.attacks, attack()?)
    })?;
    let victim = Child::start(|| {
        sys::run_on(OTHER).or_fail("take a CPU")?;
        become_user(VICTIM)?;
        again_and_again(board, &board.steps, victim()?)
    })?;
    let hog = Child::start(|| {
        sys::run_on(ATTACKING).or_fail("take a CPU")?;
        sys::set_policy(libc::SCHED_FIFO, 50).or_fail("SCHED_FIFO")?;
        let outcome = take_the_cpu(board, steps, &attacker, &victim);
        board.stop.store(1, SeqCst);
        outcome
    })?;
    let stalled = hog.join();
    let (attacker, victim) = (attacker.join(), victim.join());
    let attacks = board.attacks.load(SeqCst);
    all_hold([
        (stalled.is_ok(), format!("{stalled:?}")),
        (attacker.is_ok(), format!("the attacker: {attacker:?}")),
        (victim.is_ok(), format!("the victim: {victim:?}")),
        (attacks > 0, "no attack was made".to_owned()),
    ])
}

fn again_and_again(board: &Board, count: &AtomicU64, mut step: Step<'_>) -> Outcome {
    board.ready.fetch_add(1, SeqCst);
    while board.stop.load(SeqCst) == 0 {
        step()?;
        count.fetch_add(1, SeqCst);
    }
    Ok(())
}

/// The hog.
fn take_the_cpu(board: &Board, steps: u64, attacker: &Child, victim: &Child) -> Outcome {
    let mut random = Random::new(1);
    let stall = STALL * if is_stock_kernel() { 1 } else { 5 };
    while board.ready.load(SeqCst) < 2 {
        let both = attacker.is_alive() && victim.is_alive();
        holds(both, "both are there")?;
        thread::sleep(Duration::from_millis(1));
    }
    for round in 0..ROUNDS {
        thread::sleep(Duration::from_micros(100 + random.below(1500) as u64));
        let wanted = board.steps.load(SeqCst) + steps;
        let start = Instant::now();
        while board.steps.load(SeqCst) < wanted {
            if start.elapsed() > stall && waits(victim) {
                let attacks = board.attacks.load(SeqCst);
                let stack = fs::read_to_string(format!("/proc/{}/stack", victim.pid()));
                return failed(format!(
                    "after {round} rounds and {attacks} attacks the victim waits, and the \
                     attacker has no CPU: {}",
                    functions(&stack.unwrap_or_default())
                ));
            }
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// Whether a process waits in the kernel. One that only gets no CPU does not.
fn waits(child: &Child) -> bool {
    state(child.pid()) != Some('R')
}

/// The functions of a kernel stack, the innermost first.
fn functions(stack: &str) -> String {
    let name = |line: &str| Some(line.split_once("] ")?.1.split('+').next()?.to_owned());
    stack
        .lines()
        .filter_map(name)
        .collect::<Vec<_>>()
        .join(" < ")
}

/// Real-time processes may use all of a CPU as long as this lives.
struct Unlimited(Vec<(String, String)>);

impl Unlimited {
    fn new() -> Self {
        let fair = |cpu| format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
        let limits = [
            ("/proc/sys/kernel/sched_rt_runtime_us".to_owned(), "-1"),
            (fair(ATTACKING), "0"),
            (fair(OTHER), "0"),
        ];
        let set = |(path, value): (String, &str)| {
            // Where there is no such limit, it needs not be lifted.
            let before = fs::read_to_string(&path).ok()?;
            fs::write(&path, value).ok()?;
            Some((path, before))
        };
        Unlimited(limits.into_iter().filter_map(set).collect())
    }
}

impl Drop for Unlimited {
    fn drop(&mut self) {
        for (path, before) in &self.0 {
            let _ = fs::write(path, before);
        }
    }
}

/// Threads of the module are no attackers: no user can keep them from a CPU.
fn keep_module_threads_apart() {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let pid = process.file_name().to_string_lossy().parse();
        if let (true, Ok(pid)) = (name.starts_with("jit_"), pid) {
            let _ = sys::set_cpu(pid, OTHER);
        }
    }
}

/// A region as large as can be that both processes have.
fn large_region() -> Checked<Region> {
    Region::with_flags(MAX_REGION as usize / PAGE, CREATE_ANY_MM)
}

/// Appends, and uses the page, so that the next one has to replace it.
fn appends(region: &Region, flags: u32) -> Step<'_> {
    Box::new(move || {
        let offset = region.append_with(&[0x90; 16], flags)?;
        load(region.at(offset), 1);
        Ok(())
    })
}

fn clone_of(region: &Region) -> Outcome {
    let device = calls::open_device()?;
    let argument = CloneFrom {
        source_fd: region.device.as_raw_fd(),
        ..Default::default()
    };
    calls::clone_region(device.as_raw_fd(), &argument)
        .or_fail("JIT_CLONE")
        .map(|_| ())
}

fn while_it_clones() -> Outcome {
    let region = large_region()?;
    nobody_waits(
        30,
        || Ok(Box::new(|| clone_of(&region))),
        || Ok(appends(&region, 0)),
    )
}

fn while_it_looks_at_the_counters() -> Outcome {
    let region = large_region()?;
    let fd = region.device.as_raw_fd();
    nobody_waits(
        30,
        || {
            Ok(Box::new(|| {
                calls::stats(fd).or_fail("JIT_STATS").map(|_| ())
            }))
        },
        || Ok(appends(&region, 0)),
    )
}

/// Flushes of its own region, for which there is one state of all regions.
fn while_it_flushes() -> Outcome {
    const PAGES: usize = MAX_SEGMENTS as usize;
    let region = large_region()?;
    nobody_waits(
        30,
        || {
            let own = Region::new(PAGES)?;
            let hole = calls::reserve(own.fd(), (PAGES * PAGE) as u64, 0).or_fail("reserve")?;
            let mut at = hole;
            Ok(Box::new(move || {
                let offsets = (0..PAGES as u64).map(|page| at + page * PAGE as u64);
                let segments: Vec<_> = offsets.map(|at| calls::segment_at(at, &[0x90])).collect();
                let mut argument = calls::publication(&segments);
                argument.flags = PUBLISH_SYNC;
                calls::publish(own.fd(), JIT_FILL, &argument).or_fail("JIT_FILL")?;
                for segment in &segments {
                    load(own.at(segment.offset), 1);
                }
                at = hole + (at - hole + 1) % PAGE as u64;
                Ok(())
            }))
        },
        || Ok(appends(&region, PUBLISH_SYNC)),
    )
}

fn create_code(device: &OwnedFd) -> Outcome {
    let code = [0x90; 16];
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    drop(Mapping::adopt(argument.addr as usize, PAGE));
    Ok(())
}

/// Users beside the two, each with a region, so that an account takes long to find.
const USERS: u32 = 400;

fn other_users() -> Checked<Vec<(OwnedFd, OwnedFd)>> {
    sys::set_limit(libc::RLIMIT_NOFILE, 4096).or_fail("setrlimit")?;
    (2000..2000 + USERS)
        .map(|user| as_effective(user, new_region))
        .collect()
}

fn as_effective<T>(user: u32, run: impl FnOnce() -> Checked<T>) -> Checked<T> {
    // SAFETY: no memory is concerned.
    equal("seteuid", unsafe { libc::seteuid(user) }, 0)?;
    let result = run();
    // SAFETY: no memory is concerned.
    equal("seteuid", unsafe { libc::seteuid(0) }, 0)?;
    result
}

fn new_region() -> Checked<(OwnedFd, OwnedFd)> {
    let device = calls::open_device()?;
    let append = create(&device)?;
    Ok((device, append))
}

fn create(device: &OwnedFd) -> Checked<OwnedFd> {
    let argument = Create {
        size: PAGE as u64,
        ..Default::default()
    };
    calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")
}

/// Both have their accounts looked up.
fn while_it_opens_its_account() -> Outcome {
    let others = other_users()?;
    let outcome = nobody_waits(
        30,
        || {
            let device = calls::open_device()?;
            Ok(Box::new(move || create_code(&device)))
        },
        || {
            let device = calls::open_device()?;
            Ok(Box::new(move || create_code(&device)))
        },
    );
    drop(others);
    outcome
}

/// The attacker has many regions and no page left: before it is refused, all of its
/// regions are asked for blank pages that they don't need. The victim makes regions.
fn while_it_is_at_its_quota() -> Outcome {
    const REGIONS: usize = 300;
    const HANDLES: usize = 3000;
    // Each region has a page of code, two for itself and one to work with; there is one
    // more region.
    with_parameters(&format!("{USER_PAGES}={}", 4 * REGIONS + 2), || {
        sys::set_limit(libc::RLIMIT_NOFILE, 4096).or_fail("setrlimit")?;
        nobody_waits(
            4,
            || {
                let regions = (0..REGIONS)
                    .map(|_| new_region())
                    .collect::<Checked<Vec<_>>>()?;
                for (_, append) in &regions {
                    calls::append(append.as_raw_fd(), &[0x90]).or_fail("JIT_APPEND")?;
                }
                let large = Region::new(4)?;
                Ok(Box::new(move || {
                    let _ = &regions;
                    refused(
                        "an append",
                        calls::append(large.fd(), &[0x90]),
                        libc::EDQUOT,
                    )
                }))
            },
            || {
                // Opened before: the kernel has a lock for that, which is not ours.
                let mut devices = (0..HANDLES)
                    .map(|_| calls::open_device())
                    .collect::<Checked<Vec<_>>>()?;
                Ok(Box::new(move || match devices.pop() {
                    Some(device) => create(&device).map(drop),
                    None => {
                        thread::sleep(Duration::from_millis(1));
                        Ok(())
                    }
                }))
            },
        )
    })
}

/// The other way round: publications in a loop don't keep a clone from its end.
fn clones_succeed_while_the_source_changes() -> Outcome {
    const CLONES: u64 = 20;
    needs_two_cpus()?;
    let region = large_region()?;
    let shared = Shared::<Board>::new()?;
    let board = shared.board();
    let publisher = Child::of_user(VICTIM, || {
        again_and_again(board, &board.steps, appends(&region, 0))
    })?;
    let cloner = Child::of_user(ATTACKER, || {
        while board.ready.load(SeqCst) == 0 {
            thread::yield_now();
        }
        let before = board.steps.load(SeqCst);
        (0..CLONES).try_for_each(|_| clone_of(&region))?;
        let steps = board.steps.load(SeqCst) - before;
        let what = format!("{steps} publications during {CLONES} clones");
        holds(steps >= CLONES, what)
    })?;
    let outcome = cloner.join();
    board.stop.store(1, SeqCst);
    outcome.and(publisher.join())
}

/// More than are copied at once for another user (`A_FEW` in the module's `reserved.rs`).
const RANGES: u64 = 1000;

/// Another user's clone of many reserved ranges, which is made in steps, is of one state.
fn a_clone_has_all_that_is_reserved() -> Outcome {
    let region = Region::with_flags(16, CREATE_ANY_MM)?;
    for _ in 0..RANGES {
        calls::reserve(region.fd(), 8, 4).or_fail("JIT_RESERVE")?;
    }
    region.fill(16 * 500, &[0x90; 8])?;
    Child::of_user(ATTACKER, || {
        let device = calls::open_device()?;
        let argument = CloneFrom {
            source_fd: region.device.as_raw_fd(),
            ..Default::default()
        };
        let copy = calls::clone_region(device.as_raw_fd(), &argument).or_fail("JIT_CLONE")?;
        for range in 0..RANGES {
            let result = calls::fill(copy.as_raw_fd(), 16 * range, &[0x90; 8]);
            match range {
                500 => refused("what was filled before", result, libc::EEXIST)?,
                _ => result.or_fail("JIT_FILL").map(|_| ())?,
            }
        }
        let result = calls::fill(copy.as_raw_fd(), 8, &[0x90]);
        refused("what lies between", result, libc::EEXIST)
    })?
    .join()
}
