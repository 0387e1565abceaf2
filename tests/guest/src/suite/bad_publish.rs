// SPDX-License-Identifier: GPL-2.0
//! `JIT_APPEND` and `JIT_FILL`: each errno, and that the region is unchanged
//! after a refusal. What both refuse alike is tested through both.

use std::os::fd::AsRawFd;

use jitfd_plan::abi::{self, Publish, Segment};

use super::asm;
use super::bad;
use super::calls;
use super::harness::{Test, tests};
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, equal, refused};
use super::process::in_child;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        refuses_bad_argument_addresses,
        refuses_bad_segment_arrays,
        refuses_a_half_mapped_segment_array,
        refuses_bad_counts,
        refuses_each_unknown_flag,
        refuses_each_reserved_word,
        refuses_the_reserved_word_of_a_segment,
        refuses_bad_lengths,
        refuses_bad_sources,
        refuses_a_half_mapped_source,
        refuses_a_source_that_overflows,
        refuses_a_batch_whose_last_source_is_bad,
        refuses_a_source_that_is_an_unpublished_page,
        refuses_alignments_beyond_a_page,
        append_refuses_an_offset,
        append_elsewhere_is_stale,
        append_expectation_counts_alignment,
        append_expectation_that_holds_is_met,
        append_fits_exactly_or_not_at_all,
        append_batch_fits_exactly_or_not_at_all,
        append_alignment_counts_for_the_room,
        append_fresh_counts_for_the_room,
        append_to_a_full_region_has_no_space,
        fill_refuses_an_alignment,
        fill_refuses_an_expectation,
        fill_refuses_fresh,
        fill_of_what_is_not_reserved,
        fill_twice,
        fill_half_outside,
        fill_of_alignment_padding,
        fill_across_two_reservations,
        fill_batch_with_one_bad_segment,
        fill_refuses_a_wrong_order,
        fill_refuses_overlaps,
        fill_refuses_offsets_beyond_the_region,
        sealed_is_read_only,
        causes_are_checked_in_order,
        child_may_not_publish,
        child_may_publish_where_anyone_may,
    ]
}

const BOTH: [(&str, u32); 2] = [("JIT_APPEND", abi::JIT_APPEND), ("JIT_FILL", abi::JIT_FILL)];

/// A region of two pages with code, a hole of 64 bytes at 64, and mapped
/// entries.
fn region_with_hole() -> Checked<Region> {
    let region = Region::new(2)?;
    region.append(&asm::long_answer(1, 64))?;
    calls::reserve(region.fd(), 64, 0).or_fail("JIT_RESERVE")?;
    region.append(&asm::long_answer(2, 64))?;
    region.answers(0, 1)?;
    Ok(region)
}

const HOLE: u64 = 64;

/// A good segment for `request`; the hole can take it.
fn good_segment(request: u32, bytes: &[u8]) -> Segment {
    if request == abi::JIT_FILL {
        calls::segment_at(HOLE, bytes)
    } else {
        calls::segment(bytes)
    }
}

/// Fails unless both calls refuse a good publication that `spoil` has changed.
fn both_refuse(what: &str, errno: i32, spoil: impl Fn(&mut Publish, &mut Segment)) -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    for (call, request) in BOTH {
        let mut segments = [good_segment(request, &code)];
        let mut argument = calls::publication(&segments);
        spoil(&mut argument, &mut segments[0]);
        region.unchanged_by(|| {
            let result = calls::publish(region.fd(), request, &argument);
            refused(&format!("{call}, {what}"), result, errno)
        })?;
    }
    Ok(())
}

fn refuses_bad_argument_addresses() -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    for (_, request) in BOTH {
        let segments = [good_segment(request, &code)];
        let argument = calls::publication(&segments);
        region.unchanged_by(|| bad::argument_addresses(region.fd(), request, &argument))?;
    }
    Ok(())
}

fn refuses_bad_segment_arrays() -> Outcome {
    for (what, addr) in bad::ADDRESSES {
        both_refuse(what, libc::EFAULT, |argument, _| argument.segments = addr)?;
    }
    both_refuse("an array that overflows", libc::EFAULT, |argument, _| {
        argument.segments = u64::MAX - 7;
    })
}

