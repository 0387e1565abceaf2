// SPDX-License-Identifier: GPL-2.0

//! The clock, the CPU, its caches.

use std::arch::x86_64::{_mm_clflush, _mm_lfence, _mm_mfence, _rdtsc};
use std::hint::black_box;
use std::time::Instant;

/// The time-stamp counter, after all instructions before. Reading it is no system
/// call, whatever the kernel thinks of it.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: Every x86-64 CPU has both instructions.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// The start of the run, by both clocks.
pub struct Clock {
    instant: Instant,
    ticks: u64,
}

impl Clock {
    /// Starts to measure the counter's rate.
    pub fn start() -> Self {
        Clock {
            instant: Instant::now(),
            ticks: ticks(),
        }
    }

    /// The counter's rate, from the start until now.
    pub fn ticks_per_nanosecond(&self) -> f64 {
        let passed = ticks() - self.ticks;
        passed as f64 / self.instant.elapsed().as_nanos() as f64
    }
}

/// What this machine is: the CPU's name, and whether it is a virtual one.
pub fn name() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim()))
    };
    let model = value("model name").unwrap_or("a CPU without a name");
    let flags = value("flags").unwrap_or_default();
    Ok(match flags.split(' ').any(|flag| flag == "hypervisor") {
        true => format!("{model}, in a virtual machine"),
        false => model.to_owned(),
    })
}

/// Binds the calling thread, and its children, to `cpu`.
pub fn pin(cpu: usize) -> Result<(), String> {
    // SAFETY: A plain set of bits of this size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    match result {
        0 => Ok(()),
        _ => Err("sched_setaffinity failed".to_owned()),
    }
}

/// Memory that fills the caches.
pub struct Evictor(Vec<u64>);

/// More than the caches of a core have. Under emulation `clflush` does nothing, so
/// this is what makes caches cold there, and the emulated TLB.
const BYTES: usize = 32 << 20;
const LINE: usize = 64;

impl Evictor {
    /// The memory.
    pub fn new() -> Self {
        Evictor(vec![1; BYTES / size_of::<u64>()])
    }

    /// Fills the caches, and flushes the lines at `addresses`.
    pub fn evict(&self, addresses: &[usize]) {
        let words = self.0.iter().step_by(LINE / size_of::<u64>());
        black_box(words.fold(0u64, |sum, word| sum.wrapping_add(*word)));
        for address in addresses {
            // SAFETY: Flushing a line changes nothing; the addresses are those of
            // code and data that live.
            unsafe { _mm_clflush(*address as *const u8) };
        }
        // SAFETY: Every x86-64 CPU has the instruction.
        unsafe { _mm_mfence() };
    }
}
