// SPDX-License-Identifier: GPL-2.0
//! The race that the #BP fixup is for: code is executed on another CPU the
//! moment it is published, through an entry of the page as it was before.
//!
//! One thread publishes and tells the address by an atomic store; others wait
//! for it and jump there at once.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::thread;
use std::time::Duration;

use jitfd_plan::abi;

use super::asm;
use super::calls;
use super::execute::guarded;
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use super::patience::reaches;
use super::process::Child;
use super::race::{
    Board, Shared, append_identity, append_identity_at, freed, had_fixups, identity, is_emulated,
    needs_two_cpus, with_executors,
};
use super::random::Random;
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    let limit = Duration::from_secs(120);
    tests![
        appended_code_runs_at_once,
        appended_batches_run_at_once,
        code_across_pages_runs_at_once,
        filled_code_runs_at_once,
        code_runs_at_once_in_another_process,
        code_runs_at_once_in_two_mappings,
        code_runs_at_once_under_signals,
        code_runs_at_once_with_sigtrap_blocked,
        code_runs_at_once_while_mappings_change,
        synchronous_data_is_never_stale,
        fresh_data_is_never_stale,
        two_byte_int_3_is_never_mistaken,
        two_byte_int_3_across_pages_is_never_mistaken,
        a_cd_before_the_mapping_is_of_no_int_3,
        early_jump_finds_all_or_nothing,
        early_jump_across_pages_finds_all_or_nothing,
        early_jump_to_new_pages_finds_all_or_nothing,
        old_code_stays_right_while_pages_are_reused,
        replaced_pages_are_freed_soon,
        publishing_sends_no_interrupts,
    ]
    .into_iter()
    .map(|test| test.within(limit))
    .collect()
}

const FUNCTIONS: u64 = 3000;

fn appended_code_runs_at_once() -> Outcome {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..FUNCTIONS {
                board.announce(append_identity(&region)?, 1)?;
            }
            Ok(())
        },
    )?;
    had_fixups(&region)
}

fn appended_batches_run_at_once() -> Outcome {
    let region = Region::new(64)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..300 {
                append_batch(&region, board)?;
            }
            Ok(())
        },
    )?;
    had_fixups(&region)
}

/// Appends 20 functions in one call and has each run.
fn append_batch(region: &Region, board: &Board) -> Outcome {
    let at = region.stats()?.cursor.next_multiple_of(8);
    let codes: Vec<Vec<u8>> = (0..20).map(|index| identity(at + 8 * index)).collect();
    let segments: Vec<abi::Segment> = codes
        .iter()
        .map(|code| abi::Segment {
            align_log2: 3,
            ..calls::segment(code)
        })
        .collect();
    let argument = calls::publication(&segments);
    calls::publish(region.fd(), abi::JIT_APPEND, &argument).or_fail("a batch")?;
    (0..20)
        .rev()
        .try_for_each(|index| board.announce(at + 8 * index, 1))
}

/// Each function starts before a page boundary and ends behind it.
fn code_across_pages_runs_at_once() -> Outcome {
    let region = Region::new(502)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for page in 1..=500u64 {
                let start = page * PAGE as u64 - 1 - page % 5;
                // The code before and behind makes both pages live.
                for offset in [start - 6, start, start + 6] {
                    board.announce(append_identity_at(&region, offset)?, 1)?;
                }
            }
            Ok(())
        },
    )?;
    had_fixups(&region)
}

fn filled_code_runs_at_once() -> Outcome {
    let region = Region::new(16)?;
    let count = 2000;
    let hole = calls::reserve(region.fd(), count * 16, 0).or_fail("JIT_RESERVE")?;
    let mut stubs: Vec<u64> = (0..count).map(|index| hole + 16 * index).collect();
    let mut random = Random::new(7);
    for index in (1..stubs.len()).rev() {
        stubs.swap(index, random.below(index + 1));
    }
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            stubs.iter().try_for_each(|&stub| {
                region.fill(stub, &identity(stub))?;
                board.announce(stub, 1)
            })
        },
    )?;
    had_fixups(&region)
}

fn code_runs_at_once_in_another_process() -> Outcome {
    needs_two_cpus()?;
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    let child = Child::start(|| {
        board.execute(0, |offset| region.at(offset));
        equal("wrong results", board.wrong.load(Relaxed), 0)
    })?;
    for _ in 0..FUNCTIONS / 2 {
        board.announce(append_identity(&region)?, 1)?;
    }
    board.stop.store(true, Release);
    child.join()?;
    had_fixups(&region)
}

