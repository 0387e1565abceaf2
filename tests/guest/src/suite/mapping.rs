// SPDX-License-Identifier: GPL-2.0
//! Mappings of one region in one process: several of them, moved, cut, with
//! other protections, removed and made again, between publications.

use std::arch::x86_64::__cpuid_count;
use std::os::fd::AsRawFd;

use super::asm;
use super::execute::{answers, faults, trapped};
use super::harness::{Test, tests};
use super::memory::{self, Mapping, load, seen};
use super::outcome::{Checked, OrFail, Outcome, equal, holds, inapplicable, refused, skipped};
use super::region::Region;
use super::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        two_see_every_publication,
        many_see_every_publication,
        an_unused_one_sees_the_newest,
        of_a_part_of_the_region,
        same_page_mapped_twice_in_a_row,
        moved,
        moved_back_and_forth,
        shrunk,
        cannot_grow,
        cut_in_the_middle,
        cut_at_the_ends,
        covered_in_part_by_other_memory,
        protected_against_execution,
        protected_against_everything,
        one_page_protected,
        made_without_access,
        removed_and_made_again,
        outlives_both_handles,
        above_47_bits,
        at_odd_flags,
        locked_and_synced,
        replaced_by_another_region,
    ]
}

/// Another mapping of the whole region.
fn map_again(region: &Region) -> Checked<Mapping> {
    Mapping::of_file(region.device.as_raw_fd(), region.map.len(), RX, 0).or_fail("mmap again")
}

/// Appends an answer and checks it in all of `maps`.
fn append_seen_in(region: &Region, value: u32, maps: &[&Mapping]) -> Checked<u64> {
    let offset = region.append(&asm::answer(value))?;
    for map in maps {
        let addr = map.addr() + offset as usize;
        answers("in one of the mappings", addr, value)?;
    }
    Ok(offset)
}

fn two_see_every_publication() -> Outcome {
    let region = Region::new(2)?;
    let second = map_again(&region)?;
    for value in 0..800 {
        append_seen_in(&region, value, &[&region.map, &second])?;
    }
    Ok(())
}

fn many_see_every_publication() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(0))?;
    let maps: Vec<Mapping> = (0..64)
        .map(|_| map_again(&region))
        .collect::<Checked<_>>()?;
    let maps: Vec<&Mapping> = maps.iter().collect();
    append_seen_in(&region, 1, &maps)?;
    let before = region.stats()?.swaps;
    append_seen_in(&region, 2, &maps)?;
    equal("swaps", region.stats()?.swaps - before, 64)
}

fn an_unused_one_sees_the_newest() -> Outcome {
    let region = Region::new(1)?;
    let unused = map_again(&region)?;
    let mut last = 0;
    for value in 0..50 {
        last = append_seen_in(&region, value, &[&region.map])?;
    }
    answers("the last", unused.addr() + last as usize, 49)?;
    answers("the first", unused.addr(), 0)
}

fn of_a_part_of_the_region() -> Outcome {
    let region = Region::new(8)?;
    let fd = region.device.as_raw_fd();
    let part = Mapping::of_file(fd, 2 * PAGE, RX, 3 * PAGE).or_fail("mmap a part")?;
    for value in 0..8 {
        let offset = region.append(&asm::long_answer(value, PAGE))?;
        region.answers(offset, value)?;
        if value == 3 || value == 4 {
            let at = part.addr() + offset as usize - 3 * PAGE;
            answers("in the part", at, value)?;
        }
    }
    Ok(())
}

fn same_page_mapped_twice_in_a_row() -> Outcome {
    let region = Region::new(2)?;
    let area = Mapping::anonymous(2)?;
    let fd = region.device.as_raw_fd();
    for addr in [area.addr(), area.addr() + PAGE] {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        sys::mmap(addr, PAGE, RX, flags, fd, 0).or_fail("mmap page 0")?;
    }
    for value in 0..100 {
        let offset = append_seen_in(&region, value, &[&region.map, &area])?;
        answers("in the second", area.addr() + PAGE + offset as usize, value)?;
    }
    Ok(())
}

/// Moves a mapping to a place of its own choice.
fn move_to_new_place(map: &Mapping) -> Checked<Mapping> {
    let target = Mapping::anonymous(map.len() / PAGE)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    sys::mremap(map.addr(), map.len(), map.len(), flags, target.addr()).or_fail("mremap")?;
    Ok(target)
}

fn moved() -> Outcome {
    let region = Region::new(2)?;
    append_seen_in(&region, 1, &[&region.map])?;
    let moved = move_to_new_place(&region.map)?;
    answers("what was published before", moved.addr(), 1)?;
    for value in 0..100 {
        append_seen_in(&region, value, &[&moved])?;
    }
    faults("the old place", region.at(0), libc::SIGSEGV)
}

fn moved_back_and_forth() -> Outcome {
    let region = Region::new(2)?;
    let mut here = map_again(&region)?;
    for value in 0..60 {
        append_seen_in(&region, value, &[&here, &region.map])?;
        here = move_to_new_place(&here)?;
        answers("after the move", here.addr(), 0)?;
    }
    Ok(())
}

