// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is promised beside running code: the filler, errors in their order,
//! counters, all or nothing, rights.

use super::process::{End, accesses, child};
use super::{create, jit, read, returns, run};
use jitfd::internal::{fill_at, publish_all_at, publish_at};
use jitfd::{Align, Backend, Chunk, Error, Kind, Region, RegionOptions, Rules, validate};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

fn nops(len: usize) -> Chunk {
    let mut code = vec![0x90; len];
    code[len - 1] = 0xc3;
    validate(&code, &Rules::new()).unwrap().aligned(Align::NONE)
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<Kind> {
    result.unwrap_err().kind()
}

pub fn what_is_not_published_is_a_trap(backend: Backend) {
    let region = create(backend, 3 * 4096);
    region.publish(&nops(10)).unwrap();
    let place = region.reserve(100, Align::new(64).unwrap()).unwrap();
    let mut expected = vec![0xcc; 4096];
    expected[..10].copy_from_slice(nops(10).bytes());
    assert!(read(&region, 0, 4096) == expected);
    fill_at(&region, &place, 50, &nops(10)).unwrap();
    expected[114..124].copy_from_slice(nops(10).bytes());
    assert!(read(&region, 0, 4096) == expected);
}

pub fn code_may_cross_pages(backend: Backend) {
    let region = create(backend, 16 * 4096);
    region.publish(&nops(4094)).unwrap();
    let across = region.publish(&returns(1).aligned(Align::NONE)).unwrap();
    assert_eq!((across.offset, run(&region, across.offset)), (4094, 1));
    let place = region.reserve(3 * 4096, Align::NONE).unwrap();
    let last = region.publish(&returns(2)).unwrap();
    for at in [4090_usize, 8190, 4080] {
        fill_at(&region, &place, at, &returns(3)).unwrap();
        assert_eq!(run(&region, place.offset + at), 3);
    }
    assert_eq!(
        (run(&region, across.offset), run(&region, last.offset)),
        (1, 2)
    );
}

pub fn refusals_come_in_their_order(backend: Backend) {
    let region = create(backend, 2 * 4096);
    let nothing = Error::Argument("a range to reserve has at least 1 byte");
    assert_eq!(region.reserve(0, Align::NONE).unwrap_err(), nothing);
    assert_eq!(kind(region.reserve(8193, Align::NONE)), Some(Kind::Full));
    let first = region.reserve(16, Align::NONE).unwrap();
    let second = region.reserve(16, Align::NONE).unwrap();
    let append = region.append_handle();
    let across = append.fill(first.offset + 8, &nops(16));
    assert_eq!(kind(across), Some(Kind::NotReserved));
    assert_eq!(kind(append.fill(32, &nops(1))), Some(Kind::NotReserved));
    assert_eq!(kind(append.fill(1 << 30, &nops(1))), Some(Kind::Argument));
    assert_eq!(kind(append.publish_all(&[&nops(8192)])), Some(Kind::Full));
    assert_eq!(
        kind(publish_all_at(append, &[&nops(8192)], Some(8))),
        Some(Kind::Full)
    );
    // The last is the number that means anywhere to the kernel.
    for expected in [8, 1 << 30, usize::MAX] {
        let stale = publish_all_at(append, &[&nops(1)], Some(expected)).unwrap_err();
        assert_eq!(stale, Error::Stale { expected });
    }
    let free = jit(backend)
        .region(RegionOptions {
            capacity: 4096,
            boundary_map: false,
            ..Default::default()
        })
        .unwrap();
    let expected = usize::MAX;
    let stale = publish_at(&free, expected, &nops(1).aligned(Align::NONE));
    assert_eq!(stale, Err(Error::Stale { expected }));
    region.fill(&second, &nops(16)).unwrap();
    region.append_handle().seal().unwrap();
    region.append_handle().seal().unwrap();
    assert_eq!(
        kind(publish_all_at(append, &[&nops(8192)], Some(8))),
        Some(Kind::Sealed)
    );
    assert_eq!(kind(append.publish_all(&[&nops(8193)])), Some(Kind::Full));
    assert_eq!(kind(append.fill(4000, &nops(1))), Some(Kind::Sealed));
    assert_eq!(append.reserve(0, Align::NONE).unwrap_err(), nothing);
    assert_eq!(kind(append.reserve(9000, Align::NONE)), Some(Kind::Sealed));
}

pub fn a_refused_call_changes_nothing(backend: Backend) {
    let region = create(backend, 4096);
    region.publish(&returns(1)).unwrap();
    let place = region.reserve(64, Align::NONE).unwrap();
    let (bytes, stats) = (read(&region, 0, 4096), region.stats().unwrap());
    let append = region.append_handle();
    assert!(append.publish_all(&[&nops(8), &nops(4090)]).is_err());
    assert!(publish_all_at(append, &[&nops(8)], Some(4000)).is_err());
    assert!(append.fill(place.offset + 60, &nops(8)).is_err());
    assert!(append.reserve(4096, Align::NONE).is_err());
    assert!(read(&region, 0, 4096) == bytes);
    assert_eq!(region.stats().unwrap(), stats);
}

pub fn counters_count(backend: Backend) {
    let region = create(backend, 4 * 4096);
    region.publish_all(&[nops(10), nops(20), nops(30)]).unwrap();
    let place = region.reserve(50, Align::NONE).unwrap();
    region.fill(&place, &nops(50)).unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.capacity, stats.cursor), (4 * 4096, 110));
    assert_eq!(
        (stats.publications, stats.segments, stats.bytes),
        (2, 4, 110)
    );
    assert!(!stats.sealed);
    assert_eq!(stats, region.map_handle().stats().unwrap());
    region.append_handle().seal().unwrap();
    assert!(region.stats().unwrap().sealed);
}

