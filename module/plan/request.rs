// SPDX-License-Identifier: GPL-2.0

//! Turns the raw arguments of [`abi`](super::abi) into requests that hold only
//! valid values, or says why not. Everything that can be refused without
//! looking at a region is refused here.

use super::abi::*;
use super::refusal::Refusal;

/// Rounds `len` up to whole pages, in bytes. What has no such number is larger
/// than anything that is allowed, and stays so.
pub const fn page_round(len: u64) -> u64 {
    match len.checked_next_multiple_of(PAGE_SIZE as u64) {
        Some(rounded) => rounded,
        None => u64::MAX,
    }
}

const fn is_page_aligned(value: u64) -> bool {
    value % PAGE_SIZE as u64 == 0
}

fn all_zero(reserved: &[u32]) -> bool {
    reserved.iter().all(|&word| word == 0)
}

fn known(flags: u32, allowed: u32) -> bool {
    flags & !allowed == 0
}

fn require(condition: bool) -> Result<(), Refusal> {
    if condition {
        Ok(())
    } else {
        Err(Refusal::Invalid)
    }
}

/// Checks the arguments of `JIT_CREATE_CODE`. Returns the mapping's length in
/// bytes, whole pages.
pub fn create_code(arg: &CreateCode) -> Result<u64, Refusal> {
    require(known(arg.flags, CREATE_CODE_FIXED) && all_zero(&arg.reserved))?;
    require(arg.len >= 1 && arg.len <= MAX_CODE)?;
    require(arg.source.checked_add(arg.len).is_some())?;
    if arg.flags & CREATE_CODE_FIXED == 0 {
        require(arg.addr == 0)?;
    } else {
        require(arg.addr != 0 && is_page_aligned(arg.addr))?;
        require(arg.addr.checked_add(page_round(arg.len)).is_some())?;
    }
    Ok(page_round(arg.len))
}

/// Checks the arguments of `JIT_CREATE`.
pub fn create(arg: &Create) -> Result<(), Refusal> {
    require(known(arg.flags, CREATE_ANY_MM) && all_zero(&arg.reserved))?;
    require(arg.size >= 1 && arg.size <= MAX_REGION && is_page_aligned(arg.size))
}

/// Checks the arguments of `JIT_CLONE`.
pub fn clone_from(arg: &CloneFrom) -> Result<(), Refusal> {
    require(known(arg.flags, CREATE_ANY_MM) && all_zero(&arg.reserved))
}

/// Checks the arguments of `JIT_RESERVE`.
pub fn reserve(arg: &Reserve) -> Result<(), Refusal> {
    require(all_zero(&arg.reserved) && arg.align_log2 <= MAX_ALIGN_LOG2)?;
    require(arg.len >= 1 && arg.len <= MAX_REGION)
}

/// Which of the two publications is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At the cursor.
    Append,
    /// Inside reserved ranges.
    Fill,
}

/// Checks the arguments of `JIT_APPEND` and `JIT_FILL`, without their
/// segments.
pub fn publish(arg: &Publish, kind: Kind) -> Result<(), Refusal> {
    let allowed = match kind {
        Kind::Append => PUBLISH_SYNC | PUBLISH_FRESH,
        Kind::Fill => PUBLISH_SYNC,
    };
    require(known(arg.flags, allowed) && all_zero(&arg.reserved))?;
    require(arg.count >= 1 && arg.count <= MAX_SEGMENTS)?;
    require(kind == Kind::Append || arg.expect == ANY_OFFSET)
}

/// Checks one segment.
pub fn segment(segment: &Segment, kind: Kind) -> Result<(), Refusal> {
    require(segment.reserved == 0)?;
    require(segment.len >= 1 && segment.len <= MAX_REGION)?;
    require(segment.source.checked_add(segment.len).is_some())?;
    match kind {
        Kind::Append => require(segment.offset == 0 && segment.align_log2 <= MAX_ALIGN_LOG2),
        Kind::Fill => require(segment.align_log2 == 0 && segment.offset < MAX_REGION),
    }
}

/// Decides whether the caller may publish into a region at all.
pub fn may_publish(sealed: bool, any_mm: bool, is_owner: bool) -> Result<(), Refusal> {
    if !any_mm && !is_owner {
        return Err(Refusal::NotOwner);
    }
    if sealed {
        return Err(Refusal::Sealed);
    }
    Ok(())
}
