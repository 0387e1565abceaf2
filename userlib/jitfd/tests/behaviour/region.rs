// SPDX-License-Identifier: MIT OR Apache-2.0

//! Regions: placing, retrying, refusing, and running the code.

use super::{Function, create, is_no_entry, jit, jump_to, leaves, load, returns, run};
use jitfd::internal::{fill_at, next_offset, publish_all_at, publish_at, slot};
use jitfd::*;

/// A jump of five bytes from `at` to `target`.
fn jump(at: usize, target: usize) -> Chunk {
    let mut code = vec![0xe9];
    code.extend(
        i32::try_from(target as i64 - at as i64 - 5)
            .unwrap()
            .to_le_bytes(),
    );
    validate(&code, &Rules::new()).unwrap()
}

fn with_data(len: usize) -> Chunk {
    validate(&vec![0x90; len], &Rules::new().data(0..1)).unwrap()
}

pub fn appended_code_runs_where_it_is_said_to_be(backend: Backend) {
    let region = create(backend, 5000);
    assert_eq!(region.mapping().len(), 8192);
    for value in 0..100 {
        let at = region.publish(&returns(value)).unwrap();
        assert_eq!((at.offset % 16, at.len), (0, 6));
        assert_eq!(at.address, region.mapping().address() + at.offset);
        assert_eq!(run(&region, at.offset), value);
    }
    assert_eq!(region.stats().unwrap().publications, 100);
}

pub fn a_batch_is_one_publication(backend: Backend) {
    let region = create(backend, 4096);
    let batch = [returns(1), returns(2).aligned(Align::NONE), returns(3)];
    let placed = region.publish_all(&batch).unwrap();
    assert!(placed.iter().map(|at| at.offset).eq([0, 6, 16]));
    assert!(
        placed
            .iter()
            .map(|at| run(&region, at.offset))
            .eq([1, 2, 3])
    );
    assert_eq!(region.stats().unwrap().publications, 1);
    let none: [Chunk; 0] = [];
    assert_eq!(region.publish_all(&none), Ok(vec![]));
}

pub fn too_many_chunks_are_refused(backend: Backend) {
    let region = create(backend, 1 << 16);
    let batch = vec![returns(1); 1025];
    assert!(matches!(
        region.publish_all(&batch),
        Err(Error::Argument(_))
    ));
    assert_eq!(region.publish_all(&batch[..1024]).unwrap().len(), 1024);
}

/// Small chunks with data lie where they would without, large ones on pages of
/// their own.
pub fn data_can_be_read_at_once(backend: Backend) {
    let region = create(backend, 1 << 20);
    region.publish(&returns(1)).unwrap();
    // From now on a CPU has the page as it is.
    assert_eq!((run(&region, 0), load(&region, 16, 1)), (1, vec![0xcc]));
    let small = region.publish(&with_data(100)).unwrap();
    assert_eq!(small.offset, 16);
    let large = region.publish(&with_data(100_000)).unwrap();
    assert_eq!(large.offset, 4096);
    let after = region.publish(&returns(1)).unwrap();
    assert_eq!(after.offset, 4096 + 100_000_usize.next_multiple_of(4096));
    let place = region.reserve(100, Align::NONE).unwrap();
    let filled = region.fill(&place, &with_data(100)).unwrap();
    for at in [small, large, filled] {
        assert_eq!(load(&region, at.offset, at.len), vec![0x90; at.len]);
    }
}

pub fn code_within_lines_starts_with_one(backend: Backend) {
    let region = create(backend, 4096);
    let options = Rules::new().within_lines();
    let chunk = validate(&[0xb8, 7, 0, 0, 0, 0xc3], &options).unwrap();
    region.publish(&returns(1)).unwrap();
    let placed = region.publish_all(&[&chunk, &chunk]).unwrap();
    assert!(placed.iter().map(|at| at.offset).eq([64, 128]));
    let place = region.reserve(128, Align::FUNCTION).unwrap();
    assert_eq!(place.offset, 144);
    let wrong = region.fill(&place, &chunk);
    assert!(matches!(wrong, Err(Error::Argument(_))), "{wrong:?}");
    let right = fill_at(&region, &place, 192 - 144, &chunk).unwrap();
    assert_eq!(run(&region, right.offset), 7);
}