fn code_runs_at_once_in_two_mappings() -> Outcome {
    let region = Region::new(16)?;
    let fd = region.device.as_raw_fd();
    let second = Mapping::of_file(fd, 16 * PAGE, sys::RX, 0).or_fail("mmap again")?;
    let shared = Shared::new()?;
    let board = shared.board();
    let base = |executor: usize, offset: u64| match executor {
        0 => region.at(offset),
        _ => second.addr() + offset as usize,
    };
    with_executors(2, board, base, || {
        for _ in 0..400 {
            board.announce(append_identity(&region)?, 2)?;
        }
        Ok(())
    })?;
    had_fixups(&region)
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Relaxed);
}

/// An interval timer interrupts whichever thread runs, every millisecond.
fn start_signals() -> Outcome {
    let handler: extern "C" fn(i32) = count_signal;
    let every = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        },
        it_value: libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        },
    };
    // SAFETY: the handler only adds to an atomic; the value is complete.
    let result = unsafe {
        libc::signal(libc::SIGPROF, handler as libc::sighandler_t);
        libc::setitimer(libc::ITIMER_PROF, &every, std::ptr::null_mut())
    };
    sys::check(i64::from(result))
        .or_fail("setitimer")
        .map(|_| ())
}

fn code_runs_at_once_under_signals() -> Outcome {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    start_signals()?;
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for number in 1..=FUNCTIONS / 2 {
                board.announce(append_identity(&region)?, 1)?;
                // A fast machine would be through before any has come.
                reaches("signals", number / 100, || Ok(SIGNALS.load(Relaxed)))?;
            }
            Ok(())
        },
    )?;
    had_fixups(&region)
}

/// A #BP that was delivered would end the process.
fn code_runs_at_once_with_sigtrap_blocked() -> Outcome {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    block_sigtrap()?;
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..FUNCTIONS / 3 {
                board.announce(append_identity(&region)?, 1)?;
            }
            Ok(())
        },
    )?;
    had_fixups(&region)
}

/// Blocks SIGTRAP in this thread and those it starts.
fn block_sigtrap() -> Outcome {
    // SAFETY: the set is initialised before it is used.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTRAP);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    sys::check(i64::from(result))
        .or_fail("sigprocmask")
        .map(|_| ())
}

/// mmap() and munmap() by a third thread hold mmap_lock while #BPs come.
fn code_runs_at_once_while_mappings_change() -> Outcome {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !board.stop.load(Acquire) {
                let Ok(pages) = Mapping::anonymous(4) else {
                    break;
                };
                pages.write(0, &[1]);
            }
        });
        let outcome = with_executors(
            1,
            board,
            |_, offset| region.at(offset),
            || {
                for _ in 0..FUNCTIONS / 5 {
                    board.announce(append_identity(&region)?, 1)?;
                }
                Ok(())
            },
        );
        board.stop.store(true, Release);
        outcome
    })?;
    had_fixups(&region)
}

/// Code with data of its own, at once on another CPU that has the page cached.
fn data_is_never_stale(flags: u32, pages: usize, count: u64) -> Checked<Region> {
    let region = Region::new(pages)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..count {
                let stats = region.stats()?;
                let fresh = flags & abi::PUBLISH_FRESH != 0;
                let align = if fresh { PAGE as u64 } else { 1 };
                let at = stats.cursor.next_multiple_of(align);
                let code = asm::load_own_data(at as u32);
                equal("the offset", region.append_with(&code, flags)?, at)?;
                board.announce(at, 1)?;
            }
            Ok(())
        },
    )?;
    Ok(region)
}

fn synchronous_data_is_never_stale() -> Outcome {
    let region = data_is_never_stale(abi::PUBLISH_SYNC, 16, 800)?;
    holds(region.stats()?.flushes > 0, "the flag costs flushes")
}

fn fresh_data_is_never_stale() -> Outcome {
    let region = data_is_never_stale(abi::PUBLISH_FRESH, 600, 500)?;
    equal("flushes", region.stats()?.flushes, 0)
}

/// Functions that start with the byte 03 behind a CD: a stale trap at their
/// start looks like a two-byte int 3, and must not be delivered.
fn two_byte_int_3_is_never_mistaken() -> Outcome {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || (0..400).try_for_each(|round| board.announce(append_behind_cd(&region, round)?, 1)),
    )
}

