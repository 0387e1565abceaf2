// SPDX-License-Identifier: MIT OR Apache-2.0

//! Forked children that go on compiling on their own, at the same addresses.

use super::process::{End, child};
use super::{create, returns, run};
use jitfd::{Align, Backend, Error, JitFd, Kind, Reservation};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Publishes and runs; how many of the steps went as they should.
fn go_on(region: &JitFd, place: &Reservation, values: [i32; 2]) -> i32 {
    let filled = region.fill(place, &returns(values[0]));
    let appended = region.append(&returns(values[1]));
    let right = |published: Result<jitfd::Published, Error>, value| {
        published.is_ok_and(|at| run(region, at.offset) == value)
    };
    i32::from(right(filled, values[0])) + i32::from(right(appended, values[1]))
}

fn adopted(region: &JitFd) -> bool {
    region.adopt().is_ok()
}

pub fn a_child_goes_on_at_the_same_addresses(backend: Backend) {
    let region = create(backend, 8 * 4096);
    let old = region.append(&returns(1)).unwrap();
    let place = region.reserve(6, Align::FUNCTION).unwrap();
    let base = region.base();
    let in_child = child(|| {
        if !adopted(&region) || region.base() != base {
            return 100;
        }
        let stats = region
            .stats()
            .map(|stats| (stats.publications, stats.cursor));
        let right = stats == Ok((0, 22)) && run(&region, old.offset) == 1;
        go_on(&region, &place, [5, 6]) + 10 * i32::from(right)
    });
    assert_eq!(in_child, End::Status(12));
    // Nothing of that has reached the parent.
    assert_eq!(go_on(&region, &place, [7, 8]), 2);
    assert_eq!(run(&region, old.offset), 1);
}

pub fn what_the_parent_does_meanwhile_stays_its_own(backend: Backend) {
    let region = create(backend, 4096);
    let old = region.append(&returns(1)).unwrap();
    let in_child = child(|| {
        let grandchild = || {
            let own = adopted(&region) && region.append(&returns(3)).is_ok();
            if own { run(&region, 16) } else { 100 }
        };
        if !adopted(&region) || child(grandchild) != End::Status(3) {
            return 100;
        }
        let at = region.append(&returns(4));
        at.map_or(100, |at| run(&region, at.offset) + run(&region, old.offset))
    });
    assert_eq!(in_child, End::Status(5));
    let at = region.append(&returns(2)).unwrap();
    assert_eq!((at.offset, run(&region, at.offset)), (16, 2));
}

/// What the parent publishes after the fork is no part of a fallback's copy, and
/// in the kernel's it is: in both the child's next code follows what it has.
pub fn a_late_copy_is_whole(backend: Backend) {
    let region = create(backend, 4 * 4096);
    let place = region.reserve(6, Align::FUNCTION).unwrap();
    let (mut ready, mut go) = UnixStream::pair().unwrap();
    let late = || {
        if go.read_exact(&mut [0]).is_err() || !adopted(&region) {
            return 100;
        }
        let Ok(at) = region.append(&returns(3)) else {
            return 101;
        };
        let filled = region.fill(&place, &returns(5)).is_ok();
        i32::from(filled != (backend == Backend::Kernel)) + run(&region, at.offset)
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| child(late));
        std::thread::sleep(Duration::from_millis(200));
        region.fill(&place, &returns(1)).unwrap();
        region.append(&returns(2)).unwrap();
        ready.write_all(&[0]).unwrap();
        assert_eq!(waiting.join().unwrap(), End::Status(4));
    });
    assert_eq!((run(&region, place.offset), run(&region, 16)), (1, 2));
}

pub fn a_copy_is_not_sealed(backend: Backend) {
    let region = create(backend, 4096);
    region.append(&returns(1)).unwrap();
    region.seal().unwrap();
    let in_child = child(|| {
        let sealed = region.append(&returns(2)).is_err();
        let own = adopted(&region) && region.append(&returns(2)).is_ok();
        if sealed && own { run(&region, 16) } else { 100 }
    });
    assert_eq!(in_child, End::Status(2));
    let refused = region.append(&returns(2)).unwrap_err();
    assert_eq!(refused.kind(), Some(Kind::Sealed));
}

pub fn a_region_can_be_cloned_elsewhere(backend: Backend) {
    let region = create(backend, 4096);
    let old = region.append(&returns(1)).unwrap().offset;
    let cloned = region.map_handle().clone_region(false);
    let (map, append) = match cloned {
        Err(error) => {
            assert!(matches!(error, Error::Unsupported(_)) && backend != Backend::Kernel);
            return;
        }
        Ok(handles) => handles,
    };
    let mapping = map.map(4096).unwrap();
    assert_eq!(append.append(&[&returns(2)], None), Ok(vec![16]));
    assert_eq!(region.append(&returns(3)).unwrap().offset, 16);
    for (offset, value) in [(old, 1), (16, 2)] {
        // SAFETY: such functions were published there.
        let function = unsafe { mapping.entry::<super::Function>(offset).unwrap() };
        assert_eq!(function(), value);
    }
    assert_eq!(run(&region, 16), 3);
}
