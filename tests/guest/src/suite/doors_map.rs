// SPDX-License-Identifier: GPL-2.0
//! Rule R8, the doors of memory management: nothing that a program does to its
//! mappings lets it write to code, or leaves other bytes there.

use std::fs;
use std::os::fd::AsRawFd;

use jitfd_plan::abi::PUBLISH_SYNC;

use super::asm;
use super::harness::{Test, tests};
use super::memory::{self, Mapping, debugger_view, load};
use super::outcome::{Checked, OrFail, Outcome, equal, holds, refused};
use super::patience::reaches;
use super::region::Region;
use super::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        mprotect_to_writable,
        mprotect_of_a_part_to_writable,
        pkey_mprotect_to_writable,
        mprotect_after_other_protections,
        second_mapping_writable,
        mapping_over_itself_writable,
        mremap_that_duplicates,
        remap_file_pages_moves_no_code,
        advice_that_drops_pages,
        advice_that_marks_pages,
        advice_that_may_do_nothing,
        advice_from_outside,
        advice_that_poisons,
        referenced_bits_cleared,
        same_page_merging,
        sealed_against_changes,
        moved_between_nodes,
    ]
}

const RWX: i32 = RX | libc::PROT_WRITE;

/// A region with code on two of three pages, entries used.
fn region_with_code() -> Checked<Region> {
    let region = Region::new(3)?;
    region.append(&asm::long_answer(1, PAGE + 100))?;
    region.answers(0, 1)?;
    Ok(region)
}

/// Fails unless `door` leaves the region as it is, and it goes on to work.
fn shut(door: impl FnOnce(&Region) -> Outcome) -> Outcome {
    let region = region_with_code()?;
    region.unchanged_by(|| door(&region))?;
    region.answers(0, 1)?;
    let offset = region.append(&asm::answer(2))?;
    region.answers(offset, 2)
}

fn mprotect_to_writable() -> Outcome {
    shut(|region| {
        for prot in [libc::PROT_WRITE, sys::RW, RWX] {
            let result = sys::mprotect(region.at(0), 3 * PAGE, prot);
            refused("mprotect", result, libc::EACCES)?;
        }
        Ok(())
    })
}

fn mprotect_of_a_part_to_writable() -> Outcome {
    shut(|region| {
        for page in 0..3 {
            let addr = region.at(page * PAGE as u64);
            let result = sys::mprotect(addr, PAGE, sys::RW);
            refused("mprotect", result, libc::EACCES)?;
        }
        Ok(())
    })
}

/// With key 0, which every CPU has; -1 means no key at all.
fn pkey_mprotect_to_writable() -> Outcome {
    shut(|region| {
        let no_key = usize::MAX;
        let prot = RWX as usize;
        let arguments = [region.at(0), PAGE, prot, no_key, 0, 0];
        let result = sys::syscall(libc::SYS_pkey_mprotect, arguments);
        refused("pkey_mprotect", result, libc::EACCES)
    })
}

fn mprotect_after_other_protections() -> Outcome {
    shut(|region| {
        for prot in [libc::PROT_NONE, libc::PROT_READ, libc::PROT_EXEC, RX] {
            sys::mprotect(region.at(0), 3 * PAGE, prot).or_fail("mprotect")?;
            let result = sys::mprotect(region.at(0), 3 * PAGE, sys::RW);
            refused("mprotect", result, libc::EACCES)?;
        }
        Ok(())
    })
}

fn second_mapping_writable() -> Outcome {
    shut(|region| {
        let fd = region.device.as_raw_fd();
        for prot in [libc::PROT_WRITE, sys::RW, RWX] {
            let map = Mapping::of_file(fd, PAGE, prot, 0);
            refused("mmap", map, libc::EACCES)?;
        }
        let result = sys::mmap(0, PAGE, sys::RW, libc::MAP_PRIVATE, fd, 0);
        refused("mmap, private", result, libc::EINVAL)
    })
}

