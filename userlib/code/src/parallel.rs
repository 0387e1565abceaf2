// SPDX-License-Identifier: MIT OR Apache-2.0

//! Large chunks by several threads.
//!
//! Where instructions start is not known ahead. So each seam between two
//! sections is a guess: decoding starts a little before it, and falls into step
//! with the real instructions soon. The guess needs no luck to be safe: a section
//! has to end exactly where the next one starts, and the first one starts with
//! the chunk. By induction every section then was decoded from a real start. If
//! that fails, or if a section finds a fault, the whole chunk is decoded again
//! by one thread. So this path says "yes" or nothing, and verdicts and first
//! errors are those of the plain pass.

use crate::error::CodeError;
use crate::sweep::{Job, Sweep};
use iced_x86::{Decoder, DecoderOptions};
use std::num::NonZero;
use std::ops::Range;
use std::thread;

/// Chunks below this many bytes are not worth a thread. (Fuzzing has small ones.)
const LARGE: usize = if cfg!(fuzzing) { 1 << 9 } else { 1 << 20 };

/// Each thread gets at least this many bytes: some milliseconds of work.
const SECTION: usize = LARGE / 2;

/// So many bytes before a seam decoding starts. Streams of real code fall into
/// step within 30, as a rule.
const RUN_UP: usize = if cfg!(fuzzing) { 24 } else { 512 };

/// Sweeps the chunk, with at most `threads` threads if it is large.
pub(crate) fn sweep(job: Job<'_>, threads: Option<usize>) -> Result<Sweep, CodeError> {
    let sections = sections(job.chunk.len(), threads);
    match by_threads(job, sections) {
        Some(sweep) => Ok(sweep),
        None => Sweep::new(job),
    }
}

fn sections(len: usize, threads: Option<usize>) -> usize {
    if len < LARGE {
        return 1;
    }
    let usable = || thread::available_parallelism().map_or(1, NonZero::get);
    threads.unwrap_or_else(usable).min(len / SECTION)
}

/// Sweeps with one thread for each of `sections`; `None` if there is nothing to
/// divide, a section has a fault, two do not meet, or memory is short.
fn by_threads(job: Job<'_>, sections: usize) -> Option<Sweep> {
    let seams = seams(job, sections);
    let ranges = seams.windows(2).map(|pair| pair[0]..pair[1]);
    if ranges.len() < 2 {
        return None;
    }
    let parts = thread::scope(|scope| {
        let spawn = |range: Range<usize>| {
            let work = move || section(job, range);
            thread::Builder::new().spawn_scoped(scope, work).ok()
        };
        let others: Vec<_> = ranges.clone().skip(1).map(spawn).collect();
        let first = ranges.clone().next().and_then(|range| section(job, range));
        let joined = others.into_iter().map(|other| other?.join().ok()?);
        // Each is waited for, whatever came of the others: no thread is left.
        let all: Vec<_> = std::iter::once(first).chain(joined).collect();
        all.into_iter().collect::<Option<Vec<_>>>()
    })?;
    merged(job.chunk.len(), parts)
}

/// Scans `range`; `None` if that has a fault or does not end where `range` does.
fn section(job: Job<'_>, range: Range<usize>) -> Option<Sweep> {
    let mut scan = Sweep::empty(range.start & !63, range.end)?;
    let end = scan.section(job, range.clone()).ok()?;
    (end == range.end && scan.is_whole()).then_some(scan)
}

fn merged(len: usize, parts: Vec<Sweep>) -> Option<Sweep> {
    let mut all = Sweep::empty(0, len)?;
    let outside = parts.iter().map(|part| part.outside.len()).sum();
    all.outside.try_reserve_exact(outside).ok()?;
    for part in parts {
        all.starts.merge(part.base, &part.starts);
        all.targets.merge(part.base, &part.targets);
        part.far.iter().for_each(|&target| all.targets.set(target));
        all.outside.extend(part.outside);
    }
    Some(all)
}

/// The borders of the sections, ascending, both ends of the chunk included.
fn seams(job: Job<'_>, sections: usize) -> Vec<usize> {
    let len = job.chunk.len();
    let inner = (1..sections).map(|n| seam(job, len / sections * n));
    let mut seams: Vec<_> = std::iter::once(0).chain(inner).chain([len]).collect();
    // Guesses that are close together may be the wrong way round.
    seams.sort_unstable();
    seams.dedup();
    seams
}

/// A place near `near`, not before it, where an instruction seems to start.
fn seam(job: Job<'_>, near: usize) -> usize {
    let next = job.data.partition_point(|data| data.end <= near);
    let before = next.checked_sub(1).map_or(0, |before| job.data[before].end);
    let (end, resume) = match job.data.get(next) {
        Some(data) => (data.start, data.end),
        None => (job.chunk.len(), job.chunk.len()),
    };
    let start = before.max(near.saturating_sub(RUN_UP));
    match job.chunk.get(start..end) {
        Some(code) if near < end => start + in_step(code, near - start),
        _ => resume,
    }
}

