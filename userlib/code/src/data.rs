// SPDX-License-Identifier: MIT OR Apache-2.0

//! The declared data of a chunk, and how long a chunk can be.

use crate::error::{CodeError, Reason};
use std::ops::Range;

/// The most bytes that a chunk can have: what one publication takes.
pub const LONGEST_CHUNK: usize = 1 << 30;

/// Whether a chunk can have `len` bytes: for callers that copy the bytes first, to be
/// asked before that.
///
/// # Errors
/// As [`validate`](crate::validate) of a chunk that is empty or too long.
pub fn check_len(len: usize) -> Result<(), CodeError> {
    match len {
        0 => Err(CodeError::whole(Reason::Empty)),
        _ if len > LONGEST_CHUNK => Err(CodeError::whole(Reason::TooLong {
            len,
            most: LONGEST_CHUNK,
        })),
        _ => Ok(()),
    }
}

/// Checks the length of a chunk and its data ranges; returns these in
/// ascending order, those that touch or overlap as one.
pub(crate) fn checked_data(
    ranges: &[Range<usize>],
    len: usize,
) -> Result<Vec<Range<usize>>, CodeError> {
    check_len(len)?;
    if let Some(range) = ranges
        .iter()
        .find(|range| range.is_empty() || range.end > len)
    {
        return Err(CodeError::whole(Reason::DataRange {
            range: range.clone(),
            len,
        }));
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(ranges.len())
        .map_err(|_| CodeError::no_memory())?;
    copy.extend_from_slice(ranges);
    Ok(merged(copy))
}

fn merged(mut sorted: Vec<Range<usize>>) -> Vec<Range<usize>> {
    sorted.sort_unstable_by_key(|range| range.start);
    sorted.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    sorted
}

/// Whether `at` is inside one of the ascending `data` ranges.
pub(crate) fn in_data(data: &[Range<usize>], at: usize) -> bool {
    let next = data.partition_point(|range| range.end <= at);
    data.get(next).is_some_and(|range| range.contains(&at))
}