fn refuses_a_half_mapped_segment_array() -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    for (call, request) in BOTH {
        let segment = good_segment(request, &code);
        let mut second = segment;
        second.offset += if request == abi::JIT_FILL { 32 } else { 0 };
        let (_pages, cut) = bad::cut_in_half(&[segment, second])?;
        let mut argument = calls::publication(&[segment, second]);
        argument.segments = cut as u64;
        region.unchanged_by(|| {
            let result = calls::publish(region.fd(), request, &argument);
            refused(call, result, libc::EFAULT)
        })?;
    }
    Ok(())
}

fn refuses_bad_counts() -> Outcome {
    for count in [0, abi::MAX_SEGMENTS + 1, u32::MAX] {
        let what = format!("{count} segments");
        both_refuse(&what, libc::EINVAL, |argument, _| argument.count = count)?;
    }
    Ok(())
}

fn refuses_each_unknown_flag() -> Outcome {
    bad::each_unknown_flag(abi::PUBLISH_SYNC | abi::PUBLISH_FRESH, |flag| {
        both_refuse("an unknown flag", libc::EINVAL, |argument, _| {
            argument.flags = flag
        })
    })
}

fn refuses_each_reserved_word() -> Outcome {
    for word in 0..4 {
        both_refuse("a reserved word", libc::EINVAL, |argument, _| {
            argument.reserved[word] = 1 << 31;
        })?;
    }
    Ok(())
}

fn refuses_the_reserved_word_of_a_segment() -> Outcome {
    both_refuse("a segment's reserved word", libc::EINVAL, |_, segment| {
        segment.reserved = 1;
    })
}

fn refuses_bad_lengths() -> Outcome {
    both_refuse("no bytes", libc::EINVAL, |_, segment| segment.len = 0)?;
    for len in [abi::MAX_REGION + 1, u64::MAX, 1 << 63] {
        both_refuse("too many bytes", libc::EINVAL, |_, segment| {
            segment.source = 0;
            segment.len = len;
        })?;
    }
    both_refuse("more than the capacity", libc::ENOSPC, |_, segment| {
        segment.len = 2 * PAGE as u64 + 1;
    })
}

fn refuses_bad_sources() -> Outcome {
    for (what, addr) in bad::ADDRESSES {
        both_refuse(what, libc::EFAULT, |_, segment| segment.source = addr)?;
    }
    Ok(())
}

fn refuses_a_half_mapped_source() -> Outcome {
    let (_page, addr) = Mapping::cliff(8)?;
    both_refuse("a source cut in half", libc::EFAULT, |_, segment| {
        segment.source = addr as u64;
        segment.len = 16;
    })
}

fn refuses_a_source_that_overflows() -> Outcome {
    both_refuse("a source that overflows", libc::EINVAL, |_, segment| {
        segment.source = u64::MAX - 2;
    })
}

fn refuses_a_batch_whose_last_source_is_bad() -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    for (call, request) in BOTH {
        let good = good_segment(request, &code);
        let mut last = good;
        last.source = bad::KERNEL;
        if request == abi::JIT_FILL {
            last.offset += 32;
        }
        let segments = [good, last];
        region.unchanged_by(|| {
            let argument = calls::publication(&segments);
            refused(
                call,
                calls::publish(region.fd(), request, &argument),
                libc::EFAULT,
            )
        })?;
    }
    Ok(())
}

fn refuses_a_source_that_is_an_unpublished_page() -> Outcome {
    let empty = Region::new(1)?;
    both_refuse("a source that raises SIGBUS", libc::EFAULT, |_, segment| {
        segment.source = empty.map.addr() as u64;
    })
}

fn refuses_alignments_beyond_a_page() -> Outcome {
    for align in [abi::MAX_ALIGN_LOG2 + 1, 63, 64, u32::MAX] {
        both_refuse("an alignment", libc::EINVAL, |_, segment| {
            segment.align_log2 = align
        })?;
    }
    Ok(())
}

