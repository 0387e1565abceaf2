// SPDX-License-Identifier: GPL-2.0
//! Failures while handles and regions are made, asked and closed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use jitfd_plan::abi::{self, CloneFrom, Create};

use super::sweep::{Sweep, USUAL, none_failed, nothing, of_process, of_region, some_failed};
use crate::suite::asm;
use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal};
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        open,
        create,
        create_of_the_largest,
        clone,
        seal,
        stats,
        stats_of_the_device,
        fdinfo,
        close,
    ]
}

/// A handle, and what a call has made of it.
type Made = (OwnedFd, Option<OwnedFd>);

fn fresh() -> Checked<Made> {
    Ok((calls::open_device()?, None))
}

fn open() -> Outcome {
    let sweep = Sweep {
        prepare: &|| Ok(None),
        call: &|made: &mut Option<OwnedFd>| {
            *made = Some(sys::open(c"/dev/jit", libc::O_RDWR)?);
            Ok(())
        },
        state: &of_process,
        verify: &|made| made.as_ref().or_fail("a descriptor").map(|_| ()),
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

fn create_of(size: u64) -> Outcome {
    let argument = Create {
        size,
        ..Default::default()
    };
    let sweep = Sweep {
        prepare: &fresh,
        call: &|made: &mut Made| {
            made.1 = Some(calls::create(made.0.as_raw_fd(), &argument)?);
            Ok(())
        },
        state: &of_process,
        verify: &|(device, _)| {
            let stats = calls::stats(device.as_raw_fd()).or_fail("JIT_STATS")?;
            equal("the capacity", stats.capacity, size)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

fn create() -> Outcome {
    create_of(PAGE as u64)
}

fn create_of_the_largest() -> Outcome {
    create_of(abi::MAX_REGION)
}

/// A region with code on three pages, some of it used, and reservations.
pub fn grown() -> Checked<Region> {
    let region = Region::new(6)?;
    region.append(&asm::long_answer(1, PAGE + 100))?;
    region.answers(0, 1)?;
    for _ in 0..3 {
        calls::reserve(region.fd(), 200, 4).or_fail("JIT_RESERVE")?;
        region.append(&asm::long_answer(2, 500))?;
    }
    Ok(region)
}

fn clone() -> Outcome {
    let sweep = Sweep {
        prepare: &|| Ok((grown()?, calls::open_device()?, None)),
        call: &|(region, device, made): &mut (Region, OwnedFd, Option<OwnedFd>)| {
            let argument = CloneFrom {
                source_fd: region.device.as_raw_fd(),
                ..Default::default()
            };
            *made = Some(calls::clone_region(device.as_raw_fd(), &argument)?);
            Ok(())
        },
        state: &|(region, ..)| of_region(region),
        verify: &|(region, device, _)| {
            let stats = calls::stats(device.as_raw_fd()).or_fail("JIT_STATS")?;
            equal("the cursor", stats.cursor, region.stats()?.cursor)?;
            region.append(&asm::answer(3))?;
            region.answers(0, 1)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

fn seal() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| calls::seal(region.fd()),
        state: &of_region,
        verify: &|region| equal("sealed", region.stats()?.sealed, 1),
        errnos: USUAL,
    };
    none_failed(sweep.run_twice()?)
}

fn stats_by(handle: fn(&Region) -> i32) -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| calls::stats(handle(region)).map(|_| ()),
        state: &of_region,
        verify: &nothing,
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

fn stats() -> Outcome {
    stats_by(Region::fd)
}

fn stats_of_the_device() -> Outcome {
    stats_by(|region| region.device.as_raw_fd())
}

fn fdinfo() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| {
            let mut text = [0u8; 2048];
            let path = format!("/proc/self/fdinfo/{}", region.device.as_raw_fd());
            let len = File::open(path)?.read(&mut text)?;
            let text = String::from_utf8_lossy(&text[..len]);
            match text.contains("jit-cursor:") {
                true => Ok(()),
                false => Err(io::ErrorKind::InvalidData.into()),
            }
        },
        state: &of_region,
        verify: &nothing,
        errnos: USUAL,
    };
    some_failed(sweep.run_twice()?)
}

/// Closing everything can't fail, whatever happens meanwhile.
fn close() -> Outcome {
    let sweep = Sweep {
        prepare: &|| grown().map(Some),
        call: &|region: &mut Option<Region>| {
            drop(region.take());
            Ok(())
        },
        state: &of_process,
        verify: &nothing,
        errnos: USUAL,
    };
    none_failed(sweep.run_twice()?)
}
