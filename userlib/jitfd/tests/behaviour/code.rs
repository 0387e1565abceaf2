// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finished code in a mapping of its own.

use super::process::{End, accesses, child};
use super::{Function, jit, jump_to, leaves, returns};
use jitfd::{Backend, Chunk, Entry, Error, Mapping, Rules};

fn call(code: &Mapping, offset: usize) -> i32 {
    // SAFETY: the tests put such functions there.
    unsafe { code.entry::<Function>(offset).unwrap()() }
}

pub fn finished_code_runs(backend: Backend) {
    let code = jit(backend).code(&returns(42)).unwrap();
    assert_eq!((call(&code, 0), code.len()), (42, 6));
    let start: *const u8 = std::ptr::with_exposed_provenance(code.address());
    // SAFETY: the rest of the page belongs to the mapping.
    let rest = (6..4096).map(|at| unsafe { start.wrapping_add(at).read_volatile() });
    assert!(rest.into_iter().all(|byte| byte == 0xcc));
    let access = accesses(start.addr(), 4096);
    assert!(
        access.len() == 1 && access[0].starts_with("r-x"),
        "{access:?}"
    );
    assert_eq!(child(|| call(&code, 0)), End::Status(42));
    // SAFETY: the store does not happen: the page is not writable.
    let stored = child(|| unsafe {
        start.cast_mut().write_volatile(0);
        0
    });
    assert_eq!(stored, End::Signal(libc::SIGSEGV));
    // In a child, because other threads may map something there.
    let unmapped = child(|| {
        drop(code);
        i32::from(accesses(start.addr(), 1).is_empty())
    });
    assert_eq!(unmapped, End::Status(1));
}

pub fn finished_code_may_be_large(backend: Backend) {
    let mut bytes = vec![0x90; 5 << 20];
    bytes.extend(returns(8).bytes());
    // SAFETY: no-ops and a function.
    let chunk = unsafe { Chunk::assume_valid(bytes, &[]) }.unwrap();
    let code = jit(backend).code(&chunk).unwrap();
    assert_eq!((call(&code, 5 << 20), call(&code, 0)), (8, 8));
}

pub fn branches_of_finished_code_are_checked(backend: Backend) {
    let rules = Rules::new().leaves_only_to([]);
    let chunk = jump_to(0, 1 << 20, &rules);
    let error = jit(backend).code(&chunk).unwrap_err();
    let (branch, target) = leaves(&error).unwrap();
    assert_eq!(target.wrapping_sub(branch), 1 << 20);
    let at = own_pages(4096);
    // SAFETY: the page is the test's own, and nobody executes it.
    let refused = unsafe { jit(backend).code_at(&chunk, at) }.unwrap_err();
    let right = Rules::new().leaves_only_to([at.addr() + (1 << 20)]);
    assert_eq!(leaves(&refused), Some((at.addr(), at.addr() + (1 << 20))));
    let chunk = jump_to(0, 1 << 20, &right);
    // SAFETY: as above.
    unsafe { jit(backend).code_at(&chunk, at) }.unwrap();
    // SAFETY: the test's own page, which nobody uses any more.
    assert_eq!(unsafe { libc::munmap(at.cast(), 4096) }, 0);
}

fn own_pages(len: usize) -> *mut u8 {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: nothing is replaced.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

pub fn code_takes_the_place_of_pages(backend: Backend) {
    let at = own_pages(3 * 4096);
    // SAFETY: the pages are ours; nothing of Rust's is in them.
    unsafe {
        at.write_bytes(0x90, 3 * 4096);
        let jit = jit(backend);
        jit.code_at(&returns(5), at.wrapping_add(4096)).unwrap();
        for odd in [std::ptr::null_mut(), at.wrapping_add(8)] {
            let refused = jit.code_at(&returns(5), odd);
            assert!(matches!(refused, Err(Error::Argument(_))));
        }
        assert_eq!(
            (at.wrapping_add(4095).read(), at.wrapping_add(8192).read()),
            (0x90, 0x90)
        );
        let code = Mapping::from_raw(at.wrapping_add(4096), 6).unwrap();
        assert_eq!(call(&code, 0), 5);
        let (raw, len) = code.into_raw();
        drop(Mapping::from_raw(raw, len).unwrap());
        libc::munmap(at.cast(), 4096);
        libc::munmap(at.wrapping_add(8192).cast(), 4096);
    }
}

/// An engine's own pages, with data between the code, as often as it likes.
pub fn pages_become_code_and_memory_again(backend: Backend) {
    let jit = jit(backend);
    let at = own_pages(3 * 4096);
    let at_second = at.wrapping_add(4096);
    // SAFETY: the pages are ours; nothing of Rust's is in them, and no other thread
    // knows them.
    unsafe {
        at.write_bytes(0xff, 3 * 4096);
        for value in 5..8 {
            let code = returns(value);
            at_second.copy_from_nonoverlapping(code.bytes().as_ptr(), 6);
            jit.make_executable(at_second, 6).unwrap();
            jit.make_executable(at_second, 4096).unwrap();
            assert_eq!(Entry::<Function>::at(at_second)(), value);
            assert_eq!(at_second.wrapping_add(6).read(), 0xff);
            let access = accesses(at_second.addr(), 4096);
            assert!(access[0].starts_with("r-x"), "{access:?}");
            jit.make_writable(at_second, 1).unwrap();
            assert_eq!(at_second.read(), 0xb8);
            let access = accesses(at_second.addr(), 4096);
            assert!(access[0].starts_with("rw-"), "{access:?}");
        }
        jit.make_executable(at, 3 * 4096).unwrap();
        jit.make_executable(at, 0).unwrap();
        jit.make_writable(at, 0).unwrap();
        assert_eq!(Entry::<Function>::at(at_second)(), 7);
        for odd in [std::ptr::null_mut(), at.wrapping_add(8)] {
            assert!(matches!(
                jit.make_executable(odd, 1),
                Err(Error::Argument(_))
            ));
            assert!(matches!(jit.make_writable(odd, 1), Err(Error::Argument(_))));
        }
        assert!(jit.make_executable(at, usize::MAX).is_err());
        assert!(jit.make_writable(at, usize::MAX).is_err());
        libc::munmap(at.cast(), 3 * 4096);
    }
}