/// Appends a CD, then `add eax, eax` (03 C0), then the answer: in one
/// publication or in two.
fn append_behind_cd(region: &Region, round: u64) -> Checked<u64> {
    let at = region.stats()?.cursor.next_multiple_of(16) + 1;
    region.skip_to(at - 1)?;
    let mut code = vec![0xcd, 0x03, 0xc0];
    code.extend(identity(at));
    if round % 2 == 0 {
        region.append(&code)?;
    } else {
        region.append(&code[..1])?;
        region.append(&code[1..])?;
    }
    Ok(at)
}

/// The same, where the 03 begins a page that is in use, and the CD comes last,
/// on a page that nobody can have cached.
fn two_byte_int_3_across_pages_is_never_mistaken() -> Outcome {
    let region = Region::new(200)?;
    let len = region.stats()?.capacity;
    calls::reserve(region.fd(), len, 0).or_fail("JIT_RESERVE")?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            (1..len / PAGE as u64).step_by(2).try_for_each(|page| {
                let at = page * PAGE as u64;
                region.fill(at + 16, &identity(at + 16))?;
                board.announce(at + 16, 1)?;
                let code = [&[0x03, 0xc0][..], &identity(at)].concat();
                region.fill(at, &code)?;
                if page % 4 == 1 {
                    // Executed for the first time while the CD is published.
                    board.tell(at);
                }
                region.fill(at - 1, &[0xcd])?;
                board.announce(at, 1)
            })
        },
    )
}

/// Each page of the region is mapped by itself, behind a byte of the program's own
/// that is CD.
fn a_cd_before_the_mapping_is_of_no_int_3() -> Outcome {
    const PAGES: usize = 100;
    let region = Region::new(PAGES)?;
    let len = region.stats()?.capacity;
    calls::reserve(region.fd(), len, 0).or_fail("JIT_RESERVE")?;
    let arena = Mapping::shared(2 * PAGES)?;
    arena.write(0, &vec![0xcd; arena.len()]);
    let page_at = |page: usize| arena.addr() + (2 * page + 1) * PAGE;
    for page in 0..PAGES {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let (fd, offset) = (region.device.as_raw_fd(), page * PAGE);
        sys::mmap(page_at(page), PAGE, sys::RX, flags, fd, offset).or_fail("mmap")?;
    }
    let address = |_, offset: u64| page_at(offset as usize / PAGE) + offset as usize % PAGE;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(1, board, address, || {
        (0..len).step_by(PAGE).try_for_each(|at| {
            region.fill(at + 64, &identity(at + 64))?;
            board.announce(at + 64, 1)?;
            let code = [&[0x03, 0xc0][..], &identity(at)].concat();
            region.fill(at, &code)?;
            board.announce(at, 1)
        })
    })
}

/// Jumps to each of `places` in turn, from before it is published until its
/// code has run. Nothing is there at first: a trap at its very first byte, or
/// SIGBUS. Then all of it is there. `early` is the number of the places where there
/// was nothing yet.
fn jump_early(region: &Region, places: &[u64], early: &AtomicU64) -> Outcome {
    for (number, &place) in (1..).zip(places) {
        let addr = region.at(place);
        loop {
            match guarded(addr)? {
                Ok(value) => {
                    equal("the result", value, place)?;
                    break;
                }
                Err(trap) => {
                    let nothing = (trap.signal == libc::SIGTRAP && trap.ip == addr + 1)
                        || (trap.signal == libc::SIGBUS && trap.ip == addr);
                    holds(nothing, format!("{trap:x?} before {addr:#x} is published"))?;
                    early.store(number, Release);
                }
            }
        }
    }
    Ok(())
}

/// Publishes at each of `places` while another thread jumps there already.
fn publish_under_jumps(region: &Region, places: &[u64]) -> Outcome {
    needs_two_cpus()?;
    let early = AtomicU64::new(0);
    thread::scope(|scope| {
        let jumper = scope.spawn(|| jump_early(region, places, &early));
        for (number, &place) in (1..).zip(places) {
            while early.load(Acquire) != number && !jumper.is_finished() {
                thread::yield_now();
            }
            region.fill(place, &identity(place))?;
        }
        jumper.join().ok().or_fail("the thread panicked")?
    })
}

fn early_jump_finds_all_or_nothing() -> Outcome {
    let region = Region::new(8)?;
    let hole = calls::reserve(region.fd(), 8 * PAGE as u64, 0).or_fail("JIT_RESERVE")?;
    let places: Vec<u64> = (0..1000).map(|index| hole + 16 * index).collect();
    publish_under_jumps(&region, &places)
}

