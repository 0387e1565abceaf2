// SPDX-License-Identifier: MIT OR Apache-2.0

//! What ends a process: code that is not there yet, and stores to code.

use super::process::{End, child};
use super::{create, returns, run};
use jitfd::{Align, Backend, Region};

pub fn reserved_code_traps_until_it_is_filled(backend: Backend) {
    let region = create(backend, 4096);
    region.publish(&returns(1)).unwrap();
    let place = region.reserve(16, Align::FUNCTION).unwrap();
    let early = child(|| run(&region, place.offset));
    assert_eq!(early, End::Signal(libc::SIGTRAP));
    region.fill(&place, &returns(2)).unwrap();
    assert_eq!(child(|| run(&region, place.offset)), End::Status(2));
    let behind = child(|| run(&region, place.offset + 6));
    assert_eq!(behind, End::Signal(libc::SIGTRAP));
}

fn load(region: &Region, offset: usize) -> i32 {
    let at: *const u8 = std::ptr::with_exposed_provenance(region.mapping().address() + offset);
    // SAFETY: inside the region; that it ends the process is what is tested.
    i32::from(unsafe { at.read_volatile() })
}

pub fn a_page_without_code_is_not_there(backend: Backend) {
    let region = create(backend, 3 * 4096);
    let signal = match backend {
        Backend::ProtectFlips => libc::SIGSEGV,
        _ => libc::SIGBUS,
    };
    assert_eq!(child(|| load(&region, 0)), End::Signal(signal));
    region.publish(&returns(1)).unwrap();
    assert_eq!(child(|| load(&region, 0)), End::Status(0xb8));
    for access in [load, run] {
        assert_eq!(child(|| access(&region, 4096)), End::Signal(signal));
    }
}

pub fn a_store_to_code_is_refused(backend: Backend) {
    let region = create(backend, 4096);
    region.publish(&returns(1)).unwrap();
    let at: *mut u8 = std::ptr::with_exposed_provenance_mut(region.mapping().address());
    // SAFETY: the store does not happen: the page is not writable.
    let stored = child(|| unsafe {
        at.write_volatile(0);
        0
    });
    assert_eq!(stored, End::Signal(libc::SIGSEGV));
    // SAFETY: in a child of its own; whether it works is what is tested.
    let opened = child(|| unsafe { libc::mprotect(at.cast(), 4096, libc::PROT_WRITE) });
    // A program's own anonymous memory can't be kept from it.
    let allowed = if backend == Backend::ProtectFlips {
        0
    } else {
        255
    };
    assert_eq!(opened, End::Status(allowed));
}
