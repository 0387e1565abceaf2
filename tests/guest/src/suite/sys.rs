// SPDX-License-Identifier: GPL-2.0
//! System calls as functions, with errnos as `io::Error`. No policy.
//!
//! Addresses are numbers here: a test must be able to send bad ones. A call
//! that makes the kernel write to such an address says so; tests pass it only
//! addresses of mappings of their own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The page size.
pub const PAGE: usize = 4096;
/// Read and execute.
pub const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
/// Read and write.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Turns the -1 of a C function into its errno.
pub fn check(value: i64) -> io::Result<i64> {
    if value == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

fn check_int(value: i32) -> io::Result<i32> {
    if value == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

fn own(fd: i32) -> io::Result<OwnedFd> {
    let fd = check_int(fd)?;
    // SAFETY: the kernel has just given this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Any system call. The kernel may write where an argument points to.
pub fn syscall(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: by the contract at the top of this file.
    check(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// open(2), close-on-exec.
pub fn open(path: &std::ffi::CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the path is NUL-terminated.
    own(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })
}

/// A copy of a descriptor, numbered `at_least` or higher.
pub fn duplicate(fd: RawFd, at_least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is concerned.
    own(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, at_least) })
}

/// memfd_create(2).
pub fn memfd(len: usize) -> io::Result<File> {
    // SAFETY: the name is NUL-terminated.
    let file = File::from(own(unsafe {
        libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC)
    })?);
    file.set_len(len as u64)?;
    Ok(file)
}

/// pipe(2): the end to read, the end to write.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    check_int(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((own(ends[0])?.into(), own(ends[1])?.into()))
}

/// Whether a read would not wait.
pub fn is_readable(file: &File) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: there is one entry.
    check_int(unsafe { libc::poll(&mut poll, 1, 0) }).map(|count| count != 0)
}

/// Makes reads and writes fail with EAGAIN instead of waiting.
pub fn set_nonblocking(file: &File) -> io::Result<()> {
    // SAFETY: no memory is concerned.
    check_int(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

/// ioctl(2) with a number. The kernel may write there.
pub fn ioctl(fd: RawFd, request: u32, argument: usize) -> io::Result<i64> {
    // SAFETY: by the contract at the top of this file.
    let value = unsafe { libc::ioctl(fd, libc::c_ulong::from(request), argument) };
    check_int(value).map(i64::from)
}

/// ioctl(2) with an argument that the kernel reads.
pub fn ioctl_in<T>(fd: RawFd, request: u32, argument: &T) -> io::Result<i64> {
    ioctl(fd, request, std::ptr::from_ref(argument).addr())
}

/// ioctl(2) with an argument that the kernel reads and writes.
pub fn ioctl_inout<T>(fd: RawFd, request: u32, argument: &mut T) -> io::Result<i64> {
    // SAFETY: the argument is as large as the request number says.
    let value = unsafe {
        libc::ioctl(
            fd,
            libc::c_ulong::from(request),
            std::ptr::from_mut(argument),
        )
    };
    check_int(value).map(i64::from)
}

/// mmap(2). With `MAP_FIXED` it replaces what is there.
pub fn mmap(
    addr: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: RawFd,
    offset: usize,
) -> io::Result<usize> {
    // As a bare system call: libc refuses some offsets by itself.
    let (prot, flags) = (prot as usize, flags as usize);
    let value = syscall(
        libc::SYS_mmap,
        [addr, len, prot, flags, fd as usize, offset],
    )?;
    Ok(value as usize)
}

/// munmap(2).
pub fn munmap(addr: usize, len: usize) -> io::Result<()> {
    syscall(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]).map(|_| ())
}

/// mprotect(2).
pub fn mprotect(addr: usize, len: usize, prot: i32) -> io::Result<()> {
    syscall(libc::SYS_mprotect, [addr, len, prot as usize, 0, 0, 0]).map(|_| ())
}

/// mremap(2).
pub fn mremap(old: usize, old_len: usize, len: usize, flags: i32, to: usize) -> io::Result<usize> {
    let flags = flags as usize;
    syscall(libc::SYS_mremap, [old, old_len, len, flags, to, 0]).map(|addr| addr as usize)
}

/// madvise(2).
pub fn madvise(addr: usize, len: usize, advice: i32) -> io::Result<()> {
    syscall(libc::SYS_madvise, [addr, len, advice as usize, 0, 0, 0]).map(|_| ())
}

/// write(2) from an address.
pub fn write_from(fd: RawFd, addr: usize, len: usize) -> io::Result<usize> {
    syscall(libc::SYS_write, [fd as usize, addr, len, 0, 0, 0]).map(|count| count as usize)
}

/// read(2) to an address.
pub fn read_to(fd: RawFd, addr: usize, len: usize) -> io::Result<usize> {
    syscall(libc::SYS_read, [fd as usize, addr, len, 0, 0, 0]).map(|count| count as usize)
}

/// mount(2) that changes only the flags of a mount point.
pub fn mount_flags(path: &std::ffi::CStr, flags: libc::c_ulong) -> io::Result<()> {
    let nothing = std::ptr::null();
    // SAFETY: the path is NUL-terminated; the rest may be null.
    let result = unsafe { libc::mount(nothing, path.as_ptr(), nothing, flags, std::ptr::null()) };
    check_int(result).map(|_| ())
}

/// prctl(2) with numbers.
pub fn prctl(option: i32, argument: usize) -> io::Result<i64> {
    syscall(libc::SYS_prctl, [option as usize, argument, 0, 0, 0, 0])
}

/// Keeps the caller on one CPU.
pub fn run_on(cpu: usize) -> io::Result<()> {
    set_cpu(0, cpu)
}

/// Keeps a thread on one CPU.
pub fn set_cpu(thread: libc::pid_t, cpu: usize) -> io::Result<()> {
    // SAFETY: all zeros is an empty set, and the CPU is one of the first few.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the set is valid and as large as is said.
    check_int(unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) })
        .map(|_| ())
}

