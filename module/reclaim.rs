// SPDX-License-Identifier: GPL-2.0

//! The reclaim thread: it starts epochs, and gives back the pages whose wait is over.
//! An epoch is over when each CPU that may have had a translation to one of them has
//! flushed, at a tick of its own if it has any (rules R6, R12).
//!
//! Context: process; [`Reclaim::start`] and its drop in the module's init and exit.
//! Holds no lock while it waits or gives back. Sleeps while nothing waits.

use core::ptr::{addr_of, NonNull};

use kernel::{bindings, prelude::*, time::msecs_to_jiffies};

use crate::{
    ffi,
    file_mapping::SomeMms,
    page::Blank,
    percpu::Tickers,
    plan::ledger::{patience, Patience},
    pool,
    retire::{self, harvest},
    tlb::Cpus,
    waiting::complete_epoch,
    wake::{self, IDLE_MS},
};

/// How long a CPU may take to tick before it is interrupted.
const PATIENCE_MS: u32 = 40;

/// Pages that are given back before other threads may have the CPU.
const AT_ONCE: usize = 32;

/// The running reclaim thread.
pub(crate) struct Reclaim {
    task: NonNull<bindings::task_struct>,
    /// What it owns, if it ever runs.
    thread: *mut Thread,
}

// SAFETY: The task is only stopped, which any thread may do; what it owns is used
// when it has ended.
unsafe impl Send for Reclaim {}
// SAFETY: As above.
unsafe impl Sync for Reclaim {}

impl Reclaim {
    /// Starts it. Called once, before any region exists.
    pub(crate) fn start() -> Result<Self> {
        let thread = KBox::init(Thread::new(), GFP_KERNEL)?;
        let data = KBox::into_raw(thread);
        // SAFETY: `main` takes the box.
        let task = unsafe { ffi::jit_kthread_run(main, data.cast()) };
        let task = kernel::error::from_err_ptr(task).inspect_err(|_| {
            // SAFETY: No thread was made that could have taken it.
            drop(unsafe { KBox::from_raw(data) });
        })?;
        // SAFETY: It runs until `drop` has stopped it.
        unsafe { wake::set_thread(task) };
        let task = NonNull::new(task).ok_or(ENOMEM)?;
        Ok(Reclaim { task, thread: data })
    }
}

impl Drop for Reclaim {
    /// Called when no region can be used any more. The thread gives everything
    /// back before it ends.
    fn drop(&mut self) {
        // SAFETY: The thread runs until it is told to stop.
        let status = unsafe { ffi::kthread_stop(self.task.as_ptr()) };
        // SAFETY: There is none any more.
        unsafe { wake::set_thread(core::ptr::null_mut()) };
        if status == EINTR.to_errno() {
            // SAFETY: It was stopped before it ran: `main`, which returns 0, was
            // not called and has not taken the box.
            drop(unsafe { KBox::from_raw(self.thread) });
        }
    }
}

fn jiffies() -> c_ulong {
    // SAFETY: A plain counter, which the timer interrupt changes.
    unsafe { addr_of!(bindings::jiffies).read_volatile() }
}

fn pause(ticks: c_long) {
    // SAFETY: In the kthread, holding no lock.
    unsafe { bindings::schedule_timeout_interruptible(ticks) };
}

/// What the kthread has.
struct Thread {
    tickers: Tickers,
    /// The epoch in flight.
    epoch: Option<Epoch>,
    /// The CPUs that it waits for.
    cpus: Cpus,
}

/// An epoch in flight.
struct Epoch {
    number: i64,
    started: c_ulong,
    /// Flushes and interrupts that took the place of ticks.
    ipis: u64,
}

/// What the kthread does next.
enum Step {
    /// The same after a tick.
    Wait,
    /// Nothing.
    Idle,
}

/// # Safety
///
/// The body of the kthread; `data` is a box of [`Thread`].
unsafe extern "C" fn main(data: *mut c_void) -> c_int {
    // SAFETY: By this function's contract.
    let mut thread = unsafe { KBox::<Thread>::from_raw(data.cast()) };
    let mut last_trim = jiffies();
    while !ffi::must_stop() {
        match thread.step() {
            Step::Wait => pause(1),
            Step::Idle => wake::sleep(),
        }
        if jiffies().wrapping_sub(last_trim) >= msecs_to_jiffies(IDLE_MS) as c_ulong {
            pool::trim_idle();
            last_trim = jiffies();
        }
    }
    thread.finish();
    0
}

