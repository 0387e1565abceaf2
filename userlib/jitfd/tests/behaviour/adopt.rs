// SPDX-License-Identifier: MIT OR Apache-2.0

//! Forked children that go on compiling on their own, at the same addresses.

use super::process::{End, child};
use super::{Function, create, is_no_entry, jit, returns, run};
use jitfd::space::{Request, SpaceOptions};
use jitfd::tools::PerfMap;
use jitfd::{Align, Backend, CodeSpace, Error, Kind, Region, RegionOptions, Rules, Slot, validate};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Publishes and runs; how many of the steps went as they should.
fn go_on(region: &Region, place: &Slot, values: [i32; 2]) -> i32 {
    let filled = region.fill(place, &returns(values[0]));
    let appended = region.publish(&returns(values[1]));
    let right = |published: Result<jitfd::Published, Error>, value| {
        published.is_ok_and(|at| run(region, at.offset) == value)
    };
    i32::from(right(filled, values[0])) + i32::from(right(appended, values[1]))
}

fn adopted(region: &Region) -> bool {
    region.adopt().is_ok()
}

pub fn a_child_goes_on_at_the_same_addresses(backend: Backend) {
    let region = create(backend, 8 * 4096);
    let old = region.publish(&returns(1)).unwrap();
    let place = region.reserve(6, Align::FUNCTION).unwrap();
    let base = region.mapping().address();
    let in_child = child(|| {
        if !adopted(&region) || region.mapping().address() != base {
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
    let old = region.publish(&returns(1)).unwrap();
    let in_child = child(|| {
        let grandchild = || {
            let own = adopted(&region) && region.publish(&returns(3)).is_ok();
            if own { run(&region, 16) } else { 100 }
        };
        if !adopted(&region) || child(grandchild) != End::Status(3) {
            return 100;
        }
        let at = region.publish(&returns(4));
        at.map_or(100, |at| run(&region, at.offset) + run(&region, old.offset))
    });
    assert_eq!(in_child, End::Status(5));
    let at = region.publish(&returns(2)).unwrap();
    assert_eq!((at.offset, run(&region, at.offset)), (16, 2));
}

/// What the parent publishes after the fork is no part of a fallback's copy, and
/// in the kernel's it is: in both the child's next code follows what it has.
pub fn a_late_copy_is_whole(backend: Backend) {
    let region = create(backend, 4 * 4096);
    let place = region.reserve(6, Align::FUNCTION).unwrap();
    let (mut ready, mut go) = UnixStream::pair().unwrap();
    let late = || {
        let met = go.write_all(&[0]).and_then(|()| go.read_exact(&mut [0]));
        if met.is_err() || !adopted(&region) {
            return 100;
        }
        let Ok(at) = region.publish(&returns(3)) else {
            return 101;
        };
        let filled = region.fill(&place, &returns(5)).is_ok();
        i32::from(filled != (backend == Backend::Kernel)) + run(&region, at.offset)
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| child(late));
        // The child is there.
        ready.read_exact(&mut [0]).unwrap();
        region.fill(&place, &returns(1)).unwrap();
        region.publish(&returns(2)).unwrap();
        ready.write_all(&[0]).unwrap();
        assert_eq!(waiting.join().unwrap(), End::Status(4));
    });
    assert_eq!((run(&region, place.offset), run(&region, 16)), (1, 2));
}

pub fn a_copy_is_not_sealed(backend: Backend) {
    let region = create(backend, 4096);
    region.publish(&returns(1)).unwrap();
    region.append_handle().seal().unwrap();
    let in_child = child(|| {
        let sealed = region.publish(&returns(2)).is_err();
        let own = adopted(&region) && region.publish(&returns(2)).is_ok();
        if sealed && own { run(&region, 16) } else { 100 }
    });
    assert_eq!(in_child, End::Status(2));
    let refused = region.publish(&returns(2)).unwrap_err();
    assert_eq!(refused.kind(), Some(Kind::Sealed));
}

pub fn a_region_can_be_cloned_elsewhere(backend: Backend) {
    let region = create(backend, 4096);
    let old = region.publish(&returns(1)).unwrap().offset;
    let cloned = region.map_handle().clone_region(false);
    let (map, append) = match cloned {
        Err(error) => {
            assert!(matches!(error, Error::Unsupported { .. }) && backend != Backend::Kernel);
            return;
        }
        Ok(handles) => handles,
    };
    let mapping = map.map(4096, None).unwrap();
    assert_eq!(append.publish_all(&[&returns(2)]), Ok(vec![16]));
    assert_eq!(region.publish(&returns(3)).unwrap().offset, 16);
    for (offset, value) in [(old, 1), (16, 2)] {
        // SAFETY: such functions were published there.
        let function = unsafe { mapping.entry::<super::Function>(offset).unwrap() };
        assert_eq!(function(), value);
    }
    assert_eq!(run(&region, 16), 3);
}

fn call(space: &CodeSpace, function: jitfd::Published) -> i32 {
    // SAFETY: the tests publish such functions.
    unsafe { space.entry::<Function>(function).unwrap()() }
}

/// In a child that has not adopted the space: how many calls are refused as they
/// should be.
fn refused(space: &CodeSpace, slot: &Slot) -> i32 {
    let chunk = returns(1);
    let refused = [
        space.publish("f", &chunk).err(),
        space.reserve(&Request::new(8)).err(),
        space.fill(slot, &chunk).err(),
        space
            .publish_with(&Request::new(8), |_| Ok(returns(1)))
            .err(),
    ];
    let kinds = refused.iter().flatten().filter_map(Error::kind);
    kinds.filter(|kind| *kind == Kind::NotOwner).count() as i32
}

/// Publishes at the end, in a slot, and in a region that is added; how many of the
/// steps went as they should.
fn compile(space: &CodeSpace, slot: &Slot, name: &str, values: [i32; 2]) -> i32 {
    let mut large = vec![0x90; 2 * 4096];
    large.push(0xc3);
    let large = validate(&large, &Rules::new()).unwrap();
    let regions = space.regions().count();
    let published = space.publish(name, &returns(values[0])).unwrap();
    let filled = space.fill(slot, &returns(values[1])).unwrap();
    let grown = space.publish("large", &large).unwrap();
    let called = |at: usize| space.lookup(at).map(|symbol| symbol.name.to_owned());
    [
        call(space, published) == values[0] && called(published.address).as_deref() == Some(name),
        call(space, filled) == values[1] && called(filled.address + 5).as_deref() == Some("slot"),
        called(grown.address + 4096).as_deref() == Some("large"),
        space.regions().count() == regions + 1,
    ]
    .map(i32::from)
    .iter()
    .sum()
}

pub fn a_child_goes_on_with_a_code_space(backend: Backend) {
    let folder = std::env::temp_dir().join(format!("jitfd-adopt-{backend:?}"));
    std::fs::create_dir_all(&folder).unwrap();
    let map = Arc::new(PerfMap::create_in(&folder).unwrap());
    let space = SpaceOptions {
        region: RegionOptions::from(4096),
        listeners: vec![map.clone()],
        ..Default::default()
    };
    let space = jit(backend).space(space).unwrap();
    let old = space.publish("old", &returns(1)).unwrap();
    let slot = space
        .reserve(&Request {
            name: "slot",
            ..Request::new(6)
        })
        .unwrap();
    let names = |map: &PerfMap| {
        let text = std::fs::read_to_string(map.path()).unwrap();
        let names = text.lines().map(|line| line.rsplit(' ').next().unwrap());
        names.collect::<Vec<_>>().join(" ")
    };
    let in_child = child(|| {
        let before = refused(&space, &slot) == 4 && space.lookup(old.address).is_some();
        if !before || space.adopt().is_err() {
            return 100;
        }
        let in_grandchild = || {
            let before = refused(&space, &slot) == 4 && space.adopt().is_ok();
            i32::from(before) + compile(&space, &slot, "grandchild's", [8, 9])
        };
        let grandchild = child(in_grandchild) == End::Status(5);
        let steps = compile(&space, &slot, "child's", [2, 3]);
        let told = names(&map) == "child's slot large";
        steps + i32::from(call(&space, old) == 1) + i32::from(grandchild) + i32::from(told)
    });
    // What children have published and written is theirs.
    assert_eq!(names(&map), "old");
    assert!(space.symbols().map(|symbol| symbol.name).eq(["old"]));
    assert_eq!(compile(&space, &slot, "parent's", [4, 5]), 4);
    assert_eq!(names(&map), "old parent's slot large");
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(in_child, End::Status(7));
}

/// It publishes into its parent's region, and what it publishes itself is checked.
pub fn a_child_of_a_region_for_any_process_needs_no_copy(backend: Backend) {
    let Ok(region) = jit(backend).region(RegionOptions {
        capacity: 4096,
        any_process: true,
        ..Default::default()
    }) else {
        assert_ne!(backend, Backend::Kernel);
        return;
    };
    region.publish(&returns(1)).unwrap();
    let in_child = child(|| {
        let Ok(at) = region.publish(&returns(2)) else {
            return 100;
        };
        // jmp to the second byte of that
        let jump = validate(&[0xeb, 0xef], &Rules::new()).unwrap();
        let refused = region
            .publish(&jump)
            .is_err_and(|error| is_no_entry(&error));
        run(&region, at.offset) + 10 * i32::from(refused)
    });
    assert_eq!(in_child, End::Status(12));
    assert_eq!(region.publish(&returns(3)).unwrap().offset, 32);
}