/// Trying again would not help, so it is no stale cursor.
pub fn a_place_that_no_cursor_gives_is_refused(backend: Backend) {
    let region = create(backend, 4096);
    let options = Rules::new().within_lines();
    let within = validate(&[0xb8, 7, 0, 0, 0, 0xc3], &options).unwrap();
    let refused = |error: Error, part: &str| {
        assert!(matches!(error, Error::Argument(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    };
    for _ in 0..2 {
        let mut calls = 0;
        let emitted = region.publish_with(Align::FUNCTION, |_| {
            calls += 1;
            Ok::<_, Error>(within.clone())
        });
        refused(emitted.unwrap_err(), "multiple of 64");
        assert_eq!(calls, 1);
        region.publish(&returns(1)).unwrap();
    }
    let next = next_offset(&region, Align::FUNCTION).unwrap();
    assert_eq!(next, 32);
    refused(
        publish_at(&region, 32, &within).unwrap_err(),
        "multiple of 64",
    );
    let handle = publish_all_at(region.append_handle(), &[&within], Some(32));
    refused(handle.unwrap_err(), "multiple of 64");
    let wide = returns(1).aligned(Align::new(128).unwrap());
    refused(
        publish_at(&region, 32, &wide).unwrap_err(),
        "the chunk's alignment",
    );
    let line = Align::new(64).unwrap();
    let placed = region.publish_with(line, |_| Ok::<_, Error>(within.clone()));
    assert_eq!(run(&region, placed.unwrap().offset), 7);
}

pub fn only_declared_entries_are_entered(backend: Backend) {
    let region = create(backend, 4096);
    // nop; mov eax, 5; ret
    let code = [0x90, 0xb8, 5, 0, 0, 0, 0xc3];
    let callee = validate(&code, &Rules::new().entry(1)).unwrap();
    assert_eq!(region.publish(&callee).unwrap().offset, 0);
    let wrong = publish_at(&region, 16, &jump(16, 0)).unwrap_err();
    assert!(is_no_entry(&wrong), "{wrong:?}");
    let caller = publish_at(&region, 16, &jump(16, 1)).unwrap();
    assert_eq!(run(&region, caller.offset), 5);
}

pub fn reserved_ranges_are_filled_once(backend: Backend) {
    let region = create(backend, 4096);
    let place = region.reserve(32, Align::FUNCTION).unwrap();
    assert_eq!(region.publish(&returns(2)).unwrap().offset, 32);
    let filled = region.fill(&place, &returns(1)).unwrap();
    assert_eq!(
        (filled.address, run(&region, place.offset)),
        (place.address, 1)
    );
    let again = region.fill(&place, &returns(1)).unwrap_err();
    assert_eq!(again.kind(), Some(Kind::NotReserved));
    fill_at(&region, &place, 26, &returns(3)).unwrap();
    assert_eq!(run(&region, 26), 3);
    assert!(matches!(
        fill_at(&region, &place, 27, &returns(3)),
        Err(Error::Argument(_))
    ));
    assert!(matches!(
        fill_at(&region, &place, usize::MAX, &returns(3)),
        Err(Error::Argument(_))
    ));
    let other = create(backend, 4096);
    assert!(matches!(
        other.fill(&place, &returns(1)),
        Err(Error::Argument(_))
    ));
    // Of no region at all: no memory is got for its place.
    for offset in [4096 - 63, 4096, 1 << 40, usize::MAX - 1, usize::MAX] {
        let address = region.mapping().address().wrapping_add(offset);
        let refused = region.fill(&slot(offset, address, 64), &returns(1));
        assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
    }
}

pub fn a_region_fills_up_and_can_be_sealed(backend: Backend) {
    let region = create(backend, 4096);
    for _ in 0..256 {
        region.publish(&returns(7)).unwrap();
    }
    assert_eq!(
        region.publish(&returns(7)).unwrap_err().kind(),
        Some(Kind::Full)
    );
    assert_eq!(
        region.reserve(16, Align::NONE).unwrap_err().kind(),
        Some(Kind::Full)
    );
    let region = create(backend, 4096);
    let place = region.reserve(16, Align::NONE).unwrap();
    region.append_handle().seal().unwrap();
    assert_eq!(
        region.publish(&returns(7)).unwrap_err().kind(),
        Some(Kind::Sealed)
    );
    assert_eq!(
        region.fill(&place, &returns(7)).unwrap_err().kind(),
        Some(Kind::Sealed)
    );
    assert!(region.stats().unwrap().sealed);
}

pub fn capacities_have_bounds(backend: Backend) {
    for capacity in [0, (1 << 30) + 1, usize::MAX] {
        assert!(matches!(
            jit(backend).region(capacity),
            Err(Error::Argument(_))
        ));
    }
}

pub fn somebody_else_may_publish_in_between(backend: Backend) {
    let region = create(backend, 1 << 16);
    let place = next_offset(&region, Align::FUNCTION).unwrap();
    region.append_handle().publish_all(&[&returns(1)]).unwrap();
    let stale = publish_at(&region, place, &returns(2));
    assert_eq!(stale, Err(Error::Stale { expected: place }));
    assert_eq!(publish_at(&region, 16, &returns(2)).unwrap().offset, 16);
    region.append_handle().publish_all(&[&returns(3)]).unwrap();
    assert_eq!(region.publish(&returns(4)).unwrap().offset, 48);
    assert_eq!(
        publish_at(&region, 4720, &returns(2)),
        Err(Error::Stale { expected: 4720 })
    );
}

/// Asked for with an alignment that is not the chunk's, it is its place all the same.
pub fn a_place_is_reached_whatever_it_was_asked_with(backend: Backend) {
    for keep in [true, false] {
        let region = jit(backend)
            .region(RegionOptions {
                capacity: 4 << 12,
                boundary_map: keep,
                ..Default::default()
            })
            .unwrap();
        region.publish(&returns(1)).unwrap();
        for (align, offset) in [(64, 64), (4096, 4096), (1024, 5120), (16, 5136)] {
            let place = next_offset(&region, Align::new(align).unwrap()).unwrap();
            assert_eq!(place, offset);
            let published = publish_at(&region, offset, &returns(2)).unwrap();
            assert_eq!((published.offset, run(&region, offset)), (offset, 2));
        }
        assert_eq!(load(&region, 70, 4096 - 70), [0xcc; 4096 - 70]);
        // The place is missed; at the next one, not a page's start, there is room.
        let long = with_data(4096 + 2048);
        let missed = publish_at(&region, 0, &long).unwrap_err();
        assert_eq!(missed, Error::Stale { expected: 0 });
        let next = next_offset(&region, Align::FUNCTION).unwrap();
        assert_eq!(publish_at(&region, next, &long).unwrap().offset, next);
        let full = publish_at(&region, next + 6144, &long).unwrap_err();
        assert_eq!(full.kind(), Some(Kind::Full));
    }
}

pub fn emitting_is_repeated_for_another_place(backend: Backend) {
    let region = create(backend, 4096);
    let mut places = Vec::new();
    let at = region.publish_with(Align::FUNCTION, |address| {
        if places.is_empty() {
            region.publish(&returns(0)).unwrap();
        }
        let offset = address - region.mapping().address();
        places.push(offset);
        Ok::<_, Error>(returns(i32::try_from(offset).unwrap()))
    });
    assert_eq!(places, [0, 16]);
    assert_eq!(run(&region, at.unwrap().offset), 16);
}

pub fn branches_between_chunks_are_checked(backend: Backend) {
    let region = create(backend, 4096);
    let callee = region.publish(&returns(5)).unwrap().offset;
    let caller = publish_at(&region, 16, &jump(16, callee)).unwrap();
    assert_eq!(run(&region, caller.offset), 5);
    let wrong = publish_at(&region, 32, &jump(32, callee + 1)).unwrap_err();
    let Error::Code(error) = wrong else {
        panic!("{wrong:?}");
    };
    let reason = Reason::NotAnEntry {
        branch: 32,
        target: callee + 1,
    };
    assert_eq!((error.offset, error.reason), (0, reason));
    assert_eq!(region.stats().unwrap().cursor, 21);
    let free = jit(backend)
        .region(RegionOptions {
            capacity: 4096,
            boundary_map: false,
            ..Default::default()
        })
        .unwrap();
    free.publish(&returns(5)).unwrap();
    publish_at(&free, 16, &jump(16, 1)).unwrap();
}

extern "C" fn helper() -> i32 {
    77
}

pub fn branches_leave_only_to_what_they_may(backend: Backend) {
    let helper = helper as *const () as usize;
    let near = Window::reaching(helper);
    let rules = Rules::new().leaves_only_to([helper]);
    for map in [true, false] {
        let options = RegionOptions {
            capacity: 4096,
            boundary_map: map,
            window: Some(near),
            ..Default::default()
        };
        let region = jit(backend).region(options).unwrap();
        let callee = region.publish(&returns(5)).unwrap().address;
        // Assembled for the place it gets, and for the one behind.
        let offset = next_offset(&region, Align::FUNCTION).unwrap();
        let address = region.mapping().address() + offset;
        let right = jump_to(address, helper, &rules);
        let wrong = jump_to(address + 16, helper, &rules);
        let found = (address, helper - 16);
        let error = region.publish(&wrong).unwrap_err();
        assert_eq!(leaves(&error), Some(found), "{error}");
        for number in [found.0, found.1] {
            assert!(error.to_string().contains(&format!("{number:#x}")));
        }
        let all = region.publish_all(&[&right, &right]).unwrap_err();
        assert_eq!(leaves(&all), Some((address + 16, helper + 16)));
        assert!(matches!(all, Error::Code(error) if error.item == Some((1, String::new()))));
        let done = publish_at(&region, offset, &right).unwrap();
        assert_eq!(run(&region, done.offset), 77);
        // A function of the same region need not be named.
        let address = region.mapping().address() + next_offset(&region, Align::FUNCTION).unwrap();
        let done = region.publish(&jump_to(address, callee, &rules));
        assert_eq!(run(&region, done.unwrap().offset), 5);
        let range = region.reserve(5, Align::FUNCTION).unwrap();
        let error = region.fill(&range, &wrong).unwrap_err();
        assert_eq!(leaves(&error).unwrap().0, range.address);
        let right = jump_to(range.address, helper, &rules);
        region.fill(&range, &right).unwrap();
        assert_eq!(run(&region, range.offset), 77);
        // Without an address nothing can be said of it.
        let append = region.append_handle();
        for refused in [
            append.publish_all(&[&right]).unwrap_err(),
            append.fill(0, &right).unwrap_err(),
        ] {
            let reason = |error: &CodeError| error.reason == Reason::NoAddress;
            assert!(matches!(&refused, Error::Code(error) if reason(error)));
        }
        let stays = validate(&[0xeb, 0, 0xc3], &rules).unwrap();
        assert!(append.publish_all(&[&stays]).is_ok());
    }
}

pub fn the_parts_work_alone(backend: Backend) {
    let (map, append, mapping) = create(backend, 4096).split();
    drop(mapping);
    let offset = append.reserve(6, Align::NONE).unwrap();
    append.fill(offset, &returns(9)).unwrap();
    assert_eq!(append.publish_all(&[]), Ok(vec![]));
    let mapping = map.map(4096, None).unwrap();
    // SAFETY: such a function was published there.
    let nine = unsafe { mapping.entry::<Function>(offset).unwrap() };
    assert_eq!(nine(), 9);
    // SAFETY: no pointer is made from a bad offset.
    let bad = unsafe { mapping.entry::<Function>(4096) };
    assert!(bad.is_err());
    assert_eq!(map.map(0, None).unwrap_err().kind(), Some(Kind::Argument));
}

pub fn many_threads_append_to_one_region(backend: Backend) {
    for map in [true, false] {
        let region = jit(backend)
            .region(RegionOptions {
                capacity: 1 << 20,
                boundary_map: map,
                ..Default::default()
            })
            .unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let region = &region;
                scope.spawn(move || append_and_run(region, thread * 1000));
            }
        });
        assert_eq!(region.stats().unwrap().publications, 1200);
    }
}