fn shrunk() -> Outcome {
    let region = Region::new(3)?;
    append_seen_in(&region, 1, &[&region.map])?;
    let (addr, len) = (region.map.addr(), region.map.len());
    sys::mremap(addr, len, PAGE, 0, 0).or_fail("mremap to one page")?;
    append_seen_in(&region, 2, &[&region.map])?;
    faults("the rest", region.at(PAGE as u64), libc::SIGSEGV)?;
    region.append(&asm::long_answer(3, 2 * PAGE))?;
    region.answers(0, 1)
}

fn cannot_grow() -> Outcome {
    let region = Region::new(4)?;
    region.append(&asm::answer(1))?;
    let (addr, len) = (region.map.addr(), region.map.len());
    region.unchanged_by(|| {
        let result = sys::mremap(addr, len, len + PAGE, libc::MREMAP_MAYMOVE, 0);
        refused("mremap to more", result, libc::EFAULT)?;
        let keep = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        let result = sys::mremap(addr, len, len, keep, 0);
        refused("mremap that keeps the old", result, libc::EINVAL)
    })
}

fn cut_in_the_middle() -> Outcome {
    let region = Region::new(3)?;
    region.append(&asm::long_answer(1, 2 * PAGE + 100))?;
    region.answers(2 * PAGE as u64, 1)?;
    sys::munmap(region.at(PAGE as u64), PAGE).or_fail("munmap the middle")?;
    append_seen_in(&region, 2, &[&region.map])?;
    faults("the middle", region.at(PAGE as u64), libc::SIGSEGV)?;
    let whole = map_again(&region)?;
    answers("in a new mapping", whole.addr(), 1)
}

fn cut_at_the_ends() -> Outcome {
    let region = Region::new(4)?;
    sys::munmap(region.at(0), PAGE).or_fail("munmap the first page")?;
    sys::munmap(region.at(3 * PAGE as u64), PAGE).or_fail("munmap the last page")?;
    for value in 0..4 {
        let offset = region.append(&asm::long_answer(value, PAGE))?;
        match value {
            0 | 3 => faults("what is cut off", region.at(offset), libc::SIGSEGV)?,
            _ => region.answers(offset, value)?,
        }
    }
    Ok(())
}

fn covered_in_part_by_other_memory() -> Outcome {
    let region = Region::new(3)?;
    region.append(&asm::long_answer(1, PAGE + 50))?;
    region.answers(0, 1)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let addr = region.at(PAGE as u64);
    sys::mmap(addr, PAGE, sys::RW, flags, -1, 0).or_fail("mmap over a part")?;
    memory::put_at(addr, &[0x77u8; PAGE]);
    region.append(&asm::long_answer(2, 2 * PAGE - 50))?;
    equal("the other memory", load(addr, PAGE), vec![0x77; PAGE])?;
    region.answers(2 * PAGE as u64, 2)?;
    memory::put_at(addr, &[0x78u8; PAGE]);
    let whole = map_again(&region)?;
    answers("the covered page", whole.addr() + PAGE, 1)
}

fn protected_against_execution() -> Outcome {
    let region = Region::new(1)?;
    append_seen_in(&region, 1, &[&region.map])?;
    sys::mprotect(region.at(0), PAGE, libc::PROT_READ).or_fail("mprotect READ")?;
    let trap = trapped("execution", region.at(0))?;
    equal("the signal", trap.signal, libc::SIGSEGV)?;
    let offset = region.append(&asm::answer(2))?;
    equal("a load", load(region.at(0), 6), asm::answer(1))?;
    faults("new code", region.at(offset), libc::SIGSEGV)?;
    sys::mprotect(region.at(0), PAGE, RX).or_fail("mprotect READ|EXEC")?;
    region.answers(offset, 2)?;
    append_seen_in(&region, 3, &[&region.map]).map(|_| ())
}

fn protected_against_everything() -> Outcome {
    let region = Region::new(2)?;
    append_seen_in(&region, 1, &[&region.map])?;
    for value in 2..40 {
        sys::mprotect(region.at(0), 2 * PAGE, libc::PROT_NONE).or_fail("mprotect NONE")?;
        let offset = region.append(&asm::answer(value))?;
        equal("what is seen", seen(region.at(0))?, None)?;
        faults("code", region.at(offset), libc::SIGSEGV)?;
        sys::mprotect(region.at(0), 2 * PAGE, RX).or_fail("mprotect READ|EXEC")?;
        region.answers(offset, value)?;
        region.answers(0, 1)?;
    }
    Ok(())
}

fn one_page_protected() -> Outcome {
    let region = Region::new(3)?;
    region.append(&asm::long_answer(1, 3 * PAGE - 200))?;
    region.answers(0, 1)?;
    let addr = region.at(PAGE as u64);
    sys::mprotect(addr, PAGE, libc::PROT_NONE).or_fail("mprotect the middle")?;
    for value in 0..20 {
        append_seen_in(&region, value, &[&region.map])?;
    }
    sys::mprotect(addr, PAGE, RX).or_fail("mprotect back")?;
    region.answers(0, 1)
}

