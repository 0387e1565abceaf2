// SPDX-License-Identifier: GPL-2.0

//! System calls of the stress that the library does not have. The only unsafe
//! code here beside the call of a published function.

use crate::board::Shared;
use crate::verdict;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

fn check(result: libc::c_int, what: &str) {
    if result < 0 {
        verdict::fail(format_args!("{what}: {}", std::io::Error::last_os_error()));
    }
}

/// Ends the process without running anything else of it.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: Always allowed.
    unsafe { libc::_exit(status) }
}

/// Memory that this process and its children share, zeroed.
pub fn shared_board(words: usize) -> (&'static Shared, &'static [AtomicU64]) {
    let header = size_of::<Shared>().next_multiple_of(64);
    let len = header + words * size_of::<AtomicU64>();
    // SAFETY: A new mapping, of nothing that exists.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        verdict::fail("no memory for the board");
    }
    // SAFETY: The mapping is zeroed, large and aligned enough, holds atomics
    // only and is never unmapped.
    unsafe {
        let shared = &*memory.cast::<Shared>();
        let words = std::slice::from_raw_parts(memory.byte_add(header).cast(), words);
        (shared, words)
    }
}

/// Runs `child` in a forked process and returns its pid. The child ends with
/// status 0 unless it fails.
pub fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: The child runs `child` and ends; it only uses what fork keeps
    // (the C library's allocator is made safe for forks of threaded programs).
    let pid = unsafe { libc::fork() };
    check(pid, "fork");
    if pid == 0 {
        child();
        exit_now(0);
    }
    pid
}

/// Waits for a child and fails if it failed.
pub fn join(pid: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours.
        let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            verdict::fail(format_args!("waitpid: {error}"));
        }
    }
    if status != 0 {
        verdict::fail(format_args!("a child ended with wait status {status:#x}"));
    }
}

/// Binds the calling thread to `cpu`; an off-line CPU is no error.
pub fn migrate(cpu: usize) {
    // SAFETY: A plain set of bits of this size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// The calling thread's number, for [`signal`].
pub fn thread_id() -> libc::pid_t {
    // SAFETY: Always allowed.
    unsafe { libc::gettid() }
}

/// Sends SIGUSR1 to a thread of this process, if it is still there.
pub fn signal(thread: libc::pid_t) {
    // SAFETY: Always allowed; the handler is set up by `install_handlers`.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
}

/// How many CPUs there are, on or off line.
pub fn cpus() -> usize {
    // SAFETY: Always allowed.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// What SIGUSR1 does: set by the round, called in the handler.
static ON_SIGNAL: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();

extern "C" fn on_usr1(_: libc::c_int) {
    if let Some(action) = ON_SIGNAL.get() {
        action();
    }
}

/// Where a thread may execute before there is code.
static EARLY: AtomicUsize = AtomicUsize::new(0);
static EARLY_TRAPS: AtomicU64 = AtomicU64::new(0);

/// From now on a trap of the 0xCC at `address` is not a crash: it is repeated.
pub fn expect_early_traps(address: usize) {
    EARLY.store(address, Ordering::Relaxed);
}

/// How often that happened.
pub fn early_traps() -> u64 {
    EARLY_TRAPS.load(Ordering::Relaxed)
}

/// What threads may be kept from executing for a while.
static REVOKED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// From now on a fault on the page of `address` is not a crash: it is repeated. 0 ends
/// that.
pub fn expect_revoked(address: usize) {
    REVOKED.store(address, Ordering::Relaxed);
}

/// How often that happened.
pub fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

fn is_revoked(signal: libc::c_int, address: usize) -> bool {
    let revoked = signal == libc::SIGSEGV && address >> 12 == REVOKED.load(Ordering::Relaxed) >> 12;
    REFUSED.fetch_add(u64::from(revoked), Ordering::Relaxed);
    revoked
}

/// Steps back to an instruction that was not there yet.
fn repeat_early(signal: libc::c_int, context: &mut libc::ucontext_t) -> bool {
    let ip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    if signal != libc::SIGTRAP || *ip as usize != EARLY.load(Ordering::Relaxed) + 1 {
        return false;
    }
    *ip -= 1;
    EARLY_TRAPS.fetch_add(1, Ordering::Relaxed);
    true
}

extern "C" fn on_crash(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: The kernel passes valid pointers for SA_SIGINFO.
    let (address, context) = unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        ((*info).si_addr() as usize, context)
    };
    if repeat_early(signal, context) || is_revoked(signal, address) {
        return;
    }
    let ip = context.uc_mcontext.gregs[libc::REG_RIP as usize];
    verdict::fail(format_args!(
        "signal {signal} at ip {ip:#x}, address {address:#x}"
    ));
}

/// From now on SIGUSR1 calls `action`, and a crash of any kind is reported.
pub fn install_handlers(action: fn()) {
    let _ = ON_SIGNAL.set(action);
    let crash: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_crash;
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP] {
        handle(signal, crash as usize, libc::SA_SIGINFO | libc::SA_NODEFER);
    }
    let usr1: extern "C" fn(libc::c_int) = on_usr1;
    handle(libc::SIGUSR1, usr1 as usize, libc::SA_RESTART);
}

fn handle(signal: libc::c_int, handler: usize, flags: libc::c_int) {
    // SAFETY: The handlers above have the types that their flags ask for.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    check(result, "sigaction");
}

/// Moves a mapping elsewhere and back again, then cuts a hole into a second
/// mapping of the same pages. All of it at addresses that only the caller uses.
pub fn move_mapping(address: usize, len: usize) -> usize {
    // SAFETY: The range is a mapping that the caller alone uses.
    let moved = unsafe {
        let target = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        libc::mremap(
            address as *mut libc::c_void,
            len,
            len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            target,
        )
    };
    if moved == libc::MAP_FAILED {
        verdict::fail(format_args!("mremap: {}", std::io::Error::last_os_error()));
    }
    moved as usize
}

/// Removes a range of a mapping that the caller alone uses.
pub fn unmap(address: usize, len: usize) {
    // SAFETY: By this function's contract.
    check(
        unsafe { libc::munmap(address as *mut libc::c_void, len) },
        "munmap",
    );
}

fn protect(address: usize, len: usize, access: libc::c_int) {
    // SAFETY: By the contract of the functions below. The kernel makes no code
    // writable.
    let result = unsafe { libc::mprotect(address as *mut libc::c_void, len, access) };
    check(result, "mprotect");
}

/// Makes a range of a mapping inaccessible; who executes it meanwhile is expected
/// (see [`expect_revoked`]), or does not exist.
pub fn revoke(address: usize, len: usize) {
    protect(address, len, libc::PROT_NONE);
}

/// Makes it executable again.
pub fn restore(address: usize, len: usize) {
    protect(address, len, libc::PROT_READ | libc::PROT_EXEC);
}

/// Lets a range of a mapping be executed, and nothing else.
pub fn forbid_reading(address: usize, len: usize) {
    protect(address, len, libc::PROT_EXEC);
}