/// Fails unless `JIT_APPEND` refuses a good segment that `spoil` has changed.
fn append_refused(errno: i32, spoil: impl Fn(&mut Publish, &mut Segment)) -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    let mut segments = [calls::segment(&code)];
    let mut argument = calls::publication(&segments);
    spoil(&mut argument, &mut segments[0]);
    region.unchanged_by(|| {
        let result = calls::publish(region.fd(), abi::JIT_APPEND, &argument);
        refused("JIT_APPEND", result, errno)
    })
}

fn append_refuses_an_offset() -> Outcome {
    append_refused(libc::EINVAL, |_, segment| segment.offset = 1)
}

fn append_elsewhere_is_stale() -> Outcome {
    for expect in [0, 191, 193, PAGE as u64, u64::MAX - 1] {
        append_refused(libc::ESTALE, |argument, _| argument.expect = expect)?;
    }
    Ok(())
}

fn append_expectation_counts_alignment() -> Outcome {
    append_refused(libc::ESTALE, |argument, segment| {
        argument.expect = 192;
        segment.align_log2 = 8;
    })
}

fn append_expectation_that_holds_is_met() -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    let mut segments = [calls::segment(&code)];
    segments[0].align_log2 = 8;
    let mut argument = calls::publication(&segments);
    argument.expect = 256;
    let offset =
        calls::publish(region.fd(), abi::JIT_APPEND, &argument).or_fail("JIT_APPEND at 256")?;
    equal("the offset", offset, 256)?;
    region.answers(256, 7)
}

/// Fails unless `len` bytes fit and `len + 1` do not.
fn just_fits(region: &Region, len: usize, flags: u32) -> Outcome {
    let code = vec![0x90; len + 1];
    region.unchanged_by(|| {
        let result = calls::append_with(region.fd(), &code, flags);
        refused("one byte more", result, libc::ENOSPC)
    })?;
    region.append_with(&code[..len], flags)?;
    equal("the cursor", region.stats()?.cursor, 2 * PAGE as u64)
}

fn append_fits_exactly_or_not_at_all() -> Outcome {
    just_fits(&Region::new(2)?, 2 * PAGE, 0)?;
    let region = Region::new(2)?;
    region.append(&[0xc3; 5])?;
    just_fits(&region, 2 * PAGE - 5, 0)
}

fn append_batch_fits_exactly_or_not_at_all() -> Outcome {
    let region = Region::new(2)?;
    let code = vec![0x90; PAGE];
    let mut segments = [
        calls::segment(&code),
        calls::segment(&code),
        calls::segment(&code[..1]),
    ];
    let append = |segments: &[Segment]| {
        let argument = calls::publication(segments);
        calls::publish(region.fd(), abi::JIT_APPEND, &argument)
    };
    region.unchanged_by(|| refused("one byte more", append(&segments), libc::ENOSPC))?;
    segments[1].len -= 1;
    append(&segments).or_fail("a batch that fits")?;
    equal("the cursor", region.stats()?.cursor, 2 * PAGE as u64)
}

fn append_alignment_counts_for_the_room() -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    let code = vec![0x90; PAGE + 1];
    let aligned = |len: usize| {
        let mut segments = [calls::segment(&code[..len])];
        segments[0].align_log2 = abi::MAX_ALIGN_LOG2;
        let argument = calls::publication(&segments);
        calls::publish(region.fd(), abi::JIT_APPEND, &argument)
    };
    region.unchanged_by(|| refused("one byte more", aligned(PAGE + 1), libc::ENOSPC))?;
    let offset = aligned(PAGE).or_fail("what fits")?;
    equal("the offset", offset, PAGE as u64)
}

fn append_fresh_counts_for_the_room() -> Outcome {
    let region = Region::new(2)?;
    region.append(&[0xc3])?;
    just_fits(&region, PAGE, abi::PUBLISH_FRESH)
}

