// SPDX-License-Identifier: GPL-2.0
//! `JIT_RESERVE`, `JIT_SEAL` and `JIT_STATS`: each errno, and that the region
//! is unchanged after a refusal.

use std::os::fd::AsRawFd;

use jitfd_plan::abi::{self, Reserve};

use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::{Mapping, load};
use super::outcome::{OrFail, Outcome, equal, refused};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        reserve_refuses_bad_argument_addresses,
        reserve_refuses_bad_lengths,
        reserve_refuses_bad_alignments,
        reserve_refuses_each_reserved_word,
        reserve_fits_exactly_or_not_at_all,
        reserve_leaves_no_room_for_more,
        seal_ignores_its_argument,
        stats_refuse_bad_addresses,
        stats_refuse_read_only_memory,
        stats_reserved_words_are_zero,
    ]
}

fn refuse(what: &str, argument: Reserve, errno: i32) -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    region.unchanged_by(|| {
        let result = sys::ioctl_in(region.fd(), abi::JIT_RESERVE, &argument);
        refused(what, result, errno)
    })
}

fn good() -> Reserve {
    Reserve {
        len: 16,
        ..Default::default()
    }
}

fn reserve_refuses_bad_argument_addresses() -> Outcome {
    let region = Region::new(2)?;
    region.unchanged_by(|| bad::argument_addresses(region.fd(), abi::JIT_RESERVE, &good()))
}

fn reserve_refuses_bad_lengths() -> Outcome {
    for len in [0, abi::MAX_REGION + 1, u64::MAX] {
        refuse("a length", Reserve { len, ..good() }, libc::EINVAL)?;
    }
    for len in [abi::MAX_REGION, 2 * PAGE as u64] {
        let what = "more than is left";
        refuse(what, Reserve { len, ..good() }, libc::ENOSPC)?;
    }
    Ok(())
}

fn reserve_refuses_bad_alignments() -> Outcome {
    for align_log2 in [abi::MAX_ALIGN_LOG2 + 1, 63, 64, u32::MAX] {
        let argument = Reserve {
            align_log2,
            ..good()
        };
        refuse("an alignment", argument, libc::EINVAL)?;
    }
    Ok(())
}

fn reserve_refuses_each_reserved_word() -> Outcome {
    for word in 0..5 {
        let mut argument = good();
        argument.reserved[word] = 1;
        refuse("a reserved word", argument, libc::EINVAL)?;
    }
    Ok(())
}

fn reserve_fits_exactly_or_not_at_all() -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3; 3])?;
    let left = 2 * PAGE as u64 - 3;
    region.unchanged_by(|| {
        let result = calls::reserve(region.fd(), left + 1, 0);
        refused("one byte more", result, libc::ENOSPC)?;
        let result = calls::reserve(region.fd(), PAGE as u64 + 1, 12);
        refused("one byte more, aligned", result, libc::ENOSPC)
    })?;
    let offset = calls::reserve(region.fd(), left, 0).or_fail("what fits")?;
    equal("the offset", offset, 3)
}

fn reserve_leaves_no_room_for_more() -> Outcome {
    let region = Region::new(1)?;
    calls::reserve(region.fd(), PAGE as u64, 12).or_fail("JIT_RESERVE")?;
    region.unchanged_by(|| {
        refused(
            "JIT_RESERVE",
            calls::reserve(region.fd(), 1, 0),
            libc::ENOSPC,
        )?;
        refused(
            "JIT_APPEND",
            calls::append(region.fd(), &[0xc3]),
            libc::ENOSPC,
        )
    })
}

fn seal_ignores_its_argument() -> Outcome {
    let region = Region::new(1)?;
    let result = sys::ioctl(region.fd(), abi::JIT_SEAL, bad::KERNEL as usize);
    result.or_fail("JIT_SEAL").map(|_| ())
}

fn stats_refuse_bad_addresses() -> Outcome {
    let region = Region::new(1)?;
    for fd in [region.fd(), region.device.as_raw_fd()] {
        for (what, addr) in bad::ADDRESSES {
            let result = sys::ioctl(fd, abi::JIT_STATS, addr as usize);
            refused(what, result, libc::EFAULT)?;
        }
        let (_page, cut) = bad::cut_in_half(&abi::Stats::default())?;
        let result = sys::ioctl(fd, abi::JIT_STATS, cut);
        refused("an argument cut in half", result, libc::EFAULT)?;
    }
    Ok(())
}

fn stats_refuse_read_only_memory() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3; 256])?;
    let page = Mapping::anonymous(1)?;
    page.write(0, &[0x55; 256]);
    sys::mprotect(page.addr(), PAGE, libc::PROT_READ).or_fail("mprotect")?;
    let result = sys::ioctl(region.fd(), abi::JIT_STATS, page.addr());
    refused("read-only memory", result, libc::EFAULT)?;
    equal("the memory", load(page.addr(), 256), vec![0x55; 256])?;
    let result = sys::ioctl(region.fd(), abi::JIT_STATS, region.at(0));
    refused("published code", result, libc::EFAULT)?;
    equal("the code", load(region.at(0), 256), vec![0xc3; 256])
}

fn stats_reserved_words_are_zero() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    equal("the reserved words", region.stats()?.reserved, [0; 7])
}