impl Thread {
    fn new() -> impl Init<Self, Error> {
        try_init!(Thread {
            tickers: Tickers::new()?,
            epoch: None,
            cpus <- Cpus::none_in_place(),
        })
    }

    /// One look at the epoch in flight.
    fn step(&mut self) -> Step {
        if self.epoch.is_none() {
            self.begin();
        }
        let Some(epoch) = &mut self.epoch else {
            let is_busy = harvest_all(Counts::default());
            return if is_busy || wake::has_work(retire::is_anything_left) {
                Step::Wait
            } else {
                Step::Idle
            };
        };
        if !epoch.poll(&self.tickers, &mut self.cpus) {
            return Step::Wait;
        }
        let (ticks, spared) = self.tickers.counts();
        let counts = Counts {
            ticks,
            spared,
            ipis: epoch.ipis,
        };
        // SAFETY: `poll` says so.
        unsafe { complete_epoch(epoch.number) };
        self.epoch = None;
        self.begin();
        harvest_all(counts);
        Step::Wait
    }

    /// Starts an epoch with all that was retired meanwhile, if anything was.
    fn begin(&mut self) {
        let cpus = &mut self.cpus;
        // SAFETY: No epoch is in flight, so all have flushed.
        unsafe { cpus.forget() };
        let Some(number) = retire::start_epoch(cpus) else {
            return;
        };
        // SAFETY: None is in flight, and numbers ascend.
        unsafe { self.tickers.start_epoch(number, cpus.mms()) };
        cpus.drop_idle();
        for cpu in cpus.iter().filter(|&cpu| ffi::cpu_ticks(cpu)) {
            self.tickers.arm(cpu);
        }
        self.epoch = Some(Epoch {
            number,
            started: jiffies(),
            ipis: 0,
        });
    }

    /// Nobody adds anything any more: flushes and gives back the rest.
    fn finish(&mut self) {
        loop {
            if let Some(epoch) = self.epoch.take() {
                self.cpus.interrupt(&SomeMms::none());
                // SAFETY: All have flushed.
                unsafe { complete_epoch(epoch.number) };
            }
            self.begin();
            if self.epoch.is_none() {
                break;
            }
        }
        while harvest_all(Counts::default()) {}
    }
}

impl Epoch {
    /// Whether all `cpus` are clean. Those that have been waited for too long are
    /// interrupted.
    fn poll(&mut self, tickers: &Tickers, cpus: &mut Cpus) -> bool {
        // SAFETY: Flushed in this epoch is flushed after they were added.
        unsafe { cpus.drop_clean(|cpu| tickers.has_flushed(cpu, self.number)) };
        if cpus.is_empty() {
            return true;
        }
        let age = jiffies().wrapping_sub(self.started);
        match patience(age as u64, msecs_to_jiffies(PATIENCE_MS) as u64) {
            Patience::Wait => false,
            Patience::Interrupt => {
                self.ipis = cpus.interrupt(&SomeMms::none());
                true
            }
        }
    }
}

/// What an epoch has cost.
#[derive(Clone, Copy, Default)]
struct Counts {
    ticks: u64,
    spared: u64,
    ipis: u64,
}

/// Gives back all pages whose wait is over, some of each region after the other.
/// Says whether any region still has pages that wait.
fn harvest_all(counts: Counts) -> bool {
    let mut counts = counts;
    for _ in 0..retire::busy() {
        // SAFETY: In the kthread, holding no lock.
        unsafe { ffi::jit_cond_resched() };
        let Some(region) = retire::next_busy() else {
            break;
        };
        if counts.ipis != 0 {
            region.counters.flushes.add(1);
            region.counters.ipis.add(counts.ipis);
            counts.ipis = 0;
        }
        region.counters.ticks.add(counts.ticks);
        region.counters.spared.add(counts.spared);
        // Filled here, where nobody waits for it.
        while harvest(&region, AT_ONCE, Blank::fill_all) {
            // SAFETY: As above.
            unsafe { ffi::jit_cond_resched() };
        }
        retire::leave_if_idle(&region);
    }
    retire::busy() != 0
}
