// SPDX-License-Identifier: GPL-2.0
//! PID 1 of the guest: mounts what a program needs, loads the module, runs the
//! program as root, reports through the channel of `jitfd-vm-protocol`, and
//! switches the machine off. It knows nothing about what it runs.
//!
//! The runner leaves its orders in `/run`: `link` and `token` (see the protocol),
//! `jit.ko` and `parameters` (absent: no module), `program` (the arguments, NUL after
//! each; absent: nothing is run), `leaks` (present: scan for leaked memory after the
//! module is gone).

#[path = "../init/channel.rs"]
mod channel;
#[path = "../init/cpu.rs"]
mod cpu;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use channel::Channel;
use jitfd_vm_protocol::{DEBUG_EXIT_PORT, DEBUG_EXIT_VALUE, Kind, Link};

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

fn main() {
    mount_all();
    let channel = Channel::open().expect("the channel to the host");
    if let Err(failure) = serve(&channel) {
        channel.send(Kind::Failure, failure.as_bytes());
    }
    channel.send_all(Kind::KernelLog, kernel_log().as_bytes());
    channel.end();
    switch_off(channel.link());
}

/// Everything between the first frame and the kernel log.
fn serve(channel: &Channel) -> Result<(), String> {
    channel.send(Kind::Ready, &[]);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    channel.send(Kind::Cpu, cpu::summary(&cpuinfo).as_bytes());
    let watch_leaks = Path::new("/run/leaks").exists() && Path::new(KMEMLEAK).exists();
    if watch_leaks {
        tell_kmemleak("clear")?;
    }
    let loaded = load_module()?;
    let result = run_program(channel);
    if loaded {
        unload_module()?;
    }
    if watch_leaks {
        check_leaks()?;
    }
    result
}

/// Mounts the file systems. One that this kernel lacks is left out: the program
/// that needs it says so better than init can.
fn mount_all() {
    let mounts = [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/out"),
        ("tmpfs", "/dev/shm"),
        ("devpts", "/dev/pts"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    for (kind, target) in mounts {
        if fs::create_dir_all(target).is_ok() {
            mount(kind, target);
        }
    }
}

fn mount(kind: &str, target: &str) {
    let kind = CString::new(kind).expect("no NUL in a constant");
    let target = CString::new(target).expect("no NUL in a constant");
    // SAFETY: every pointer is a NUL-terminated string that outlives the call, or
    // null where mount(2) allows it.
    unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
}

/// Loads the module, if there is one. `Ok(false)`: there is none.
fn load_module() -> Result<bool, String> {
    let Ok(module) = File::open("/run/jit.ko") else {
        return Ok(false);
    };
    let parameters = fs::read("/run/parameters").unwrap_or_default();
    let parameters = CString::new(parameters).map_err(|_| "a NUL in PARAMS".to_owned())?;
    // SAFETY: finit_module takes an open file, a NUL-terminated string and flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            module.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    match result {
        0 => Ok(true),
        _ => Err(format!(
            "jit.ko did not load: {}",
            io::Error::last_os_error()
        )),
    }
}

/// Unloads the module. Nobody uses it any more: if it says otherwise for longer
/// than a moment, it has lost count.
fn unload_module() -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        // SAFETY: delete_module takes a NUL-terminated string and flags.
        let result =
            unsafe { libc::syscall(libc::SYS_delete_module, c"jit".as_ptr(), libc::O_NONBLOCK) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if result == 0 => return Ok(()),
            // The program has unloaded it.
            Some(libc::ENOENT) => return Ok(()),
            Some(libc::EAGAIN | libc::EBUSY) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            _ => return Err(format!("jit.ko could not be unloaded: {error}")),
        }
    }
}