fn append_and_run(region: &Region, base: i32) {
    for value in base..base + 100 {
        let at = region.publish(&returns(value)).unwrap();
        assert_eq!(run(region, at.offset), value);
        let place = region.reserve(6, Align::FUNCTION).unwrap();
        region.fill(&place, &returns(-value)).unwrap();
        assert_eq!(run(region, place.offset), -value);
        let made = region.publish_with(Align::FUNCTION, |address| {
            let offset = address - region.mapping().address();
            Ok::<_, Error>(returns(i32::try_from(offset).unwrap()))
        });
        let at = made.unwrap().offset;
        assert_eq!(run(region, at), i32::try_from(at).unwrap());
    }
}

pub fn a_region_lies_in_its_window(backend: Backend) {
    let here = run as *const () as usize;
    let near = RegionOptions {
        capacity: 1 << 20,
        window: Some(Window::reaching(here)),
        ..Default::default()
    };
    let jit = jit(backend);
    let regions: Vec<_> = (0..8).map(|_| jit.region(near).unwrap()).collect();
    for region in &regions {
        assert!(region.mapping().address().abs_diff(here) < (1 << 31) - (1 << 20));
        let at = region.publish(&returns(9)).unwrap();
        assert_eq!(run(region, at.offset), 9);
    }
    let nowhere = Window::reaching_all(0, usize::MAX);
    let refused = jit.region(RegionOptions {
        capacity: 4096,
        window: Some(nowhere),
        ..Default::default()
    });
    assert_eq!(refused.unwrap_err(), Error::NoRoom { len: 4096 });
}