/// MAP_FIXED over code by a mapping that is refused. The kernel may leave a
/// hole there, as for any device: it unmaps before it asks. What stays is code.
fn mapping_over_itself_writable() -> Outcome {
    let region = region_with_code()?;
    let before = region.content()?;
    let fd = region.device.as_raw_fd();
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let result = sys::mmap(region.at(0), PAGE, sys::RW, flags, fd, 0);
    refused("mmap over it", result, libc::EACCES)?;
    let page = memory::seen(region.at(0))?;
    let is_code = page.is_none_or(|page| page == before[..PAGE]);
    holds(is_code, "the page is gone or as before")?;
    let addr = region.at(PAGE as u64);
    let rest = debugger_view(std::process::id(), addr, 2 * PAGE).or_fail("read")?;
    holds(rest == before[PAGE..], "the rest is as before")?;
    sys::mmap(region.at(0), 3 * PAGE, RX, flags, fd, 0).or_fail("mmap as it was")?;
    region.answers(0, 1)
}

fn mremap_that_duplicates() -> Outcome {
    shut(|region| {
        let result = sys::mremap(region.at(0), 0, PAGE, libc::MREMAP_MAYMOVE, 0);
        refused("mremap of length 0", result, libc::EFAULT)
    })
}

/// It maps the page anew, which the module sees as any other mmap().
fn remap_file_pages_moves_no_code() -> Outcome {
    let region = region_with_code()?;
    let arguments = [region.at(0), PAGE, 0, 1, 0, 0];
    let _ = sys::syscall(libc::SYS_remap_file_pages, arguments);
    let result = sys::mprotect(region.at(0), PAGE, sys::RW);
    refused("mprotect afterwards", result, libc::EACCES)?;
    let content = asm::long_answer(1, PAGE + 100);
    let second = region.content()?[PAGE..PAGE + 100].to_vec();
    equal("the second page", second, content[PAGE..].to_vec())
}

/// Fails unless each advice is refused.
fn advice_refused(advices: &[i32], errno: i32) -> Outcome {
    shut(|region| {
        for &advice in advices {
            let what = format!("advice {advice}");
            let result = sys::madvise(region.at(0), 3 * PAGE, advice);
            refused(&what, result, errno)?;
        }
        Ok(())
    })
}

const MADV_GUARD_INSTALL: i32 = 102;

fn advice_that_drops_pages() -> Outcome {
    advice_refused(
        &[
            libc::MADV_DONTNEED,
            libc::MADV_FREE,
            libc::MADV_DONTNEED_LOCKED,
            libc::MADV_PAGEOUT,
            libc::MADV_COLD,
            libc::MADV_WIPEONFORK,
            MADV_GUARD_INSTALL,
        ],
        libc::EINVAL,
    )?;
    shut(|region| {
        let result = sys::madvise(region.at(0), 3 * PAGE, libc::MADV_REMOVE);
        refused("MADV_REMOVE", result, libc::EACCES)
    })
}

fn advice_that_marks_pages() -> Outcome {
    advice_refused(
        &[
            libc::MADV_DOFORK,
            libc::MADV_DODUMP,
            libc::MADV_POPULATE_WRITE,
            libc::MADV_POPULATE_READ,
            libc::MADV_COLLAPSE,
        ],
        libc::EINVAL,
    )
}

/// The kernel may take these and do nothing, or refuse them.
fn advice_that_may_do_nothing() -> Outcome {
    shut(|region| {
        for advice in [
            libc::MADV_NORMAL,
            libc::MADV_RANDOM,
            libc::MADV_SEQUENTIAL,
            libc::MADV_WILLNEED,
            libc::MADV_MERGEABLE,
            libc::MADV_UNMERGEABLE,
            libc::MADV_HUGEPAGE,
            libc::MADV_NOHUGEPAGE,
            libc::MADV_DONTDUMP,
            libc::MADV_KEEPONFORK,
        ] {
            let _ = sys::madvise(region.at(0), 3 * PAGE, advice);
            equal("the code", load(region.at(0), 4), vec![0x90; 4])?;
        }
        Ok(())
    })
}