/// Runs the program to its end, then ends everything it has left behind.
fn run_program(channel: &Channel) -> Result<(), String> {
    let Ok(program) = fs::read_to_string("/run/program") else {
        return Ok(());
    };
    let mut words = program.split_terminator('\0');
    let path = words.next().ok_or("no program is named")?;
    let mut child = Command::new(path)
        .args(words)
        .current_dir("/files")
        .env_clear()
        .env("PATH", "/bin")
        .env("HOME", "/tmp")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{path} could not be run: {error}"))?;
    let id = child.id();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = thread::scope(|scope| {
        scope.spawn(|| stdout.map(|pipe| channel.relay(Kind::Stdout, pipe)));
        scope.spawn(|| stderr.map(|pipe| channel.relay(Kind::Stderr, pipe)));
        let status = wait_for(id);
        end_all_others();
        status
    });
    send_files(channel).map_err(|error| format!("/out could not be read: {error}"))?;
    if libc::WIFSIGNALED(status) {
        channel.send(Kind::Killed, &[low_byte(libc::WTERMSIG(status))]);
    } else {
        channel.send(Kind::Exited, &[low_byte(libc::WEXITSTATUS(status))]);
    }
    Ok(())
}

fn low_byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

/// Waits for the program, and for every orphan that ends before it.
fn wait_for(id: u32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for the call.
        let ended = unsafe { libc::waitpid(-1, &mut status, 0) };
        if u32::try_from(ended) == Ok(id) {
            return status;
        }
    }
}

fn end_all_others() {
    // SAFETY: for PID 1 this means every other process, none of which is needed.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    // SAFETY: waitpid accepts a null status.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
}

/// Sends the regular files that the program has left in `/out`.
fn send_files(channel: &Channel) -> io::Result<()> {
    for entry in fs::read_dir("/out")? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name();
        channel.send(Kind::FileName, name.as_encoded_bytes());
        channel.relay(Kind::FileData, File::open(entry.path())?)?;
    }
    Ok(())
}

/// Everything the kernel has logged, one line per record.
fn kernel_log() -> String {
    let mut log = String::new();
    let Ok(mut device) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
    else {
        return log;
    };
    let mut record = vec![0; 16 * 1024];
    loop {
        match device.read(&mut record) {
            Ok(count) => push_record(&mut log, &String::from_utf8_lossy(&record[..count])),
            // The oldest records were overwritten: go on with what is left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => return log,
        }
    }
}

/// Turns `prio,sequence,microseconds,flags;text` into `[seconds] text`.
fn push_record(log: &mut String, record: &str) {
    let Some((header, text)) = record.split_once(';') else {
        return;
    };
    let time: u64 = header
        .split(',')
        .nth(2)
        .and_then(|micros| micros.parse().ok())
        .unwrap_or(0);
    // The lines after the first are properties, not text; a line break within
    // the text is escaped.
    let line = text.lines().next().unwrap_or_default();
    let line = line.replace("\\x0a", "\n");
    log.push_str(&format!(
        "[{:5}.{:06}] {line}\n",
        time / 1_000_000,
        time % 1_000_000
    ));
}

fn tell_kmemleak(command: &str) -> Result<(), String> {
    OpenOptions::new()
        .write(true)
        .open(KMEMLEAK)
        .and_then(|mut file| file.write_all(command.as_bytes()))
        .map_err(|error| format!("kmemleak refused {command}: {error}"))
}

/// Fails when the kernel holds memory that nothing points to. An object must be
/// five seconds old, and be missed by two scans in a row, to count.
fn check_leaks() -> Result<(), String> {
    thread::sleep(Duration::from_secs(6));
    tell_kmemleak("scan")?;
    tell_kmemleak("scan")?;
    let leaks = fs::read_to_string(KMEMLEAK).map_err(|error| format!("kmemleak: {error}"))?;
    match leaks.is_empty() {
        true => Ok(()),
        false => Err(format!("leaked kernel memory:\n{leaks}")),
    }
}

/// Ends the guest in the way that the link names; where that fails, by a reboot,
/// which the runner takes for what it is.
fn switch_off(link: Link) -> ! {
    match link {
        Link::Virtio => write_debug_exit(),
        // SAFETY: reboot(2) takes no memory; it returns only if it fails.
        Link::Serial => drop(unsafe { libc::reboot(libc::RB_POWER_OFF) }),
    }
    // SAFETY: as above.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    loop {
        thread::park();
    }
}

fn write_debug_exit() {
    // SAFETY: no memory is concerned: the port belongs to a device whose only
    // function is to end the virtual machine, and ioperm is asked for first.
    unsafe {
        if libc::ioperm(u64::from(DEBUG_EXIT_PORT), 4, 1) == 0 {
            std::arch::asm!(
                "out dx, eax",
                in("dx") DEBUG_EXIT_PORT,
                in("eax") DEBUG_EXIT_VALUE,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}
