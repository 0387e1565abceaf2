// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs that flip memory, by `jitfd-run`: this very program, once for each test. On
//! `/dev/jit` where it is, else on what stands in for it.

use std::ffi::{c_int, c_void};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const RW: c_int = libc::PROT_READ | libc::PROT_WRITE;
const RX: c_int = libc::PROT_READ | libc::PROT_EXEC;
const RWX: c_int = RW | libc::PROT_EXEC;
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const SHARED: c_int = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// Set in the program that `jitfd-run` has started.
const INSIDE: &str = "JITFD_EXEC_TEST";

/// `jitfd-run`: in a guest it is elsewhere, with its library beside it.
fn jitfd_run() -> Command {
    match std::env::var_os("JITFD_RUN") {
        Some(there) => Command::new(there),
        None => {
            static BUILT: Once = Once::new();
            BUILT.call_once(build_library);
            Command::new(env!("CARGO_BIN_EXE_jitfd-run"))
        }
    }
}

/// Builds the library beside `jitfd-run`. Cargo builds no library for a test that does
/// not link it.
fn build_library() {
    let folder = Path::new(env!("CARGO_BIN_EXE_jitfd-run")).parent().unwrap();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--lib", "--manifest-path"]);
    cargo.arg(manifest).arg("--target-dir");
    cargo.arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
}

/// Runs the test of this name by `jitfd-run`.
fn again(name: &str, options: &[&str]) -> Output {
    again_as(name, options, "1")
}

/// The same, and tells it which of its kinds to do.
fn again_as(name: &str, options: &[&str], kind: &str) -> Output {
    let mut command = jitfd_run();
    command.args(options);
    if !fs::exists("/dev/jit").unwrap_or(false) {
        command.arg("--stand-in");
    }
    command.arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, kind);
    command.output().unwrap()
}

/// Whether this kernel has `PR_SET_MDWE`; says so if not.
fn can_deny() -> bool {
    const PR_GET_MDWE: c_int = 66;
    const NONE: libc::c_ulong = 0;
    // SAFETY: it reads a flag of this process.
    let can = unsafe { libc::prctl(PR_GET_MDWE, NONE, NONE, NONE, NONE) } >= 0;
    if !can {
        eprintln!("SKIP: this kernel has no PR_SET_MDWE");
    }
    can
}

/// `body`, in a process that `jitfd-run` has started with these options.
fn inside(name: &str, options: &[&str], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if !can_deny() {
        return;
    }
    let output = again(name, options);
    let words = String::from_utf8_lossy(&output.stderr);
    let more = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{words}\n{more}",
        output.status
    );
}

fn map_as(access: c_int, flags: c_int, file: c_int, pages: usize) -> *mut u8 {
    // SAFETY: nothing is replaced.
    unsafe { libc::mmap(null_mut(), pages * PAGE, access, flags, file, 0).cast() }
}

fn map(pages: usize) -> *mut u8 {
    let memory = map_as(RW, PRIVATE, -1, pages);
    assert_ne!(memory.cast(), libc::MAP_FAILED);
    memory
}

/// What `mprotect()` says: 0 or an errno.
fn protect(memory: *mut u8, pages: usize, access: c_int) -> c_int {
    // SAFETY: the tests only do this to their own memory.
    match unsafe { libc::mprotect(memory.cast(), pages * PAGE, access) } {
        0 => 0,
        _ => errno(),
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// `mov eax, value; ret`, written by the program itself.
fn write_code(to: *mut u8, value: u32) {
    let mut code = [0xb8, 0, 0, 0, 0, 0xc3];
    code[1..5].copy_from_slice(&value.to_le_bytes());
    // SAFETY: the tests pass memory that they may write to.
    unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
}

fn call(code: *mut u8) -> u32 {
    // SAFETY: the tests have written such a function there.
    let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(code) };
    function()
}

/// A flip to writable, new code, and a flip back.
fn flip(memory: *mut u8, pages: usize, at: usize, value: u32) {
    assert_eq!(protect(memory, pages, RW), 0);
    write_code(memory.wrapping_add(at), value);
    assert_eq!(protect(memory, pages, RX), 0);
    assert_eq!(call(memory.wrapping_add(at)), value);
}

/// What lies at an address: the line of `/proc/self/maps`.
fn mapping(memory: *mut u8) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (first, rest) = line.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(first)..number(rest.split(' ').next().unwrap())).contains(&memory.addr())
    };
    maps.lines().find(holds).unwrap_or_default().to_owned()
}