/// Gives the caller a scheduling policy, with a priority where that has one.
pub fn set_policy(policy: i32, priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameter is valid.
    check_int(unsafe { libc::sched_setscheduler(0, policy, &parameter) }).map(|_| ())
}

/// A system call that does nothing.
pub fn nothing() {
    let _ = syscall(libc::SYS_getppid, [0; 6]);
}

/// fork(2). A child of a process with threads must only make system calls.
pub fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: by the contract of this function.
    check_int(unsafe { libc::fork() })
}

/// Ends the process at once.
pub fn exit(status: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(status) }
}

/// Makes the caller the leader of a process group of its own.
pub fn new_process_group() -> io::Result<()> {
    // SAFETY: no memory is concerned.
    check_int(unsafe { libc::setpgid(0, 0) }).map(|_| ())
}

/// kill(2); a negative `pid` means a process group.
pub fn kill(pid: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is concerned.
    check_int(unsafe { libc::kill(pid, signal) }).map(|_| ())
}

/// The calling thread's id.
pub fn thread_id() -> libc::pid_t {
    // SAFETY: no memory is concerned.
    unsafe { libc::gettid() }
}

/// How often the calling thread has waited for something, so that another ran.
pub fn times_waited() -> io::Result<u64> {
    // SAFETY: all zeros is a valid value; the kernel fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for the call.
    check_int(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) })?;
    Ok(usage.ru_nvcsw as u64)
}

/// tgkill(2) to a thread of this process.
pub fn signal_thread(tid: libc::pid_t, signal: i32) -> io::Result<()> {
    let pid = std::process::id() as usize;
    let arguments = [pid, tid as usize, signal as usize, 0, 0, 0];
    syscall(libc::SYS_tgkill, arguments).map(|_| ())
}

/// Keeps the calling thread on one CPU.
pub fn stay_on_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: zeros are an empty set; the call reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    check_int(result).map(|_| ())
}

/// From here on the calling thread runs whenever it can, before all others of
/// its CPU.
pub fn become_real_time() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 50 };
    // SAFETY: the parameters are valid for the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) };
    check_int(result).map(|_| ())
}

/// Waits for the end of a child, or for a stop if it is traced.
pub fn wait(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the call.
        match check_int(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(status),
        }
    }
}

/// The same for any thread of a child that is traced.
pub fn wait_for_thread(tid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    check_int(unsafe { libc::waitpid(tid, &mut status, libc::__WALL) })?;
    Ok(status)
}

/// The same without waiting. `None`: there is nothing to tell.
pub fn poll_thread(tid: libc::pid_t) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    let changed =
        check_int(unsafe { libc::waitpid(tid, &mut status, libc::__WALL | libc::WNOHANG) })?;
    Ok((changed == tid).then_some(status))
}

/// The end of a child, without waiting. `None`: it has not ended.
pub fn poll(pid: libc::pid_t) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: `status` is valid for the call.
    let ended = check_int(unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) })?;
    Ok((ended == pid).then_some(status))
}

/// The soft limit of a resource. Returns the one before.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        check_int(libc::getrlimit(resource, &mut limit))?;
        let before = limit.rlim_cur;
        limit.rlim_cur = soft;
        check_int(libc::setrlimit(resource, &limit))?;
        Ok(before)
    }
}