fn append_to_a_full_region_has_no_space() -> Outcome {
    let region = Region::new(2)?;
    region.append(&vec![0x90; 2 * PAGE])?;
    region.unchanged_by(|| {
        let result = calls::append(region.fd(), &[0xc3]);
        refused("a byte more", result, libc::ENOSPC)?;
        let result = calls::append_with(region.fd(), &[0xc3], abi::PUBLISH_FRESH);
        refused("a fresh byte more", result, libc::ENOSPC)
    })
}

/// Fails unless `JIT_FILL` refuses a good segment that `spoil` has changed.
fn fill_refused(errno: i32, spoil: impl Fn(&mut Publish, &mut Segment)) -> Outcome {
    let region = region_with_hole()?;
    let code = asm::answer(7);
    let mut segments = [calls::segment_at(HOLE, &code)];
    let mut argument = calls::publication(&segments);
    spoil(&mut argument, &mut segments[0]);
    region.unchanged_by(|| {
        let result = calls::publish(region.fd(), abi::JIT_FILL, &argument);
        refused("JIT_FILL", result, errno)
    })
}

fn fill_refuses_an_alignment() -> Outcome {
    fill_refused(libc::EINVAL, |_, segment| segment.align_log2 = 1)
}

fn fill_refuses_an_expectation() -> Outcome {
    fill_refused(libc::EINVAL, |argument, _| argument.expect = HOLE)
}

fn fill_refuses_fresh() -> Outcome {
    fill_refused(libc::EINVAL, |argument, _| {
        argument.flags = abi::PUBLISH_FRESH
    })
}

fn fill_of_what_is_not_reserved() -> Outcome {
    // Published code, the end of the code, beyond the cursor, the next page.
    for offset in [0, 58, 128, 192, 200, PAGE as u64, 2 * PAGE as u64 - 6] {
        fill_refused(libc::EEXIST, |_, segment| segment.offset = offset)?;
    }
    Ok(())
}

fn fill_twice() -> Outcome {
    let region = region_with_hole()?;
    region.fill(HOLE + 8, &asm::answer(7))?;
    for offset in [HOLE + 8, HOLE + 3, HOLE + 13] {
        region.unchanged_by(|| {
            let result = calls::fill(region.fd(), offset, &asm::answer(8));
            refused("JIT_FILL again", result, libc::EEXIST)
        })?;
    }
    region.fill(HOLE + 2, &asm::answer(9))?;
    region.fill(HOLE + 14, &asm::answer(10))?;
    region.answers(HOLE + 8, 7)?;
    region.answers(HOLE + 2, 9)?;
    region.answers(HOLE + 14, 10)
}

fn fill_half_outside() -> Outcome {
    for offset in [HOLE - 1, HOLE + 59] {
        fill_refused(libc::EEXIST, |_, segment| segment.offset = offset)?;
    }
    Ok(())
}

fn fill_of_alignment_padding() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    calls::reserve(region.fd(), 64, 6).or_fail("JIT_RESERVE")?;
    region.unchanged_by(|| {
        let result = calls::fill(region.fd(), 60, &[0x90; 5]);
        refused("a fill of padding", result, libc::EEXIST)
    })
}

/// Two ranges that were reserved apart are not one.
fn fill_across_two_reservations() -> Outcome {
    let region = Region::new(1)?;
    calls::reserve(region.fd(), 8, 0).or_fail("JIT_RESERVE")?;
    calls::reserve(region.fd(), 8, 0).or_fail("JIT_RESERVE")?;
    region.unchanged_by(|| {
        let result = calls::fill(region.fd(), 4, &[0x90; 8]);
        refused("a fill across", result, libc::EEXIST)
    })
}

/// Fails unless two segments of eight bytes at these offsets are refused.
fn pair_refused(what: &str, offsets: [u64; 2], errno: i32) -> Outcome {
    let region = region_with_hole()?;
    let code = [0x90; 8];
    let segments = offsets.map(|offset| calls::segment_at(offset, &code));
    region.unchanged_by(|| {
        let argument = calls::publication(&segments);
        let result = calls::publish(region.fd(), abi::JIT_FILL, &argument);
        refused(what, result, errno)
    })
}