fn is_code(memory: *mut u8) -> bool {
    let line = mapping(memory);
    assert!(!line.contains("wx"), "{line}");
    line.contains(" r-x") && (line.contains("/dev/jit") || line.contains("memfd:jitfd-run"))
}

/// The status of a forked child that does `work`.
fn in_child(work: impl FnOnce()) -> c_int {
    // SAFETY: the child does `work` and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::alarm(60);
            work();
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        status
    }
}

#[test]
fn flips() {
    inside("flips", &[], || {
        let memory = map(16);
        for round in 0..50 {
            flip(
                memory,
                16,
                (round % 4) * 5000,
                1000 + u32::try_from(round).unwrap(),
            );
        }
        assert_eq!(call(memory.wrapping_add(5000)), 1049);
        assert!(is_code(memory));
    });
}

#[test]
fn only_what_is_touched_becomes_code() {
    inside("only_what_is_touched_becomes_code", &[], || {
        let memory = map(100);
        let page = |index: usize| memory.wrapping_add(index * PAGE);
        write_code(page(0), 7);
        write_code(page(60), 8);
        assert_eq!(protect(memory, 100, RX), 0);
        assert_eq!((call(page(0)), call(page(60))), (7, 8));
        let code = (0..100).filter(|&index| is_code(page(index)));
        assert_eq!(code.collect::<Vec<_>>(), [0, 60]);
        assert!(mapping(page(30)).contains(" r--"));
        // Back: nothing changes before it is written to.
        assert_eq!(protect(memory, 100, RW), 0);
        assert!(is_code(page(60)));
        write_code(page(60), 9);
        assert!(mapping(page(60)).contains(" rw-") && is_code(page(0)));
        write_code(page(30), 10);
        assert_eq!(protect(memory, 100, RX), 0);
        assert_eq!((call(page(0)), call(page(60)), call(page(30))), (7, 9, 10));
    });
}

#[test]
fn memory_that_is_never_touched_can_be_executed() {
    inside("memory_that_is_never_touched_can_be_executed", &[], || {
        let file = [0xb8_u8, 5, 0, 0, 0, 0xc3];
        // SAFETY: a file of a page with this code, mapped privately: it is not in this
        // process's memory before it is read.
        let memory = unsafe {
            let name = c"test";
            let memfd = libc::memfd_create(name.as_ptr(), 0);
            assert_eq!(libc::write(memfd, file.as_ptr().cast(), file.len()), 6);
            libc::ftruncate(memfd, PAGE.try_into().unwrap());
            map_as(RW, libc::MAP_PRIVATE, memfd, 1)
        };
        assert_eq!(protect(memory, 1, RX), 0);
        assert_eq!(call(memory), 5);
        flip(memory, 1, 0, 6);
    });
}

#[test]
fn writable_and_executable_memory_is_refused() {
    inside("writable_and_executable_memory_is_refused", &[], || {
        assert_eq!(map_as(RWX, PRIVATE, -1, 1).cast(), libc::MAP_FAILED);
        assert_eq!(errno(), libc::EACCES);
        let memory = map(1);
        assert_eq!(protect(memory, 1, RWX), libc::EACCES);
        flip(memory, 1, 0, 1);
        assert_eq!(protect(memory, 1, RWX), libc::EACCES);
        assert_eq!(call(memory), 1);
    });
}

