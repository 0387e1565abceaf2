// SPDX-License-Identifier: GPL-2.0

//! One pinned timer per CPU that flushes this CPU's user TLB when its tick
//! comes, if it runs one of the address spaces concerned: a flush without an
//! interrupt of its own. A CPU that runs something else is left alone: its TLB's
//! entries are under another tag, and it flushes before it comes back, because
//! the generation was bumped.
//!
//! Context: [`Tickers::arm`] in the reclaim thread; the timer itself in softirq.
//! Epochs: epoch e starts after the entries that it is about were swapped; a CPU
//! that flushed and then stored a number of at least e is clean.

use kernel::{
    alloc::KVVec,
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        static_lock_class,
    },
    types::Opaque,
};

use crate::{
    ffi,
    plan::mms::{Mms, MM_WORDS},
};

/// The epoch in flight.
static EPOCH: Atomic<i64> = Atomic::new(0);
/// The address spaces that it is about. Written before `EPOCH` while no epoch is
/// in flight.
static MMS: [Atomic<u64>; MM_WORDS] = [const { Atomic::new(0) }; MM_WORDS];
/// Flushes, and CPUs that were left alone, in this epoch.
static FLUSHES: Atomic<i64> = Atomic::new(0);
static SPARED: Atomic<i64> = Atomic::new(0);

/// What one CPU has.
///
/// # Invariants
///
/// `timer` is initialised, and pinned inside a [`Tickers`].
struct Ticker {
    timer: Opaque<bindings::timer_list>,
    armed: Atomic<bool>,
    flushed: Atomic<i64>,
}

/// The tickers, by CPU.
static TICKERS: Atomic<*mut Ticker> = Atomic::new(core::ptr::null_mut());

/// Owns the tickers of all CPUs. There is one at a time.
pub(crate) struct Tickers(KVVec<Ticker>);

// SAFETY: A ticker's fields are atomics and a timer that the kernel guards.
unsafe impl Send for Ticker {}
// SAFETY: As above.
unsafe impl Sync for Ticker {}

impl Tickers {
    /// One ticker per possible CPU.
    pub(crate) fn new() -> Result<Self> {
        let cpus = kernel::cpu::nr_cpu_ids() as usize;
        let mut tickers = KVVec::with_capacity(cpus, GFP_KERNEL)?;
        for _ in 0..cpus {
            tickers.push(
                Ticker {
                    timer: Opaque::uninit(),
                    armed: Atomic::new(false),
                    flushed: Atomic::new(0),
                },
                GFP_KERNEL,
            )?;
        }
        // The vector never grows again, so the timers stay where they are.
        for ticker in tickers.iter_mut() {
            // INVARIANT: Initialised here.
            // SAFETY: The timer stays in place until `drop` has stopped it.
            unsafe {
                bindings::timer_init_key(
                    ticker.timer.get(),
                    Some(on_tick),
                    bindings::TIMER_PINNED,
                    c"jit_tick".as_char_ptr(),
                    static_lock_class!().as_ptr(),
                )
            };
        }
        TICKERS.store(tickers.as_mut_ptr(), Release);
        Ok(Tickers(tickers))
    }

    /// Starts an epoch that is about `mms`.
    ///
    /// # Safety
    ///
    /// The one before has ended, and its number was lower.
    pub(crate) unsafe fn start_epoch(&mut self, epoch: i64, mms: Mms) {
        for (word, bits) in MMS.iter().zip(mms.words()) {
            word.store(bits, Relaxed);
        }
        FLUSHES.store(0, Relaxed);
        SPARED.store(0, Relaxed);
        EPOCH.xchg(epoch, Full);
    }

    /// Flushes at a tick in the epoch in flight, and CPUs that were left alone.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |counter: &Atomic<i64>| counter.load(Relaxed).unsigned_abs();
        (count(&FLUSHES), count(&SPARED))
    }

    /// Asks `cpu` to flush at its next tick.
    pub(crate) fn arm(&self, cpu: usize) {
        let Some(ticker) = self.0.get(cpu) else {
            return;
        };
        if ticker.armed.xchg(true, Full) {
            return;
        }
        // SAFETY: The timer is initialised by the type invariants, and not
        // pending: `armed` was false, so it has run since it was last added.
        unsafe {
            let timer = ticker.timer.get();
            (*timer).expires = bindings::jiffies + 1;
            bindings::add_timer_on(timer, cpu as c_int);
        }
    }

    /// Whether `cpu` has flushed since `epoch` started.
    pub(crate) fn has_flushed(&self, cpu: usize, epoch: i64) -> bool {
        self.0
            .get(cpu)
            .is_some_and(|ticker| ticker.flushed.load(Acquire) >= epoch)
    }
}

impl Drop for Tickers {
    fn drop(&mut self) {
        for ticker in self.0.iter() {
            // SAFETY: Initialised by the type invariants; nobody arms it now.
            unsafe { bindings::timer_delete_sync(ticker.timer.get()) };
        }
        TICKERS.store(core::ptr::null_mut(), Relaxed);
    }
}

/// # Safety
///
/// Called by the kernel's timer code for the timer of a [`Ticker`].
unsafe extern "C" fn on_tick(timer: *mut bindings::timer_list) {
    // SAFETY: By this function's contract the timer is a field of a ticker.
    let ticker = unsafe {
        &*timer
            .byte_sub(core::mem::offset_of!(Ticker, timer))
            .cast::<Ticker>()
    };
    // Before the epoch is read: whoever starts the next one from here on arms
    // the timer again.
    ticker.armed.xchg(false, Full);
    let tickers = TICKERS.load(Acquire);
    // The epoch is read before the flush, so the flush is after its start.
    let epoch = EPOCH.load(Acquire);
    let mms = Mms::from_words(MMS.each_ref().map(|word| word.load(Relaxed)));
    if mms.may_hold(ffi::active_mm()) {
        ffi::flush_local();
        FLUSHES.fetch_add(1, Relaxed);
    } else {
        SPARED.fetch_add(1, Relaxed);
    }
    // When a CPU goes offline its timers move to another: what has flushed is
    // the CPU that this runs on, whichever it is.
    let here = kernel::cpu::CpuId::current().as_u32() as usize;
    // SAFETY: Timers run only between `Tickers::new` and its drop, and the
    // vector has an element for each CPU.
    unsafe { (*tickers.add(here)).flushed.store(epoch, Release) };
}
