// SPDX-License-Identifier: GPL-2.0
//! Failures while regions are mapped, touched, moved, cut and inherited.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::region::grown;
use super::sweep::{State, Sweep, USUAL, done, none_failed, of_process, of_region, some_failed};
use crate::suite::asm;
use crate::suite::execute::answers;
use crate::suite::harness::{Test, tests};
use crate::suite::memory::{Mapping, debugger_view, load, seen};
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, holds};
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        mmap,
        mmap_over_other_code,
        first_load,
        first_access_by_the_kernel,
        debugger_reads,
        fork,
        move_all,
        move_a_part,
        unmap_the_middle,
        unmap_all,
        protect_a_part,
    ]
    .into_iter()
    .map(|test| test.within(Duration::from_secs(60)))
    .collect()
}

fn mmap() -> Outcome {
    let sweep = Sweep {
        prepare: &|| Ok((grown()?, None)),
        call: &|(region, made): &mut (Region, Option<Mapping>)| {
            let fd = region.device.as_raw_fd();
            *made = Some(Mapping::of_file(fd, 6 * PAGE, RX, 0)?);
            Ok(())
        },
        state: &|(region, _)| of_region(region),
        verify: &|(region, made)| {
            let map = made.as_ref().or_fail("a mapping")?;
            let offset = region.append(&asm::answer(7))?;
            answers("in the new one", map.addr() + offset as usize, 7)?;
            answers("in the new one", map.addr(), 1)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

/// The kernel may leave a hole, as for any device; never other bytes.
fn mmap_over_other_code() -> Outcome {
    let sweep = Sweep {
        prepare: &|| Ok((grown()?, grown()?)),
        call: &|(region, other): &mut (Region, Region)| {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            let fd = other.device.as_raw_fd();
            done(sys::mmap(region.at(0), 6 * PAGE, RX, flags, fd, 0))
        },
        state: &|(region, other)| {
            if let Some(page) = seen(region.at(0))? {
                holds(page == other.content()?[..PAGE], "the page is code")?;
            }
            State::without_mappings(&[other])
        },
        verify: &|(region, other)| {
            let offset = other.append(&asm::answer(7))?;
            answers("the code", region.at(offset), 7)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

/// Far from anything, so that page tables are needed.
fn far_away() -> Checked<Region> {
    thread_local! {
        static NEXT: Cell<usize> = const { Cell::new(0x3000_0000_0000) };
    }
    let region = grown()?;
    let addr = NEXT.replace(NEXT.get() + (1 << 40));
    // Mapped there, not moved: moving would make page tables.
    let (fd, len) = (region.device.as_raw_fd(), region.map.len());
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    sys::mmap(addr, len, RX, flags, fd, 0).or_fail("mmap far away")?;
    Ok(Region {
        map: Mapping::adopt(addr, len),
        ..region
    })
}

/// The kernel tries again by itself: the program never notices.
fn first_load() -> Outcome {
    let sweep = Sweep {
        prepare: &far_away,
        call: &|region: &mut Region| match load(region.at(0), 1) {
            byte if byte == [0x90] => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
        state: &of_process,
        verify: &|region| region.answers(0, 1),
        errnos: USUAL,
    };
    let met = sweep.run()?;
    holds(met.absorbed > 0, "some failures were met")?;
    none_failed(met)
}

fn first_access_by_the_kernel() -> Outcome {
    let (_reader, writer) = sys::pipe().or_fail("pipe")?;
    let sweep = Sweep {
        prepare: &far_away,
        call: &|region: &mut Region| done(sys::write_from(writer.as_raw_fd(), region.at(0), 1)),
        state: &of_process,
        verify: &|region| region.answers(0, 1),
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn debugger_reads() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| {
            done(debugger_view(std::process::id(), region.at(0), 2 * PAGE))
        },
        state: &of_region,
        verify: &|region| region.answers(0, 1),
        errnos: &[libc::ENOMEM, libc::EFAULT, libc::EIO],
    };
    some_failed(sweep.run()?)
}

/// A child that checks its code and ends. Fails if it could not be made.
fn fork_and_run(region: &Region) -> io::Result<()> {
    // Without the C library's own work around it.
    let pid = sys::syscall(libc::SYS_fork, [0; 6])? as libc::pid_t;
    if pid == 0 {
        let right = region.answers(0, 1).is_ok();
        sys::exit(i32::from(!right));
    }
    match sys::wait(pid)? {
        0 => Ok(()),
        status => Err(io::Error::other(format!(
            "the child ended with {status:#x}"
        ))),
    }
}

fn fork() -> Outcome {
    let sweep = Sweep {
        prepare: &|| {
            let region = grown()?;
            let fd = region.device.as_raw_fd();
            let more = (0..2).map(|_| Mapping::of_file(fd, 2 * PAGE, RX, 0));
            let more: Vec<Mapping> = more.collect::<io::Result<_>>().or_fail("mmap")?;
            for map in &more {
                answers("the code", map.addr(), 1)?;
            }
            Ok((region, more))
        },
        call: &|(region, _): &mut (Region, Vec<Mapping>)| fork_and_run(region),
        state: &|(region, _)| of_region(region),
        verify: &|(region, more)| {
            let offset = region.append(&asm::answer(7))?;
            region.answers(offset, 7)?;
            more.iter()
                .try_for_each(|map| answers("the code", map.addr() + offset as usize, 7))
        },
        errnos: &[libc::ENOMEM, libc::EAGAIN, libc::EFAULT],
    };
    some_failed(sweep.run()?)
}

/// Moves `pages` pages from `first` on to a place without page tables.
fn moved(first: usize, pages: usize) -> Outcome {
    let place = Cell::new(0x3000_0000_0000);
    let sweep = Sweep {
        prepare: &|| {
            place.set(place.get() + (1 << 40));
            Ok((grown()?, Mapping::adopt(place.get(), pages * PAGE)))
        },
        call: &|(region, target): &mut (Region, Mapping)| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let from = region.at((first * PAGE) as u64);
            done(sys::mremap(
                from,
                target.len(),
                target.len(),
                flags,
                target.addr(),
            ))
        },
        state: &|(region, _)| of_region(region),
        verify: &|(region, target)| {
            let content = debugger_view(std::process::id(), target.addr(), PAGE);
            let content = content.or_fail("read what was moved")?;
            let first_byte = if first == 0 { 0x90 } else { content[0] };
            equal("the first byte", content[0], first_byte)?;
            let offset = region.append(&asm::answer(7))? as usize;
            let there = first * PAGE..(first + pages) * PAGE;
            match there.contains(&offset) {
                true => answers("there", target.addr() + offset - first * PAGE, 7),
                false => Ok(()),
            }
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

fn move_all() -> Outcome {
    moved(0, 6)
}

fn move_a_part() -> Outcome {
    moved(1, 2)
}

fn unmap_the_middle() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| sys::munmap(region.at(4 * PAGE as u64), PAGE),
        state: &of_region,
        verify: &|region| {
            let offset = region.append(&asm::answer(7))?;
            region.answers(offset, 7)?;
            region.answers(0, 1)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}

/// The whole mapping goes without a split.
fn unmap_all() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| sys::munmap(region.at(0), 6 * PAGE),
        state: &of_region,
        verify: &|region| region.append(&asm::answer(7)).map(|_| ()),
        errnos: USUAL,
    };
    sweep.run().map(|_| ())
}

fn protect_a_part() -> Outcome {
    let sweep = Sweep {
        prepare: &grown,
        call: &|region: &mut Region| {
            sys::mprotect(region.at(4 * PAGE as u64), PAGE, libc::PROT_READ)
        },
        state: &of_region,
        verify: &|region| {
            let offset = region.append(&asm::answer(7))?;
            region.answers(offset, 7)?;
            region.answers(0, 1)
        },
        errnos: USUAL,
    };
    some_failed(sweep.run()?)
}