/// Memory that is writable and executable, as far as the program can see.
fn both(pages: usize) -> *mut u8 {
    let memory = map_as(RWX, PRIVATE, -1, pages);
    assert_ne!(memory.cast(), libc::MAP_FAILED);
    memory
}

#[test]
fn faults_make_pages_code_and_writable_again() {
    inside(
        "faults_make_pages_code_and_writable_again",
        &["--faults"],
        || {
            let memory = both(4);
            let page = |index: usize| memory.wrapping_add(index * PAGE);
            for value in 0..20 {
                write_code(page(1), value);
                assert!(mapping(page(1)).contains(" rw-"));
                assert_eq!(call(page(1)), value);
                assert!(is_code(page(1)) && mapping(page(2)).contains(" rw-"));
            }
            // By mprotect(), of memory that was never executable, and back.
            let memory = map(4);
            write_code(memory, 5);
            assert_eq!(protect(memory, 4, RWX), 0);
            assert_eq!(call(memory), 5);
            write_code(memory, 6);
            assert_eq!(call(memory), 6);
            assert_eq!(protect(memory, 4, RX), 0);
            assert_eq!(call(memory), 6);
            assert_eq!(protect(memory, 4, RWX), 0);
            write_code(memory, 7);
            assert_eq!(call(memory), 7);
        },
    );
}

#[test]
fn memory_of_both_kinds_grows_and_is_forgotten() {
    inside(
        "memory_of_both_kinds_grows_and_is_forgotten",
        &["--faults"],
        || {
            let memory = both(2);
            write_code(memory, 1);
            assert_eq!(call(memory), 1);
            // SAFETY: all of it is this test's own memory.
            unsafe {
                let all = 2 * PAGE;
                assert_eq!(libc::madvise(memory.cast(), all, libc::MADV_DONTNEED), 0);
                assert_eq!(*memory, 0);
                write_code(memory, 2);
                let moved = libc::mremap(memory.cast(), all, 64 * PAGE, libc::MREMAP_MAYMOVE);
                let moved = moved.cast::<u8>();
                assert_eq!(call(moved), 2);
                write_code(moved.wrapping_add(63 * PAGE), 3);
                assert_eq!(call(moved.wrapping_add(63 * PAGE)), 3);
                write_code(moved, 4);
                assert_eq!(call(moved), 4);
            }
        },
    );
}

#[test]
fn threads_and_children_with_memory_of_both_kinds() {
    inside(
        "threads_and_children_with_memory_of_both_kinds",
        &["--faults"],
        || {
            let memory = both(4).expose_provenance();
            let churn = |own: usize| {
                for value in 0..200 {
                    let own = std::ptr::with_exposed_provenance_mut::<u8>(own);
                    write_code(own, value);
                    assert_eq!(call(own), value);
                }
            };
            std::thread::scope(|scope| {
                (0..4).for_each(|thread| drop(scope.spawn(move || churn(memory + thread * PAGE))));
                for _ in 0..20 {
                    let child = || (0..4).for_each(|page| churn(memory + page * PAGE));
                    assert_eq!(in_child(child), 0);
                }
            });
        },
    );
}

/// One thread executes a page all the time, another writes to it.
#[test]
fn no_write_to_a_page_that_another_thread_executes_is_lost() {
    let name = "no_write_to_a_page_that_another_thread_executes_is_lost";
    inside(name, &["--faults"], || {
        let memory = both(1);
        write_code(memory, 7);
        let (stop, address) = (AtomicUsize::new(0), memory.expose_provenance());
        std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                while stop.load(Ordering::Relaxed) == 0 {
                    assert_eq!(call(std::ptr::with_exposed_provenance_mut(address)), 7);
                }
            });
            let end = Instant::now() + Duration::from_secs(1);
            let word = |round: usize| {
                let at = 64 + round % 64 * size_of::<usize>();
                memory.wrapping_add(at).cast::<usize>()
            };
            let mut round = 1;
            // SAFETY: this test's own memory, of which nobody else uses this part.
            while unsafe { word(round - 1).read_volatile() } == round - 1 && Instant::now() < end {
                // SAFETY: as above.
                unsafe { word(round).write_volatile(round) };
                round += 1;
            }
            stop.store(1, Ordering::Relaxed);
            // SAFETY: as above.
            assert_eq!(unsafe { word(round - 1).read_volatile() }, round - 1);
        });
    });
}

