// SPDX-License-Identifier: GPL-2.0
//! A publication that replaces as many pages as one can, and takes as long as it
//! can: others go on publishing, and whoever looks at the region's counters gets an
//! answer.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use jitfd_plan::abi::{CREATE_ANY_MM, FILL, JIT_FILL, MAX_SEGMENTS};

use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::kmod::with_parameters;
use crate::suite::memory::{Mapping, debugger_view, load};
use crate::suite::outcome::{Checked, OrFail, Outcome, failed, holds};
use crate::suite::process::{Child, Gate};
use crate::suite::race::needs_two_cpus;
use crate::suite::region::Region;
use crate::suite::shared::{Atomics, Shared};
use crate::suite::sys::PAGE;

use super::bounds::{ATTACKER, RETIRED_REGION, SLOWER, VICTIM};

pub fn tests() -> Vec<Test> {
    tests![
        others_publish_meanwhile,
        counters_are_told_meanwhile,
        fdinfo_is_told_meanwhile,
    ]
}

/// Pages that the first call replaces: two for each segment.
const PAGES: usize = 2 * MAX_SEGMENTS as usize;
/// Calls of one [`Hoarder`]: it uses up the bytes at each page boundary.
const CALLS: usize = 2;

/// A region of which each call replaces [`PAGES`] pages, two and two by an
/// instruction that crosses from one to the other.
pub struct Hoarder {
    /// The region. A page of it stays free for others.
    pub region: Region,
    hole: u64,
}

impl Hoarder {
    /// A new one that anybody may publish into, with code on each page.
    pub fn new() -> Checked<Self> {
        let region = Region::with_flags(PAGES + 2, CREATE_ANY_MM)?;
        let len = (PAGES * PAGE) as u64;
        let hole = calls::reserve(region.fd(), len, 0).or_fail("JIT_RESERVE")?;
        let hoarder = Hoarder { region, hole };
        for first in [0, PAGES / 2] {
            let at = |page: usize| (hole as usize + (first + page) * PAGE + 100) as u64;
            hoarder.fill((0..PAGES / 2).map(at), &[0x90])?;
        }
        Ok(hoarder)
    }

    /// Maps another page of the region, which makes each publication slower, as often
    /// as it is allowed.
    pub fn map_often(&self, times: usize) -> Vec<Mapping> {
        let fd = self.region.device.as_raw_fd();
        let one = || Mapping::of_file(fd, PAGE, libc::PROT_READ, (PAGES + 1) * PAGE);
        (0..times).map_while(|_| one().ok()).collect()
    }

    /// Uses all pages, so that a call has to replace each.
    pub fn touch(&self) {
        for page in 0..PAGES {
            load(self.region.at((page * PAGE) as u64), 1);
        }
    }

    /// One of the two calls.
    pub fn call(&self, number: usize) -> Outcome {
        self.fill(self.boundaries(number), &[0x90; 4])
    }

    /// Where the code of a call goes.
    fn boundaries(&self, number: usize) -> impl DoubleEndedIterator<Item = u64> {
        let hole = self.hole;
        let at = move |page: usize| hole + (page * PAGE) as u64 - 2;
        (number % CALLS + 1..PAGES).step_by(2).map(at)
    }

    /// Whether the code of a call is on its last page and not on its first: pages are
    /// published in this order. This looks at the kernel's copy.
    pub fn is_half_done(&self, number: usize) -> Checked<bool> {
        let is_there = |offset: Option<u64>| {
            let addr = self.region.at(offset.or_fail("a boundary")?);
            let bytes = debugger_view(std::process::id(), addr, 1).or_fail("look at the code")?;
            Ok(bytes != [FILL])
        };
        let mut boundaries = self.boundaries(number);
        let (first, last) = (boundaries.next(), boundaries.next_back());
        Ok(is_there(last)? && !is_there(first)?)
    }

    /// Both calls.
    fn call_often(&self, board: &Board) -> Outcome {
        for number in 0..CALLS {
            self.touch();
            board.during(|| self.call(number))?;
        }
        Ok(())
    }

    fn fill(&self, offsets: impl Iterator<Item = u64>, code: &[u8]) -> Outcome {
        let segments: Vec<_> = offsets
            .map(|offset| calls::segment_at(offset, code))
            .collect();
        let argument = calls::publication(&segments);
        calls::publish(self.region.fd(), JIT_FILL, &argument)
            .or_fail("JIT_FILL")
            .map(|_| ())
    }
}

/// What the processes tell each other.
#[derive(Default)]
pub struct Board {
    /// Calls under way.
    pub calling: AtomicU64,
    /// Calls that have ended.
    pub called: AtomicU64,
    /// What an append takes the victim if nobody does anything, in nanoseconds.
    alone: AtomicU64,
    /// Appends of the victim after that.
    steps: AtomicU64,
    /// It is to be fast.
    hurry: AtomicU64,
    stop: AtomicU64,
}

// SAFETY: zeros are a valid board, and all of it is atomic.
unsafe impl Atomics for Board {}

impl Board {
    /// Has everybody know that `call` is under way.
    pub fn during(&self, call: impl FnOnce() -> Outcome) -> Outcome {
        self.calling.fetch_add(1, SeqCst);
        let outcome = call();
        self.calling.fetch_sub(1, SeqCst);
        self.called.fetch_add(1, SeqCst);
        outcome
    }

    /// Whether a call is under way.
    pub fn is_calling(&self) -> bool {
        self.calling.load(SeqCst) != 0
    }

    /// Waits until a call of `child` is under way.
    pub fn wait_for_call(&self, child: &Child) -> Outcome {
        while !self.is_calling() {
            holds(child.is_alive(), "a child ended early")?;
        }
        Ok(())
    }
}