/// Where the first instruction that does not start before `near` starts, if
/// `code` is decoded from its start on, bytes that are none skipped one by one.
fn in_step(code: &[u8], near: usize) -> usize {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut at = 0;
    while at < near {
        let _ = decoder.set_position(at);
        let instruction = decoder.decode();
        at += if instruction.is_invalid() {
            1
        } else {
            instruction.len()
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmap::Bitmap;
    use crate::chunk::Outside;
    use crate::rules::Rules;
    use object::{Object, ObjectSection};
    use proptest::prelude::*;

    type Found = (Vec<usize>, Vec<usize>, Vec<Outside>);

    fn found(scan: Sweep) -> Found {
        let list = |bits: &Bitmap| bits.missing_in(&Bitmap::new(0).unwrap()).collect();
        (list(&scan.starts), list(&scan.targets), scan.outside)
    }

    /// What one thread and what several find.
    fn both(code: &[u8], data: &[Range<usize>], sections: usize) -> (Option<Found>, Option<Found>) {
        let rules = &Rules::new().each;
        let job = Job {
            chunk: code,
            data,
            rules,
        };
        (
            Sweep::new(job).ok().map(found),
            by_threads(job, sections).map(found),
        )
    }

    /// Three instructions of 20 bytes: a move of a number in which other
    /// instructions could be seen, a call, and a jump back, in the chunk or out.
    fn code(instructions: u32) -> Vec<u8> {
        let mut code = Vec::new();
        for index in 0..instructions / 3 {
            let mixed = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            code.extend([0x48, 0xb8]);
            code.extend(mixed.to_le_bytes());
            code.extend([0xe8, 0, 0, 0, 0]);
            let back = 20 * ((mixed >> 40) & 0xffff) + 20;
            code.push(0xe9);
            code.extend(u32::try_from(back).unwrap().wrapping_neg().to_le_bytes());
        }
        code
    }

    #[test]
    fn large_chunks_are_divided() {
        let large = code(300_000);
        for sections in [2, 3, 7] {
            let (one, several) = both(&large, &[], sections);
            let (one, several) = (one.unwrap(), several.unwrap());
            assert!(one == several, "{sections} sections differ");
            assert!(!one.2.is_empty() && one.1.len() > 1000);
        }
        assert_eq!(sections(LARGE - 1, Some(8)), 1);
        assert_eq!(sections(LARGE, Some(8)), 2);
        assert_eq!(sections(100 * LARGE, Some(8)), 8);
        assert_eq!(sections(100 * LARGE, Some(0)), 0);
    }

    /// The seams of real code are found, or all of this would be slower than one
    /// thread: this program's own code, cut in many ways.
    #[test]
    fn real_code_is_divided() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let program = object::File::parse(&*program).unwrap();
        let text = program.section_by_name(".text").unwrap();
        let text = text.data().unwrap();
        let mut divided = 0;
        for sections in 2..40 {
            let (one, several) = both(text, &[], sections);
            assert!(several.is_none() || one == several, "{sections} sections");
            divided += usize::from(several.is_some());
        }
        // All 38, as far as it was tried; one may miss by chance.
        assert!(divided > 35, "{divided}");
    }

    #[test]
    fn a_fault_anywhere_is_left_to_the_plain_pass() {
        let mut bad = code(900);
        let len = bad.len();
        for at in [0, 20, len / 2 / 20 * 20, len - 20] {
            let good = std::mem::replace(&mut bad[at], 0x06);
            let (one, several) = both(&bad, &[], 4);
            assert!(one.is_none() && several.is_none(), "{at}");
            bad[at] = good;
        }
    }

    /// Nothing but prefixes: no guess near the seam is right.
    #[test]
    fn streams_that_never_fall_into_step_are_not_accepted_wrongly() {
        // 15-byte instructions of 14 prefixes and a NOP, the run-up in the middle.
        let long: Vec<u8> = [&[0x2e; 14][..], &[0x90]].concat().repeat(400);
        let (one, several) = both(&long, &[], 5);
        assert!(several.is_none() || several == one);
        assert!(one.is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn threads_say_what_one_says_or_nothing(
            pieces in prop::collection::vec(prop_oneof![
                4 => prop::sample::select(vec![
                    vec![0x90], vec![0xc3], vec![0x48, 0xb8, 0xeb, 0, 0xe8, 0, 0, 0, 0, 0x2e],
                    vec![0xeb, 0xf0], vec![0x0f, 0x84, 0x10, 0, 0, 0], vec![0x2e, 0x2e, 0x90],
                ]),
                1 => prop::collection::vec(any::<u8>(), 1..6),
            ], 1..120),
            cuts in prop::collection::vec(0_usize..600, 0..6),
            sections in 2_usize..9,
        ) {
            let code = pieces.concat();
            let mut cuts = Vec::from_iter(cuts.into_iter().filter(|&cut| cut <= code.len()));
            cuts.sort_unstable();
            cuts.dedup();
            let data = Vec::from_iter(cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]));
            let (one, several) = both(&code, &data, sections);
            prop_assert!(several.is_none() || several == one);
        }
    }
}