#[test]
fn the_kernel_reads_into_code() {
    inside("the_kernel_reads_into_code", &["--faults"], || {
        let memory = both(2);
        write_code(memory, 1);
        assert_eq!(call(memory), 1);
        let code = [0xb8_u8, 9, 0, 0, 0, 0xc3];
        // SAFETY: a file with this code, and this test's own memory.
        unsafe {
            let file = libc::memfd_create(c"test".as_ptr(), 0);
            assert_eq!(libc::write(file, code.as_ptr().cast(), code.len()), 6);
            assert_eq!(libc::pread(file, memory.cast(), 6, 0), 6);
            assert_eq!(call(memory), 9);
            assert_eq!(libc::lseek(file, 0, libc::SEEK_SET), 0);
            let across = memory.wrapping_add(PAGE - 3);
            write_code(memory.wrapping_add(PAGE), 1);
            assert_eq!(call(memory.wrapping_add(PAGE)), 1);
            assert_eq!(libc::read(file, across.cast(), 6), 6);
            assert_eq!(call(across), 9);
        }
    });
}

/// `mov byte [rip + x], 0; ret`: the byte is behind it, `x` bytes away.
fn write_self_writing(to: *mut u8, x: i32) {
    let mut code = [0xc6, 0x05, 0, 0, 0, 0, 0, 0xc3];
    code[2..6].copy_from_slice(&x.to_le_bytes());
    // SAFETY: the tests pass memory that they may write to.
    unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
}

#[test]
fn code_that_writes_to_its_own_page_is_ended_and_said() {
    let name = "code_that_writes_to_its_own_page_is_ended_and_said";
    if let Ok(kind) = std::env::var(INSIDE) {
        let memory = both(3);
        // To another page; to its own; to its own, of which only its end is.
        write_self_writing(memory, 2 * PAGE as i32);
        call(memory);
        println!("to another page");
        match kind.as_str() {
            "own" => write_self_writing(memory, 64),
            _ => write_self_writing(memory.wrapping_add(PAGE - 3), 64),
        }
        // SAFETY: the process ends by itself, whatever happens.
        unsafe { libc::alarm(60) };
        call(memory.wrapping_add(if kind == "own" { 0 } else { PAGE - 3 }));
        return;
    }
    if !can_deny() {
        return;
    }
    for kind in ["own", "across"] {
        let output = again_as(name, &["--faults"], kind);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGSEGV),
            "{kind} {words}"
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("to another page"));
        assert_eq!(
            words.matches("writes to its own page").count(),
            1,
            "{words}"
        );
    }
}

#[test]
fn shared_memory_is_refused_unless_asked_for() {
    inside("shared_memory_is_refused_unless_asked_for", &[], || {
        let memory = map_as(RW, SHARED, -1, 2);
        write_code(memory, 3);
        assert_eq!(protect(memory, 2, RX), libc::EACCES);
        assert_eq!(map_as(RWX, SHARED, -1, 2).cast(), libc::MAP_FAILED);
    });
}

#[test]
fn shared_memory_with_unshare() {
    inside("shared_memory_with_unshare", &["--unshare"], || {
        let memory = map_as(RW, SHARED, -1, 20);
        for value in 0..5 {
            flip(memory, 20, 10 * PAGE, value);
        }
        assert!(mapping(memory).contains("/dev/zero"));
    });
}

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static MEMORY: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_fault(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel passes it.
    let address = unsafe { (*info).si_addr() }.map_addr(|address| address & !(PAGE - 1));
    assert_eq!(address.addr(), MEMORY.load(Ordering::Relaxed));
    // The instruction succeeds when it is tried again.
    assert_eq!(protect(address.cast(), 1, RW), 0);
}

