// SPDX-License-Identifier: GPL-2.0

//! One round: a region, its publishers in two processes, executors in three,
//! and everything that disturbs them, until all functions are published.

use crate::board::Board;
use crate::random::Random;
use crate::verdict::{self, must};
use crate::{chaos, duel, emit, executor, publisher, revoke, sys, wait};
use jitfd::{AppendHandle, Fallback, Jit, MapHandle, RegionOptions, Stats};
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a round is to do.
pub struct Plan {
    pub seed: u64,
    pub functions: usize,
    pub hotplug: bool,
}

/// What rounds have done.
#[derive(Default)]
pub struct Totals {
    pub rounds: u64,
    calls: u64,
    forks: u64,
    remaps: u64,
    signals: u64,
    offlined: u64,
    published: u64,
    swaps: u64,
    fixups: u64,
    retired: u64,
    freed: u64,
    straddles: u64,
    flushes: u64,
    ipis: u64,
    duels: u64,
    early: u64,
}

impl Totals {
    /// Adds another round.
    pub fn add(&mut self, other: &Totals) {
        self.rounds += other.rounds;
        self.calls += other.calls;
        self.forks += other.forks;
        self.remaps += other.remaps;
        self.signals += other.signals;
        self.offlined += other.offlined;
        self.published += other.published;
        self.swaps += other.swaps;
        self.fixups += other.fixups;
        self.retired += other.retired;
        self.freed += other.freed;
        self.straddles += other.straddles;
        self.flushes += other.flushes;
        self.ipis += other.ipis;
        self.duels += other.duels;
        self.early = other.early;
    }

    /// Fails where something that the run is for has not happened.
    pub fn check(&self) {
        let happened = [
            (self.calls, "no function was called"),
            (self.swaps, "no page-table entry was swapped"),
            (self.forks, "nothing was forked"),
            (self.remaps, "nothing was remapped"),
            (self.signals, "no signal was sent"),
            (self.early, "nobody executed before there was code"),
            (self.straddles, "no fill was next to live code"),
        ];
        for (count, complaint) in happened {
            if count == 0 {
                verdict::fail(complaint);
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "rounds={} published={} calls={} swaps={} fixups={} retired={} freed={} straddles={} \
             flushes={} ipis={} forks={} remaps={} signals={} offlined={} duels={} early={} wrong=0",
            self.rounds,
            self.published,
            self.calls,
            self.swaps,
            self.fixups,
            self.retired,
            self.freed,
            self.straddles,
            self.flushes,
            self.ipis,
            self.forks,
            self.remaps,
            self.signals,
            self.offlined,
            self.duels,
            self.early
        )
    }
}

/// What the signal handler executes: set while a round runs.
static HANDLER_BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());
static HANDLER_BASE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
}

fn on_signal() {
    let board = HANDLER_BOARD.load(Ordering::Acquire);
    if board.is_null() || IN_HANDLER.replace(true) {
        return;
    }
    // SAFETY: Boards are leaked, so the pointer stays valid.
    let board = unsafe { &*board };
    let base = HANDLER_BASE.load(Ordering::Relaxed);
    executor::some(base, board, &mut Random::new(base as u64, 77), 4);
    IN_HANDLER.set(false);
}

/// Threads of the first process that do nothing but execute.
const EXECUTORS: u64 = 2;

/// Everything that the threads of a round share.
struct Scene<'a> {
    plan: &'a Plan,
    map: &'a MapHandle,
    append: &'a AppendHandle,
    board: &'a Board,
    base: usize,
    len: usize,
    executors: Mutex<Vec<libc::pid_t>>,
}