fn made_without_access() -> Outcome {
    let region = Region::new(1)?;
    let fd = region.device.as_raw_fd();
    let none = Mapping::of_file(fd, PAGE, libc::PROT_NONE, 0).or_fail("mmap NONE")?;
    let only = Mapping::of_file(fd, PAGE, libc::PROT_EXEC, 0).or_fail("mmap EXEC")?;
    let offset = append_seen_in(&region, 1, &[&region.map, &only])?;
    faults("no access", none.addr(), libc::SIGSEGV)?;
    let result = sys::mprotect(none.addr(), PAGE, sys::RW);
    refused("mprotect", result, libc::EACCES)?;
    sys::mprotect(none.addr(), PAGE, RX).or_fail("mprotect READ|EXEC")?;
    answers("allowed later", none.addr() + offset as usize, 1)?;
    append_seen_in(&region, 2, &[&region.map, &only, &none]).map(|_| ())
}

fn removed_and_made_again() -> Outcome {
    let region = Region::new(2)?;
    for value in 0..100 {
        let offset = append_seen_in(&region, value, &[&region.map])?;
        let (addr, len) = (region.map.addr(), region.map.len());
        sys::munmap(addr, len).or_fail("munmap")?;
        let unseen = region.append(&asm::answer(value + 1000))?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        sys::mmap(addr, len, RX, flags, region.device.as_raw_fd(), 0).or_fail("mmap")?;
        region.answers(unseen, value + 1000)?;
        region.answers(offset, value)?;
    }
    Ok(())
}

fn outlives_both_handles() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    let offset = region.append(&asm::answer(2))?;
    let Region {
        device,
        append,
        map,
    } = region;
    drop((device, append));
    answers("the first", map.addr(), 1)?;
    answers("the second", map.addr() + offset as usize, 2)
}

/// Whether the CPU can (LA57).
fn has_5_levels() -> bool {
    __cpuid_count(7, 0).ecx & (1 << 16) != 0
}

/// With 5-level page tables a program may ask for addresses beyond 47 bits.
fn above_47_bits() -> Outcome {
    if !has_5_levels() {
        return inapplicable("this CPU has no 5-level page tables");
    }
    let region = Region::new(2)?;
    let fd = region.device.as_raw_fd();
    let addr = sys::mmap(1 << 50, 2 * PAGE, RX, libc::MAP_SHARED, fd, 0).or_fail("mmap at 2^50")?;
    let high = Mapping::adopt(addr, 2 * PAGE);
    if addr >> 47 == 0 {
        return skipped("this kernel uses no 5-level page tables");
    }
    for value in 0..50 {
        append_seen_in(&region, value, &[&high, &region.map])?;
    }
    Ok(())
}

/// Flags that change nothing for a mapping of a device.
fn at_odd_flags() -> Outcome {
    let region = Region::new(2)?;
    append_seen_in(&region, 1, &[&region.map])?;
    for more in [
        libc::MAP_POPULATE,
        libc::MAP_LOCKED,
        libc::MAP_NORESERVE,
        libc::MAP_32BIT,
    ] {
        let flags = libc::MAP_SHARED | more;
        let fd = region.device.as_raw_fd();
        let addr = sys::mmap(0, 2 * PAGE, RX, flags, fd, 0).or_fail("mmap with a flag")?;
        let map = Mapping::adopt(addr, 2 * PAGE);
        answers("the first", map.addr(), 1)?;
        append_seen_in(&region, 2, &[&map, &region.map])?;
    }
    Ok(())
}

fn locked_and_synced() -> Outcome {
    let region = Region::new(2)?;
    append_seen_in(&region, 1, &[&region.map])?;
    let (addr, len) = (region.map.addr(), region.map.len());
    for call in [libc::SYS_mlock, libc::SYS_munlock] {
        sys::syscall(call, [addr, len, 0, 0, 0, 0]).or_fail("mlock and munlock")?;
        append_seen_in(&region, 2, &[&region.map])?;
    }
    // There is nothing to write back, and no operation that says so.
    let _ = sys::syscall(
        libc::SYS_msync,
        [addr, len, libc::MS_SYNC as usize, 0, 0, 0],
    );
    append_seen_in(&region, 3, &[&region.map])?;
    holds(seen(addr)?.is_some(), "the page is still there")
}

/// At the same address there is another region from one moment to the next.
fn replaced_by_another_region() -> Outcome {
    let region = Region::new(1)?;
    for value in 0..50 {
        let other = Region::new(1)?;
        other.append(&asm::answer(value))?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let fd = other.device.as_raw_fd();
        sys::mmap(region.at(0), PAGE, RX, flags, fd, 0).or_fail("mmap another")?;
        region.answers(0, value)?;
        let offset = other.append(&asm::answer(value + 1))?;
        region.answers(offset, value + 1)?;
        // The first region has a page of the same number, which is not mapped.
        region.append(&[0xf4])?;
        region.answers(0, value)?;
        region.answers(offset, value + 1)?;
    }
    Ok(())
}