/// Makes `count_fault` the handler.
fn count_faults() {
    // SAFETY: zeros are an action.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()),
            0
        );
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGSEGV, null(), &raw mut now), 0);
        assert_eq!(now.sa_sigaction, action.sa_sigaction);
    }
}

/// The program's handler sees what it would see without the library, whether it was
/// there first or not.
#[test]
fn the_programs_own_handler() {
    inside("the_programs_own_handler", &[], || {
        for first in [true, false] {
            let memory = map(1);
            MEMORY.store(memory.addr(), Ordering::Relaxed);
            FAULTS.store(0, Ordering::Relaxed);
            if first {
                count_faults();
            }
            flip(memory, 1, 0, 1);
            if !first {
                count_faults();
            }
            flip(memory, 1, 0, 2);
            assert_eq!(FAULTS.load(Ordering::Relaxed), 0);
            // Not writable: the handler makes it so.
            write_code(memory, 3);
            assert_eq!(FAULTS.load(Ordering::Relaxed), 1);
            assert_eq!(protect(memory, 1, RX), 0);
            assert_eq!(call(memory), 3);
            // Readable only.
            assert_eq!(protect(memory, 1, libc::PROT_READ), 0);
            write_code(memory, 4);
            assert_eq!(FAULTS.load(Ordering::Relaxed), 2);
            assert_eq!(protect(memory, 1, libc::PROT_NONE), 0);
            write_code(memory, 4);
            assert_eq!(FAULTS.load(Ordering::Relaxed), 3);
        }
    });
}

#[test]
fn a_fault_that_is_nobodys_ends_the_process() {
    inside("a_fault_that_is_nobodys_ends_the_process", &[], || {
        let memory = map(1);
        flip(memory, 1, 0, 1);
        let status = in_child(|| write_code(memory, 2));
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
        let status = in_child(|| write_code(null_mut::<u8>().wrapping_add(64), 2));
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
        // SAFETY: it ends the child. The standard library's handler would not.
        let status = in_child(|| unsafe {
            assert_ne!(libc::signal(libc::SIGSEGV, libc::SIG_DFL), libc::SIG_DFL);
            libc::raise(libc::SIGSEGV);
        });
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
        assert_eq!(call(memory), 1);
    });
}

#[test]
fn a_thread_that_blocks_all_signals() {
    inside("a_thread_that_blocks_all_signals", &[], || {
        let thread = std::thread::spawn(|| {
            // SAFETY: a set that its function fills.
            unsafe {
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, null_mut());
            }
            let memory = map(2);
            (0..10).for_each(|value| flip(memory, 2, 4090, value));
        });
        thread.join().unwrap();
    });
}

#[test]
fn threads_flip_side_by_side() {
    inside("threads_flip_side_by_side", &[], || {
        let memory = map(64).expose_provenance();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let own = std::ptr::with_exposed_provenance_mut(memory + thread * 16 * PAGE);
                    for round in 0..200 {
                        flip(
                            own,
                            16,
                            (round % 15) * PAGE,
                            7 * u32::try_from(round).unwrap(),
                        );
                    }
                });
            }
        });
    });
}

#[test]
fn children_flip_on_their_own() {
    inside("children_flip_on_their_own", &[], || {
        let memory = map(4);
        flip(memory, 4, 0, 1);
        let status = in_child(|| {
            assert_eq!(call(memory), 1);
            flip(memory, 4, 0, 2);
            flip(memory, 4, PAGE, 3);
        });
        assert_eq!(status, 0);
        assert_eq!(call(memory), 1);
        flip(memory, 4, 0, 4);
    });
}