/// Mappings of another page, where that is still allowed: each call then takes a
/// fifth of a second where publications look at all of them.
const MAPPINGS: usize = 1500;
const ATTACKERS: usize = 2;
const PUBLICATIONS: usize = 4;

/// Two attackers take turns in replacing as many pages as may wait at all. While one
/// is half through, the victim goes on.
fn others_publish_meanwhile() -> Outcome {
    needs_two_cpus()?;
    with_parameters(RETIRED_REGION, || {
        let shared = Shared::<Board>::new()?;
        let board = shared.board();
        let hoarders = (0..PUBLICATIONS)
            .map(|_| Hoarder::new())
            .collect::<Checked<Vec<_>>>()?;
        let victim = Child::of_user(VICTIM, || publish(board))?;
        while board.alone.load(SeqCst) == 0 {
            holds(victim.is_alive(), "the victim publishes")?;
        }
        let alone = Duration::from_nanos(board.alone.load(SeqCst));
        let mut attackers = Vec::new();
        for hoarders in hoarders.chunks(PUBLICATIONS / ATTACKERS) {
            attackers.push(Child::of_user(ATTACKER, || {
                for hoarder in hoarders {
                    let _mappings = hoarder.map_often(MAPPINGS);
                    hoarder.touch();
                    hoarder.call(0)?;
                }
                Ok(())
            })?);
        }
        let (time, steps) = meanwhile(board, &hoarders, &attackers)?;
        attackers.into_iter().try_for_each(Child::join)?;
        board.stop.store(1, SeqCst);
        victim.join()?;
        let what = format!(
            "{steps} appends in {time:?} while another's publication was half done; one takes \
             {alone:?} else"
        );
        // At the begin and the end of each call one may be cut off.
        let bound = alone * SLOWER * (steps + PUBLICATIONS as u32);
        holds(time <= bound, what)
    })
}

/// For how long publications of the attackers were half done, and what the victim did
/// meanwhile.
fn meanwhile(board: &Board, hoarders: &[Hoarder], attackers: &[Child]) -> Checked<(Duration, u32)> {
    let (mut time, mut steps) = (Duration::ZERO, 0);
    let mut since = None;
    while attackers.iter().any(Child::is_alive) {
        let mut is_half_done = false;
        for hoarder in hoarders {
            is_half_done |= hoarder.is_half_done(0)?;
        }
        board.hurry.store(u64::from(is_half_done), SeqCst);
        let now = (Instant::now(), board.steps.load(SeqCst));
        match since {
            None if is_half_done => since = Some(now),
            Some((start, first)) if !is_half_done => {
                time += start.elapsed();
                steps += now.1 - first;
                since = None;
            }
            _ => {}
        }
    }
    Ok((time, u32::try_from(steps).unwrap_or(u32::MAX)))
}

/// The victim. It tells what an append takes, then appends as fast as it can while
/// `hurry`, and else rests: it is not to keep the attackers out.
fn publish(board: &Board) -> Outcome {
    const ALONE: u32 = 500;
    let region = Region::new(8192)?;
    let start = Instant::now();
    (0..ALONE).try_for_each(|_| append(&region))?;
    let alone = start.elapsed() / ALONE;
    board.alone.store(alone.as_nanos() as u64, SeqCst);
    while board.stop.load(SeqCst) == 0 {
        append(&region)?;
        board.steps.fetch_add(1, SeqCst);
        if board.hurry.load(SeqCst) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Appends, and uses the page, so that the next one has to replace it.
fn append(region: &Region) -> Outcome {
    let offset = region.append(&[0x90; 16])?;
    load(region.at(offset), 1);
    Ok(())
}

/// How often a counter must be told while a publication is half done.
const TOLD: u64 = 10;
/// Publications that are tried: meanwhile the machine may do something else.
const TRIES: usize = 10;

fn counters_are_told_meanwhile() -> Outcome {
    are_told(|region, _| calls::stats(region.fd()).or_fail("JIT_STATS").map(|_| ()))
}

fn fdinfo_is_told_meanwhile() -> Outcome {
    are_told(|region, pid| {
        let path = format!("/proc/{pid}/fdinfo/{}", region.fd());
        let text = fs::read_to_string(path).or_fail("read fdinfo")?;
        holds(text.contains("jit-cursor"), "the counters are there")
    })
}

/// Fails unless root gets answers from `ask` while a publication into that region is
/// half done: before and after the answer the last page has it and the first has not.
fn are_told(ask: impl Fn(&Region, libc::pid_t) -> Outcome) -> Outcome {
    needs_two_cpus()?;
    let mut told = 0;
    for _ in 0..TRIES / CALLS {
        let shared = Shared::<Board>::new()?;
        let board = shared.board();
        let hoarder = Hoarder::new()?;
        let end = Gate::new()?;
        let attacker = Child::of_user(ATTACKER, || {
            hoarder.call_often(board)?;
            end.wait()
        })?;
        for call in 1..=CALLS as u64 {
            while board.called.load(SeqCst) < call {
                holds(attacker.is_alive(), "the attacker publishes")?;
                if hoarder.is_half_done(call as usize - 1)? {
                    ask(&hoarder.region, attacker.pid())?;
                    told += u64::from(hoarder.is_half_done(call as usize - 1)?);
                }
            }
        }
        end.open()?;
        attacker.join()?;
        if told >= TOLD {
            return Ok(());
        }
    }
    failed(format!(
        "{told} answers in {TRIES} publications, wanted {TOLD}"
    ))
}