impl Scene<'_> {
    fn random(&self, who: u64) -> Random {
        Random::new(self.plan.seed, who)
    }

    fn execute(&self, who: u64) {
        let mut executors = self
            .executors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        executors.push(sys::thread_id());
        drop(executors);
        executor::run(self.base, self.board, self.random(who));
    }

    fn threads(&self) -> Vec<libc::pid_t> {
        let executors = self.executors.lock();
        executors.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn signal(&self) {
        let missing = || EXECUTORS.checked_sub(self.threads().len() as u64 + 1);
        wait::until("executors", Duration::from_millis(1), missing);
        chaos::signal(&self.threads(), self.board, self.random(14));
    }

    /// The threads of the first process.
    fn play(&self) {
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| publisher::run(self.append, self.board, self.random(1)));
            for who in 0..EXECUTORS {
                scope.spawn(move || self.execute(2 + who));
            }
            scope.spawn(|| chaos::fork(self.base, self.board, self.random(11)));
            scope.spawn(|| chaos::protect(self.base, self.len, self.board, self.random(16)));
            scope.spawn(|| chaos::remap(self.map, self.len, self.board, self.random(12)));
            scope.spawn(|| chaos::migrate(self.base, self.board, self.random(13)));
            scope.spawn(|| self.signal());
            if self.plan.hotplug {
                scope.spawn(|| chaos::hotplug(self.board, self.random(15)));
            }
            self.wait_for_functions(|| publisher.is_finished());
            if publisher.join().is_err() {
                verdict::fail("the publisher panicked");
            }
            self.wait_for_functions(|| false);
            self.board.shared().stop.store(1, Ordering::Relaxed);
        });
    }

    /// Until every function is there, as another process publishes, too, or it is `over`.
    fn wait_for_functions(&self, over: impl Fn() -> bool) {
        let missing = |id: &usize| self.board.find(*id).is_none();
        // The last numbers of a batch that no longer fitted stay unused.
        let last = self.board.capacity().saturating_sub(64);
        let count = || (0..last).filter(missing).count() as u64;
        wait::until(
            "functions to be published",
            Duration::from_millis(2),
            || Some(count()).filter(|&count| count != 0 && !over()),
        );
    }
}

/// A second process, with a mapping of its own elsewhere, that publishes and
/// executes.
fn other_process(map: &MapHandle, append: &AppendHandle, board: &Board, plan: &Plan, len: usize) {
    let mapping = must(map.map(len, None), "the other process's mapping");
    std::thread::scope(|scope| {
        scope.spawn(|| publisher::run(append, board, Random::new(plan.seed, 21)));
        scope.spawn(|| executor::run(mapping.address(), board, Random::new(plan.seed, 22)));
    });
}

/// Runs one round.
pub fn run(plan: &Plan) -> Totals {
    let len = (plan.functions * emit::MAX_LEN).next_multiple_of(1 << 16);
    let options = RegionOptions {
        capacity: len,
        any_process: true,
        boundary_map: false,
        ..Default::default()
    };
    let (map, append, mapping) = must(
        Jit::open(Fallback::Never).and_then(|jit| jit.region(options)),
        "create",
    )
    .split();
    // Leaked: the signal handler may look at it at any time.
    let board: &Board = Box::leak(Box::new(Board::new(plan.functions)));
    HANDLER_BASE.store(mapping.address(), Ordering::Relaxed);
    HANDLER_BOARD.store(std::ptr::from_ref(board).cast_mut(), Ordering::Release);
    sys::install_handlers(on_signal);
    let other = sys::fork(|| other_process(&map, &append, board, plan, len));
    let scene = Scene {
        plan,
        map: &map,
        append: &append,
        board,
        base: mapping.address(),
        len,
        executors: Mutex::new(Vec::new()),
    };
    scene.play();
    sys::join(other);
    HANDLER_BOARD.store(std::ptr::null_mut(), Ordering::Release);
    let mut totals = totals(board, &settle(&map));
    totals.duels += duel::fault() + duel::stale() + revoke::fight();
    for outcome in [duel::fight(false), duel::fight(true)] {
        totals.duels += outcome.duels;
        totals.straddles += outcome.straddles;
        totals.early = outcome.early;
    }
    totals
}

/// Waits until all replaced pages are freed.
fn settle(map: &MapHandle) -> Stats {
    let stats = || must(map.stats(), "stats");
    wait::until("pages to be freed", Duration::from_millis(5), || {
        let stats = stats();
        Some(stats.retired - stats.freed).filter(|&pages| pages != 0)
    });
    stats()
}

fn totals(board: &Board, stats: &Stats) -> Totals {
    let shared = board.shared();
    Totals {
        rounds: 1,
        calls: shared.calls.load(Ordering::Relaxed),
        forks: shared.forks.load(Ordering::Relaxed),
        remaps: shared.remaps.load(Ordering::Relaxed),
        signals: shared.signals.load(Ordering::Relaxed),
        offlined: shared.offlined.load(Ordering::Relaxed),
        duels: 0,
        early: 0,
        published: stats.segments,
        swaps: stats.swaps,
        fixups: stats.fixups,
        retired: stats.retired,
        freed: stats.freed,
        straddles: stats.straddles,
        flushes: stats.flushes,
        ipis: stats.ipis,
    }
}