fn advice_from_outside() -> Outcome {
    shut(|region| {
        // SAFETY: no memory is concerned.
        let pid = unsafe { libc::getpid() };
        let pidfd = sys::syscall(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0])
            .or_fail("pidfd_open")?;
        for advice in [libc::MADV_COLD, libc::MADV_PAGEOUT, libc::MADV_DONTNEED] {
            let vector = [region.at(0), 3 * PAGE];
            let arguments = [
                pidfd as usize,
                vector.as_ptr().addr(),
                1,
                advice as usize,
                0,
                0,
            ];
            let result = sys::syscall(libc::SYS_process_madvise, arguments);
            holds(result.is_err(), format!("process_madvise {advice}"))?;
        }
        sys::syscall(libc::SYS_close, [pidfd as usize, 0, 0, 0, 0, 0]).or_fail("close")?;
        Ok(())
    })
}

/// Root may ask the kernel to take a page away as if it were broken.
fn advice_that_poisons() -> Outcome {
    shut(|region| {
        for advice in [libc::MADV_SOFT_OFFLINE, libc::MADV_HWPOISON] {
            let result = sys::madvise(region.at(0), PAGE, advice);
            holds(result.is_err(), format!("advice {advice}: {result:?}"))?;
        }
        Ok(())
    })
}

/// /proc/self/clear_refs must not clear the Accessed bits that tell whether a
/// TLB may hold an entry.
fn referenced_bits_cleared() -> Outcome {
    let region = region_with_code()?;
    for what in ["1", "2", "3", "4", "5"] {
        if fs::write("/proc/self/clear_refs", what).is_err() {
            continue;
        }
        let before = region.stats()?.flushes;
        let code = asm::answer(7);
        let offset = region.append_with(&code, PUBLISH_SYNC)?;
        let flushes = region.stats()?.flushes - before;
        equal("the flush of a page that was executed", flushes, 1)?;
        region.answers(offset, 7)?;
    }
    Ok(())
}

/// How often all memory that may be merged was looked at.
fn scans() -> Checked<u64> {
    let text = fs::read_to_string("/sys/kernel/mm/ksm/full_scans").or_fail("full_scans")?;
    text.trim().parse().ok().or_fail("a number of scans")
}

fn same_page_merging() -> Outcome {
    shut(|region| {
        const PR_SET_MEMORY_MERGE: i32 = 67;
        let _ = fs::write("/sys/kernel/mm/ksm/run", "1");
        let _ = fs::write("/sys/kernel/mm/ksm/sleep_millisecs", "1");
        let _ = sys::prctl(PR_SET_MEMORY_MERGE, 1);
        let _ = sys::madvise(region.at(0), 3 * PAGE, libc::MADV_MERGEABLE);
        // A kernel without it has no such file.
        if let Ok(scans) = scans() {
            reaches("scans of all memory", scans + 2, self::scans)?;
        }
        let _ = sys::prctl(PR_SET_MEMORY_MERGE, 0);
        let _ = fs::write("/sys/kernel/mm/ksm/run", "0");
        Ok(())
    })
}

const SYS_MSEAL: i64 = 462;

/// A sealed mapping can't be changed by the program, and is published to.
fn sealed_against_changes() -> Outcome {
    let region = region_with_code()?;
    let addr = region.at(0);
    sys::syscall(SYS_MSEAL, [addr, 3 * PAGE, 0, 0, 0, 0]).or_fail("mseal")?;
    let result = sys::munmap(addr, PAGE);
    refused("munmap", result, libc::EPERM)?;
    let result = sys::mprotect(addr, PAGE, libc::PROT_READ);
    refused("mprotect", result, libc::EPERM)?;
    for value in 0..50 {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
    }
    Ok(())
}

/// move_pages() and mbind(): the pages are not the kernel's to move.
fn moved_between_nodes() -> Outcome {
    shut(|region| {
        let pages = [region.at(0)];
        let nodes = [0i32];
        let mut status = [0i32];
        let arguments = [
            0,
            1,
            pages.as_ptr().addr(),
            nodes.as_ptr().addr(),
            status.as_mut_ptr().addr(),
            1 << 1,
        ];
        // Refused for the page or as a whole, or there are no nodes.
        let _ = sys::syscall(libc::SYS_move_pages, arguments);
        let mask = [1usize];
        let bind = [region.at(0), 3 * PAGE, 2, mask.as_ptr().addr(), 64, 1 << 1];
        let _ = sys::syscall(libc::SYS_mbind, bind);
        Ok(())
    })
}