pub fn a_mapping_sees_what_comes_later(backend: Backend) {
    let (map, append, first) = create(backend, 2 * 4096).split();
    let second = map.map(4096, None).unwrap();
    assert_eq!((first.len(), second.len()), (8192, 4096));
    append.publish_all(&[&returns(5)]).unwrap();
    drop(first);
    append.publish_all(&[&returns(6)]).unwrap();
    for (offset, value) in [(0, 5), (16, 6)] {
        // SAFETY: such functions were published there.
        let function = unsafe { second.entry::<super::Function>(offset).unwrap() };
        assert_eq!(function(), value);
    }
    assert_eq!(kind(map.map(8193, None)), Some(Kind::Argument));
}

pub fn the_largest_region_costs_nothing_until_it_is_used(backend: Backend) {
    let region = create(backend, 1 << 30);
    let at = region.publish(&returns(1)).unwrap();
    assert_eq!(run(&region, at.offset), 1);
    assert_eq!(kind(region.reserve(1 << 30, Align::NONE)), Some(Kind::Full));
}

pub fn only_the_kernels_handles_are_descriptors(backend: Backend) {
    let region = create(backend, 4096);
    assert_eq!(region.backend(), backend);
    let (map, append, _mapping) = region.split();
    let kernel = backend == Backend::Kernel;
    assert_eq!((map.fd().is_ok(), append.fd().is_ok()), (kernel, kernel));
    let given = [OwnedFd::try_from(map), OwnedFd::try_from(append)];
    for fd in given {
        match fd {
            Ok(_) => assert!(kernel),
            Err(Error::Unsupported { backend: by, .. }) => assert_eq!(by, backend),
            Err(other) => panic!("{other}"),
        }
    }
    let shared = jit(backend).region(RegionOptions {
        capacity: 4096,
        any_process: true,
        ..Default::default()
    });
    match shared {
        Ok(_) => assert!(kernel),
        Err(error) => assert!(!kernel && error.errno() == libc::EOPNOTSUPP, "{error}"),
    }
}

/// What the publishing calls of `region` are refused with, as a status.
fn refused_as_foreign(region: &Region, chunk: &Chunk) -> i32 {
    let refused = [
        region.append_handle().publish_all(&[chunk]).err(),
        region.append_handle().reserve(8, Align::NONE).err(),
        region.append_handle().fill(0, chunk).err(),
        region.append_handle().seal().err(),
    ];
    let right =
        |error: &Option<Error>| error.as_ref().and_then(Error::kind) == Some(Kind::NotOwner);
    refused.iter().filter(|error| right(error)).count() as i32
}

pub fn a_forked_child_runs_code_and_publishes_none(backend: Backend) {
    let region = create(backend, 4096);
    let at = region.publish(&returns(7)).unwrap().offset;
    let chunk = returns(1);
    assert_eq!(child(|| run(&region, at)), End::Status(7));
    assert_eq!(
        child(|| refused_as_foreign(&region, &chunk)),
        End::Status(4)
    );
    let (mut go, mut ready) = UnixStream::pair().unwrap();
    let later = region.reserve(6, Align::NONE).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            child(|| {
                use std::io::Read;
                let told = go.read_exact(&mut [0]).is_ok();
                if told { run(&region, later.offset) } else { 0 }
            })
        });
        region.fill(&later, &returns(9)).unwrap();
        std::io::Write::write_all(&mut ready, &[0]).unwrap();
        let end = waiting.join().unwrap();
        // Pages of its own stay as they were at the fork.
        let private = backend == Backend::ProtectFlips && end == End::Signal(libc::SIGTRAP);
        assert!(private || end == End::Status(9), "{end:?}");
    });
    // What the child dropped was its own.
    assert_eq!(run(&region, at), 7);
}

pub fn a_region_that_a_child_drops_stays(backend: Backend) {
    let region = create(backend, 4096);
    region.publish(&returns(3)).unwrap();
    let mut held = Some(region);
    let end = child(|| {
        held = None;
        // Where the writable view was, something else may be mapped by now.
        i32::from(std::fs::read_to_string("/proc/self/maps").is_err())
    });
    assert_eq!(end, End::Status(0));
    let region = held.unwrap();
    let at = region.publish(&returns(4)).unwrap().offset;
    assert_eq!((run(&region, 0), run(&region, at)), (3, 4));
}

pub fn no_mapping_is_writable_and_executable(backend: Backend) {
    let region = create(backend, 64 * 4096);
    for value in 0..2000 {
        region.publish(&returns(value)).unwrap();
    }
    let used = region.stats().unwrap().cursor.next_multiple_of(4096);
    let code = accesses(region.mapping().address(), used);
    assert!(
        code.iter().all(|access| access.starts_with("r-x")),
        "{code:?}"
    );
    assert!(code.len() <= 2, "{} mappings for 8 pages", code.len());
    let all = accesses(0, 1 << 47);
    let both = |access: &String| access.contains('w') && access.contains('x');
    assert!(!all.iter().any(both), "{all:?}");
}