fn fill_batch_with_one_bad_segment() -> Outcome {
    pair_refused("the last not reserved", [HOLE, 124], libc::EEXIST)?;
    pair_refused("the first not reserved", [60, 80], libc::EEXIST)
}

fn fill_refuses_a_wrong_order() -> Outcome {
    pair_refused("descending", [HOLE + 16, HOLE], libc::EINVAL)
}

fn fill_refuses_overlaps() -> Outcome {
    pair_refused("the same twice", [HOLE, HOLE], libc::EINVAL)?;
    pair_refused("an overlap", [HOLE, HOLE + 7], libc::EINVAL)
}

fn fill_refuses_offsets_beyond_the_region() -> Outcome {
    for offset in [abi::MAX_REGION, u64::MAX, u64::MAX - 5] {
        fill_refused(libc::EINVAL, |_, segment| segment.offset = offset)?;
    }
    fill_refused(libc::EEXIST, |_, segment| {
        segment.offset = abi::MAX_REGION - 1;
    })
}

fn sealed_is_read_only() -> Outcome {
    let region = region_with_hole()?;
    calls::seal(region.fd()).or_fail("JIT_SEAL")?;
    equal("sealed", region.stats()?.sealed, 1)?;
    region.unchanged_by(|| {
        let result = calls::append(region.fd(), &[0xc3]);
        refused("JIT_APPEND", result, libc::EROFS)?;
        let result = calls::fill(region.fd(), HOLE, &[0xc3]);
        refused("JIT_FILL", result, libc::EROFS)?;
        refused(
            "JIT_RESERVE",
            calls::reserve(region.fd(), 8, 0),
            libc::EROFS,
        )?;
        calls::seal(region.fd()).or_fail("JIT_SEAL again")
    })?;
    region.answers(0, 1)
}

/// EPERM before EROFS, before ENOSPC, before ESTALE, before EDQUOT.
fn causes_are_checked_in_order() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0x90; PAGE - 10])?;
    let code = [0x90; 20];
    let segments = [calls::segment(&code)];
    let mut argument = calls::publication(&segments);
    argument.expect = 1;
    let append = || calls::publish(region.fd(), abi::JIT_APPEND, &argument);
    refused("no room and elsewhere", append(), libc::ENOSPC)?;
    calls::seal(region.fd()).or_fail("JIT_SEAL")?;
    refused("and sealed", append(), libc::EROFS)?;
    in_child(|| refused("and not the owner", append(), libc::EPERM))
}

fn child_may_not_publish() -> Outcome {
    let region = region_with_hole()?;
    region.unchanged_by(|| {
        in_child(|| {
            let fd = region.fd();
            refused("JIT_APPEND", calls::append(fd, &[0xc3]), libc::EPERM)?;
            refused("JIT_FILL", calls::fill(fd, HOLE, &[0xc3]), libc::EPERM)?;
            refused("JIT_RESERVE", calls::reserve(fd, 8, 0), libc::EPERM)?;
            refused("JIT_SEAL", calls::seal(fd), libc::EPERM)?;
            region.stats().map(|_| ())
        })
    })
}

fn child_may_publish_where_anyone_may() -> Outcome {
    let region = Region::with_flags(2, abi::CREATE_ANY_MM)?;
    region.append(&asm::answer(1))?;
    in_child(|| {
        let offset = region.append(&asm::answer(2))?;
        equal("the offset", offset, 6)?;
        let hole = calls::reserve(region.fd(), 6, 0).or_fail("JIT_RESERVE")?;
        region.fill(hole, &asm::answer(3))?;
        region.answers(hole, 3)
    })?;
    region.answers(6, 2)?;
    region.answers(12, 3)?;
    in_child(|| calls::seal(region.append.as_raw_fd()).or_fail("JIT_SEAL"))?;
    let result = calls::append(region.fd(), &[0xc3]);
    refused("JIT_APPEND after the child's seal", result, libc::EROFS)?;
    Ok(())
}