/// A child may be made in the middle of another thread's flip.
#[test]
fn children_of_a_process_that_flips() {
    inside("children_of_a_process_that_flips", &[], || {
        let memory = map(8);
        flip(memory, 8, 0, 1);
        let stop = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (stop, address) = (&stop, memory.expose_provenance());
            scope.spawn(move || {
                let mut round = 0;
                while stop.load(Ordering::Relaxed) == 0 {
                    let memory = std::ptr::with_exposed_provenance_mut(address);
                    flip(memory, 8, 0, round);
                    round += 1;
                }
            });
            for _ in 0..100 {
                let status = in_child(|| {
                    flip(memory, 8, 0, 17);
                    flip(memory, 8, 3 * PAGE, 18);
                    assert_eq!(call(memory), 17);
                });
                assert_eq!(status, 0);
            }
            stop.store(1, Ordering::Relaxed);
        });
    });
}

#[test]
fn memory_is_given_up_moved_and_mapped_anew() {
    inside("memory_is_given_up_moved_and_mapped_anew", &[], || {
        let memory = map(4);
        flip(memory, 4, 0, 1);
        // SAFETY: all of it is this test's own memory.
        unsafe {
            assert_eq!(
                libc::madvise(memory.cast(), 4 * PAGE, libc::MADV_DONTNEED),
                0
            );
            assert_eq!(*memory, 0);
            flip(memory, 4, 0, 2);
            let new = map(4);
            libc::munmap(new.cast(), 4 * PAGE);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let moved = libc::mremap(memory.cast(), PAGE, PAGE, flags, new).cast();
            assert_eq!((moved, call(moved)), (new, 2));
            flip(moved, 1, 0, 3);
            libc::munmap(moved.cast(), PAGE);
            libc::munmap(memory.cast(), 4 * PAGE);
            let fixed = PRIVATE | libc::MAP_FIXED;
            let again = libc::mmap(new.cast(), PAGE, RW, fixed, -1, 0).cast();
            write_code(again, 4);
            flip(again, 1, 0, 5);
            let again = libc::mmap(new.cast(), PAGE, RW, fixed, -1, 0).cast::<u8>();
            assert_eq!(*again, 0);
            write_code(again, 6);
        }
    });
}

#[test]
fn what_was_done_is_reported() {
    if std::env::var_os(INSIDE).is_some() {
        let memory = map(4);
        (0..3).for_each(|value| flip(memory, 4, 0, value));
        assert_eq!(map_as(RWX, PRIVATE, -1, 1).cast(), libc::MAP_FAILED);
        std::process::exit(0);
    }
    if !can_deny() {
        return;
    }
    let output = again("what_was_done_is_reported", &["--report"]);
    let words = String::from_utf8_lossy(&output.stderr);
    let wanted = "publications=3 bytes=12288 withdrawn=2 faults=2 refusals=1 failures=0 mappings=1";
    assert!(words.contains(wanted), "{words}");
    let output = again("what_was_done_is_reported", &[]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("publications"));
}

#[test]
fn only_some_may_ask() {
    const NAME: &str = "only_some_may_ask";
    if let Ok(kind) = std::env::var(INSIDE) {
        let memory = map(2);
        match kind.as_str() {
            "named" => {
                flip(memory, 2, 0, 1);
                write_code(both(1), 1);
            }
            _ => {
                assert_eq!(protect(memory, 2, RX), libc::EACCES);
                assert_eq!(protect(memory, 2, RWX), libc::EACCES);
                assert_eq!(map_as(RWX, PRIVATE, -1, 1).cast(), libc::MAP_FAILED);
                assert_eq!(map_as(RX, PRIVATE, -1, 1).cast(), libc::MAP_FAILED);
                // SAFETY: this test's own memory.
                unsafe { libc::dlopen(c"libdl.so.2".as_ptr(), libc::RTLD_NOW) };
                assert_eq!(protect(memory, 2, libc::PROT_READ), 0);
            }
        }
        return;
    }
    if !can_deny() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let (path, name) = (
        own.to_str().unwrap(),
        own.file_name().unwrap().to_str().unwrap(),
    );
    for (options, kind) in [
        (vec!["--only", path], "named"),
        (vec!["--only", "libother.so", "--only", name], "named"),
        (vec!["--only", "libc.so"], "other"),
    ] {
        let options = [vec!["--faults"], options].concat();
        let output = again_as(NAME, &options, kind);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?} {words}");
        let said = words.matches("in none of the libraries of --only").count();
        assert_eq!(said, usize::from(kind == "other"), "{words}");
    }
    let output = jitfd_run()
        .args(["--stand-in", "--only", "/no/such", "true"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(125));
}