/// Places of which the code lies on both sides of a page boundary.
fn across_boundaries(pages: u64) -> Vec<u64> {
    (1..pages)
        .map(|page| page * PAGE as u64 - 1 - page % 5)
        .collect()
}

/// Both pages are live.
fn early_jump_across_pages_finds_all_or_nothing() -> Outcome {
    const PAGES: u64 = 600;
    let region = Region::new(PAGES as usize)?;
    calls::reserve(region.fd(), PAGES * PAGE as u64, 0).or_fail("JIT_RESERVE")?;
    for page in 0..PAGES {
        let offset = page * PAGE as u64 + 100;
        region.fill(offset, &identity(offset))?;
        region.answers(offset, offset as u32)?;
    }
    publish_under_jumps(&region, &across_boundaries(PAGES))
}

/// Neither page exists before.
fn early_jump_to_new_pages_finds_all_or_nothing() -> Outcome {
    const PAGES: u64 = 600;
    let region = Region::new(PAGES as usize)?;
    calls::reserve(region.fd(), PAGES * PAGE as u64, 0).or_fail("JIT_RESERVE")?;
    let places: Vec<u64> = across_boundaries(PAGES).into_iter().step_by(2).collect();
    publish_under_jumps(&region, &places)
}

/// A thread runs one old function, through an entry that it keeps cached, while
/// versions of its page are replaced and their memory is used for other code.
fn old_code_stays_right_while_pages_are_reused() -> Outcome {
    needs_two_cpus()?;
    const ROUNDS: usize = 600;
    let region = Region::new(ROUNDS + 2)?;
    region.append(&asm::answer(1))?;
    let hole = calls::reserve(region.fd(), PAGE as u64 - 6, 0).or_fail("JIT_RESERVE")?;
    let other: Vec<u8> = asm::answer(0xbad).repeat(PAGE / 6);
    let (stop, runs) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let runner = scope.spawn(|| {
            while !stop.load(Relaxed) {
                region.answers(0, 1)?;
                runs.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        let outcome = (0..ROUNDS as u64).try_for_each(|round| {
            region.fill(hole + 6 * round, &asm::answer(2))?;
            // From time to time there is no page but those that were replaced.
            if round % 20 == 19 {
                freed(&region)?;
            }
            let before = runs.load(Relaxed);
            region.append_with(&other, abi::PUBLISH_FRESH)?;
            reaches("runs", before + 2, || Ok(runs.load(Relaxed)))
        });
        stop.store(true, Relaxed);
        runner.join().ok().or_fail("the thread panicked")??;
        outcome
    })?;
    holds(region.stats()?.retired > 100, "pages were replaced")
}

fn replaced_pages_are_freed_soon() -> Outcome {
    let region = Region::new(4)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..600 {
                board.announce(append_identity(&region)?, 1)?;
            }
            // An emulated CPU may be late.
            let looks = if is_emulated() { 1000 } else { 100 };
            for _ in 0..looks {
                let stats = region.stats()?;
                if stats.retired == stats.freed {
                    return holds(stats.retired > 300, "pages were replaced");
                }
                // Counted in what this CPU gets to do, which on a busy host is not much:
                // a timer interrupt for each look.
                thread::sleep(Duration::from_millis(1));
            }
            failed(format!("not freed after {looks} looks"))
        },
    )
}

/// Neither publications nor the freeing of pages; an emulated CPU that does not
/// tick in time is interrupted once for a whole batch of pages.
fn publishing_sends_no_interrupts() -> Outcome {
    let mut seen = Vec::new();
    // On a busy host a CPU may be late more often, but not each time.
    for _ in 0..5 {
        let stats = publish_in_peace()?;
        if stats.ipis <= stats.publications / 100 {
            return Ok(());
        }
        seen.push((stats.ipis, stats.publications));
    }
    failed(format!("interrupts of publications: {seen:?}"))
}

/// What publications for one executor count.
fn publish_in_peace() -> Checked<abi::Stats> {
    let region = Region::new(16)?;
    let shared = Shared::new()?;
    let board = shared.board();
    with_executors(
        1,
        board,
        |_, offset| region.at(offset),
        || {
            for _ in 0..FUNCTIONS / 2 {
                board.announce(append_identity(&region)?, 1)?;
            }
            freed(&region).map(|_| ())
        },
    )?;
    region.stats()
}