/// Each kind of engine, as it is.
fn be_an_engine(kind: &str) {
    let memory = map(4);
    match kind {
        "flips" => (0..3).for_each(|value| flip(memory, 4, 0, value)),
        "both" => drop(both(2)),
        "shared" => assert_eq!(protect(map_as(RW, SHARED, -1, 2), 2, RX), 0),
        // By a child, in another thread.
        "one-way" => {
            let address = memory.expose_provenance();
            let own = move || std::ptr::with_exposed_provenance_mut(address);
            let child = move || assert_eq!(protect(own(), 1, RX), 0);
            let thread = std::thread::spawn(move || in_child(child));
            assert_eq!(thread.join().unwrap(), 0);
        }
        // SAFETY: the tests' own memory; no descriptor is used otherwise.
        "views" => unsafe {
            let file = libc::memfd_create(c"test".as_ptr(), 0);
            libc::ftruncate(file, PAGE.try_into().unwrap());
            assert_ne!(
                map_as(RW, libc::MAP_SHARED, file, 1).cast(),
                libc::MAP_FAILED
            );
            assert_ne!(
                map_as(RX, libc::MAP_SHARED, file, 1).cast(),
                libc::MAP_FAILED
            );
        },
        // SAFETY: the tests' own memory.
        "own" => unsafe {
            assert_eq!(libc::syscall(libc::SYS_mprotect, memory, PAGE, RX), 0);
        },
        _ => {}
    }
}

#[test]
fn engines_are_told_apart() {
    const NAME: &str = "engines_are_told_apart";
    if let Ok(kind) = std::env::var(INSIDE) {
        return be_an_engine(&kind);
    }
    for (kind, counts, outcome, status) in [
        (
            "none",
            "executable=0 writable-again=0 both=0",
            "does not hinder",
            0,
        ),
        ("flips", "executable=3 writable-again=2", "jitfd-run /", 0),
        ("both", "both=1", "jitfd-run --faults /", 0),
        ("shared", "shared=1", "jitfd-run --unshare /", 0),
        ("one-way", "executable=1 writable-again=0", "jitfd-run /", 0),
        ("views", "views=1", "permits it as it is", 0),
        ("own", "own-system-calls=1", "can't help", 1),
    ] {
        let mut command = jitfd_run();
        command.arg("--check").arg(std::env::current_exe().unwrap());
        command.args(["--exact", NAME]).env(INSIDE, kind);
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{kind}: {words}");
        assert!(
            words.contains(counts) && words.contains(outcome),
            "{kind}: {words}"
        );
        assert!(!words.contains("ended with"), "{kind}: {words}");
    }
    let output = jitfd_run()
        .args(["--check", "sh", "-c", "kill -9 $$"])
        .output();
    let words = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(words.contains("ended with status 137"), "{words}");
}

#[test]
fn what_cant_be_run_is_said() {
    let run = |words: &[&str]| {
        let mut command = jitfd_run();
        let output = command.args(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), error)
    };
    let (status, error) = run(&["--stand-in", "no-such-program"]);
    assert_eq!((status, error.lines().count()), (127, 1), "{error}");
    if !fs::exists("/dev/jit").unwrap_or(false) {
        let (status, error) = run(&["true"]);
        assert_eq!((status, error.lines().count()), (125, 1), "{error}");
        assert!(error.contains("/dev/jit") && error.contains("modprobe"));
    }
    let (status, _) = run(&[]);
    assert_eq!(status, 2);
    if can_deny() {
        let (status, _) = run(&["--stand-in", "false"]);
        assert_eq!(status, 1);
    }
}
