// SPDX-License-Identifier: GPL-2.0
//! Chooses calls at random: mostly good ones, often with one thing spoiled. What
//! nobody can predict (loads of bytes that may be old as a source, memory whose
//! mappings the kernel has merged) is not chosen.

use jitfd_plan::abi;

use super::arena::Cell;
use super::call::*;
use super::region::{FUNCTION, Region};
use super::world::{Role, World};
use crate::suite::asm;
use crate::suite::random::Random;
use crate::suite::sys::{PAGE, RX};

/// The largest region, in pages.
const MOST_PAGES: usize = 12;
/// The longest mapping that is changed at once.
const SPAN: usize = 10;

/// Addresses at which nobody can have anything.
const NOWHERE: [u64; 4] = [
    0,
    0xffff_8880_0000_0000,
    0x8000_0000_0000_0000,
    u64::MAX - 40,
];

/// The next call.
pub fn choose(world: &World, random: &mut Random) -> Call {
    match random.below(100) {
        0..30 => publish(world, random),
        30..34 => reserve(world, random),
        34..38 => open(world, random),
        38..43 => create(world, random),
        43..45 => clone(world, random),
        45..48 => code(world, random),
        48..57 => map(world, random),
        57..59 => memory(world, random),
        59 => unmap(world, random),
        60..64 => protect(world, random),
        64..67 => remap(world, random),
        67..69 => advise(world, random),
        69..72 => other(world, random),
        72..74 => stats(world, random),
        _ => Call::Look(choose_look(world, random)),
    }
}

/// What a child of the process calls: nothing that a descriptor or a mapping
/// of the parent would have to know about.
pub fn choose_in_child(world: &World, random: &mut Random) -> Call {
    match random.below(8) {
        0..3 => publish(world, random),
        3 => reserve(world, random),
        4 => stats(world, random),
        _ => Call::Look(choose_look(world, random)),
    }
}

fn devices(world: &World) -> Vec<usize> {
    world.slots_where(|file| matches!(file.role, Role::Device(_)))
}

/// Mostly one of `wanted`, else any slot, a foreign one included.
fn slot(wanted: &[usize], random: &mut Random) -> usize {
    match wanted.is_empty() || random.one_in(30) {
        true => random.below(FOREIGN.end),
        false => random.pick(wanted),
    }
}

fn append_slot(world: &World, random: &mut Random) -> usize {
    let appends = world.slots_where(|file| matches!(file.role, Role::Append(_)));
    slot(&appends, random)
}

fn at(random: &mut Random) -> At {
    match random.below(60) {
        0 => At::Cliff,
        1 => At::Nowhere(random.pick(&NOWHERE)),
        2 | 3 => At::ReadOnlyMemory,
        _ => At::Memory,
    }
}

fn reserved(random: &mut Random) -> Option<usize> {
    random.one_in(80).then(|| random.below(8))
}

fn flags(allowed: u32, random: &mut Random) -> u32 {
    match random.below(40) {
        0 => 1 << random.below(32),
        1 => u32::MAX,
        _ => random.next() as u32 & allowed,
    }
}

fn open(world: &World, random: &mut Random) -> Call {
    let free = world.free_slots();
    if free.is_empty() || random.one_in(3) {
        return Call::Close {
            slot: random.below(SLOTS),
        };
    }
    let to = random.pick(&free);
    if random.one_in(6) {
        let from = random.below(SLOTS);
        return Call::Duplicate { from, to };
    }
    let mode = match random.below(12) {
        0 => libc::O_WRONLY,
        1 => libc::O_RDONLY,
        _ => libc::O_RDWR,
    };
    Call::Open { slot: to, mode }
}

fn create(world: &World, random: &mut Random) -> Call {
    let free = world.free_slots();
    let Some(&to) = free.first() else {
        return open(world, random);
    };
    let fresh = world.slots_where(|file| file.role == Role::Device(None));
    let size = match random.below(30) {
        0 => random.pick(&[0, 1, 4095, 4097, abi::MAX_REGION + 4096, u64::MAX]),
        _ => ((1 + random.below(MOST_PAGES)) * PAGE) as u64,
    };
    Call::Create {
        device: slot(&fresh, random),
        to,
        at: at(random),
        size,
        flags: flags(abi::CREATE_ANY_MM, random),
        reserved: reserved(random),
    }
}

fn clone(world: &World, random: &mut Random) -> Call {
    let free = world.free_slots();
    let Some(&to) = free.first() else {
        return open(world, random);
    };
    let fresh = world.slots_where(|file| file.role == Role::Device(None));
    let regions = world.slots_where(|file| matches!(file.role, Role::Device(Some(_))));
    Call::Clone {
        device: slot(&fresh, random),
        to,
        at: at(random),
        source: slot(&regions, random),
        flags: flags(abi::CREATE_ANY_MM, random),
        reserved: reserved(random),
    }
}

/// Bytes to publish: often a function, with its answer.
fn bytes(random: &mut Random, len: usize) -> (Vec<u8>, Option<u32>) {
    let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    if len < FUNCTION || random.one_in(6) {
        return (bytes, None);
    }
    let mut answer = random.next() as u32;
    if random.one_in(8) {
        // What the CPU can't tell from the two-byte breakpoint.
        answer = answer & 0xff00_00ff | 0x0003_cd00;
    }
    bytes[..FUNCTION].copy_from_slice(&asm::answer(answer));
    (bytes, Some(answer))
}

fn len(random: &mut Random) -> usize {
    match random.below(20) {
        0 => 1 + random.below(3 * PAGE),
        1 => PAGE,
        2 | 3 => 1 + random.below(600),
        _ => 1 + random.below(40),
    }
}

fn publish(world: &World, random: &mut Random) -> Call {
    let slot = append_slot(world, random);
    let region = world.append(slot).ok().map(|region| &world.regions[region]);
    let fill = random.one_in(3);
    let mut what = match region {
        Some(region) if fill && !region.holes.is_empty() => fill_holes(region, random),
        _ => append(fill, random),
    };
    let allowed = match fill {
        true => abi::PUBLISH_SYNC,
        false => abi::PUBLISH_SYNC | abi::PUBLISH_FRESH,
    };
    // Most publications have no flags.
    if random.one_in(4) {
        what.flags = flags(allowed, random);
    }
    if random.one_in(6) {
        spoil(world, region, &mut what, random);
    }
    let at = at(random);
    Call::Publish { slot, at, what }
}

fn empty_publication(fill: bool) -> Publication {
    Publication {
        fill,
        payload: Payload::default(),
        segments: Vec::new(),
        array: At::Memory,
        count: None,
        flags: 0,
        expect: abi::ANY_OFFSET,
        reserved: None,
    }
}

/// Adds a segment, whose bytes are new ones of the payload.
fn add_segment(what: &mut Publication, len: usize, random: &mut Random) {
    // Segments that follow each other are copied at once; others are not.
    let gap = if random.one_in(2) { 0 } else { 1 };
    let start = what.payload.0.len() + gap;
    what.payload.0.resize(start, 0);
    let (bytes, answer) = bytes(random, len);
    what.payload.0.extend(bytes);
    what.segments.push(Segment {
        source: Source::Payload(start),
        len: len as u64,
        offset: 0,
        align_log2: 0,
        reserved: 0,
        answer,
    });
}

fn append(fill: bool, random: &mut Random) -> Publication {
    let mut what = empty_publication(fill);
    let count = match random.below(12) {
        0 => 2 + random.below(12),
        1 => 2,
        _ => 1,
    };
    for _ in 0..count {
        let len = len(random);
        add_segment(&mut what, len, random);
    }
    for segment in &mut what.segments {
        segment.align_log2 = match random.below(6) {
            0 => random.pick(&[3, 4, 6, 12]),
            _ => 0,
        };
    }
    what
}

fn fill_holes(region: &Region, random: &mut Random) -> Publication {
    let mut what = empty_publication(true);
    let mut holes = region.holes.clone();
    holes.sort_unstable();
    let count = 1 + random.below(holes.len().min(4));
    let first = random.below(holes.len() - count + 1);
    for &(from, to) in &holes[first..first + count] {
        let room = (to - from) as usize;
        let most = if random.one_in(4) { room } else { room.min(50) };
        let len = 1 + random.below(most);
        add_segment(&mut what, len, random);
        let last = what.segments.len() - 1;
        what.segments[last].offset = from + random.below(room - len + 1) as u64;
    }
    what
}

/// Changes one thing, mostly for the worse.
fn spoil(world: &World, region: Option<&Region>, what: &mut Publication, random: &mut Random) {
    let index = random.below(what.segments.len());
    let cursor = region.map_or(0, |region| region.cursor);
    match random.below(12) {
        0 => what.reserved = Some(random.below(4)),
        1 => what.count = Some(random.pick(&[0, abi::MAX_SEGMENTS + 1, u32::MAX])),
        2 => what.array = At::Nowhere(random.pick(&NOWHERE)),
        3 => what.array = At::Cliff,
        4 => what.expect = random.pick(&[0, cursor, cursor, cursor + 1, u64::MAX - 1]),
        5 => what.segments[index].reserved = 1 << random.below(32),
        6 => what.segments[index].offset = random.pick(&[0, 1, cursor, 1 << 30, u64::MAX]),
        7 => what.segments[index].align_log2 = random.pick(&[1, 12, 13, 63, 64, u32::MAX]),
        8 => what.segments.swap(0, index),
        9 => {
            what.segments[index].len = random.pick(&[0, 0, (1 << 30) + 1, u64::MAX]);
            what.segments[index].answer = None;
        }
        _ => other_source(world, &mut what.segments[index], random),
    }
}

/// Takes the bytes from elsewhere.
fn other_source(world: &World, segment: &mut Segment, random: &mut Random) {
    let source = source(world, segment.len, random);
    if is_certain(world, source, segment.len) {
        segment.source = source;
        segment.answer = None;
    }
}

fn source(world: &World, len: u64, random: &mut Random) -> Source {
    let mapped = world.pages_where(|cell| *cell != Cell::Hole);
    match random.below(4) {
        0 => Source::Nowhere(random.pick(&NOWHERE)),
        1 => Source::Cliff(random.below(PAGE.min(len as usize + 20)) + 1),
        _ if mapped.is_empty() => Source::Nowhere(0),
        _ => Source::Arena(random.pick(&mapped) * PAGE + random.below(PAGE)),
    }
}

/// Whether what a copy of the source gets is sure.
fn is_certain(world: &World, source: Source, len: u64) -> bool {
    let Source::Arena(start) = source else {
        return true;
    };
    let pages = start / PAGE..(start + len.min(1 << 20) as usize).div_ceil(PAGE);
    let prots = pages.filter_map(|page| world.arena.cells.get(page));
    let readable = prots
        .into_iter()
        .all(|cell| !matches!(cell, Cell::Code(mapped) if mapped.prot == libc::PROT_EXEC));
    readable && !matches!(world.bytes(&[], source, len), Ok(None))
}

fn reserve(world: &World, random: &mut Random) -> Call {
    if random.one_in(20) {
        let slot = append_slot(world, random);
        return Call::Seal { slot };
    }
    let most = random.pick(&[200, 200, 200, 6000]);
    let len = match random.below(20) {
        0 => random.pick(&[0, 1 << 20, (1 << 30) + 1, u64::MAX]),
        _ => 1 + random.below(most) as u64,
    };
    Call::Reserve {
        slot: append_slot(world, random),
        at: at(random),
        len,
        align_log2: match random.below(12) {
            0 => random.pick(&[12, 13, 64, u32::MAX]),
            _ => random.below(7) as u32,
        },
        reserved: reserved(random),
    }
}

fn code(world: &World, random: &mut Random) -> Call {
    let fresh = world.slots_where(|file| file.role == Role::Device(None));
    let size = len(random);
    let pages = size.div_ceil(PAGE);
    let (payload, answer) = bytes(random, size);
    let mut what = Code {
        payload: Payload(payload),
        source: Source::Payload(0),
        len: size as u64,
        addr: code_place(world, pages, random),
        flags: if random.one_in(40) {
            1 << random.below(32)
        } else {
            0
        },
        reserved: reserved(random),
        answer,
    };
    // The flag decides what the address means.
    what.flags &= !abi::CREATE_CODE_FIXED;
    let spoiled = source(world, what.len, random);
    match random.below(20) {
        0 => what.len = random.pick(&[0, (1 << 30) + 1, u64::MAX]),
        1 | 2 if is_certain(world, spoiled, what.len) => {
            what.source = spoiled;
            what.answer = None;
        }
        _ => {}
    }
    Call::Code {
        device: slot(&fresh, random),
        at: at(random),
        what,
    }
}

fn code_place(world: &World, pages: usize, random: &mut Random) -> CodeAt {
    let replaceable = world.pages_where(|cell| world.is_replaceable(cell));
    let last = ARENA - pages;
    match random.below(30) {
        0 => CodeAt::Hint(0x1000),
        1 => CodeAt::FixedNowhere(random.pick(&[0, 1, 0x1001, 0x7000, u64::MAX - 4095])),
        2 => CodeAt::Fixed(random.below(last + 1)),
        3..18 if !replaceable.is_empty() => CodeAt::Fixed(random.pick(&replaceable).min(last)),
        _ => CodeAt::Anywhere(random.below(last + 1)),
    }
}

/// A range of the arena: page, pages. Mostly a short one of code.
fn range(world: &World, random: &mut Random) -> (usize, usize) {
    let code = world.pages_where(|cell| matches!(cell, Cell::Code(_)));
    if code.is_empty() || random.one_in(4) {
        let pages = 1 + random.below(SPAN);
        return (random.below(ARENA - pages + 1), pages);
    }
    let page = random.pick(&code);
    (page, 1 + random.below(4.min(ARENA - page)))
}

fn map(world: &World, random: &mut Random) -> Call {
    let regions = world.slots_where(|file| matches!(file.role, Role::Device(Some(_))));
    let slot = match random.one_in(20) {
        true => slot(&devices(world), random).min(SLOTS - 1),
        false => slot(&regions, random).min(SLOTS - 1),
    };
    let region = world
        .shown(slot)
        .map_or(MOST_PAGES, |region| world.regions[region].pages());
    let first = random.below(region);
    let mut pages = 1 + random.below(region - first);
    if random.one_in(3) {
        pages = region - first;
    }
    let mut offset = (first * PAGE) as u64;
    match random.below(40) {
        0 => offset += 1,
        1 => offset = random.pick(&[1 << 30, 1 << 32, 1 << 40]),
        2 => pages += 1,
        _ => {}
    }
    Call::Map(Map {
        slot,
        page: random.below(ARENA - pages + 1),
        pages,
        prot: prot(random),
        private: random.one_in(25),
        offset,
        place: match random.below(8) {
            0 => Place::Anywhere,
            1 => Place::FixedNoReplace,
            _ => Place::Fixed,
        },
    })
}

fn prot(random: &mut Random) -> i32 {
    match random.below(20) {
        0 => libc::PROT_NONE,
        1 | 2 => libc::PROT_READ,
        3 => libc::PROT_EXEC,
        4 => libc::PROT_READ | libc::PROT_WRITE,
        5 => RX | libc::PROT_WRITE,
        _ => RX,
    }
}

fn memory(world: &World, random: &mut Random) -> Call {
    let (page, pages) = range(world, random);
    let byte = random.next() as u8;
    Call::Memory { page, pages, byte }
}

fn unmap(world: &World, random: &mut Random) -> Call {
    let (page, pages) = range(world, random);
    Call::Unmap { page, pages }
}

fn protect(world: &World, random: &mut Random) -> Call {
    let (page, pages) = range(world, random);
    let prot = prot(random);
    Call::Protect { page, pages, prot }
}

fn remap(world: &World, random: &mut Random) -> Call {
    let (page, old) = range(world, random);
    let new = match random.below(4) {
        0 => 1 + random.below(SPAN),
        _ => old,
    };
    let flags = match random.below(12) {
        0 => 0,
        1 => libc::MREMAP_MAYMOVE,
        2 => libc::MREMAP_FIXED,
        3 => libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP,
        4 => libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP,
        5 => 8,
        _ => libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
    };
    let old = if random.one_in(40) { 0 } else { old };
    let moves = flags == libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED && old == new;
    if matches!(world.arena.cells[page], Cell::Memory { .. }) && !moves {
        return unmap(world, random);
    }
    Call::Remap(Remap {
        page,
        old,
        new: if random.one_in(40) { 0 } else { new },
        flags,
        to: random.below(ARENA - new + 1),
    })
}

fn advise(world: &World, random: &mut Random) -> Call {
    let (page, pages) = range(world, random);
    let memory = |cell: &Cell| matches!(cell, Cell::Memory { .. });
    if world.arena.range(page, pages).iter().any(memory) {
        return unmap(world, random);
    }
    let advices = [
        libc::MADV_DONTFORK,
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_COLD,
        libc::MADV_PAGEOUT,
        libc::MADV_REMOVE,
        libc::MADV_DOFORK,
        libc::MADV_DODUMP,
        libc::MADV_WIPEONFORK,
        libc::MADV_POPULATE_READ,
    ];
    let advice = random.pick(&advices);
    Call::Advise {
        page,
        pages,
        advice,
    }
}

/// Rare calls, and dear ones.
fn other(world: &World, random: &mut Random) -> Call {
    match random.below(16) {
        0..6 => Call::Unknown {
            slot: random.below(FOREIGN.end),
            number: unknown_number(random),
        },
        6..8 => {
            let shown = world.slots_where(|file| file.role != Role::Device(None));
            match shown.is_empty() {
                true => open(world, random),
                false => Call::Settle {
                    slot: random.pick(&shown),
                },
            }
        }
        8 => Call::Fork {
            seed: random.next(),
        },
        _ => stats(world, random),
    }
}

/// Numbers that no handle has: other numbers, sizes and directions.
fn unknown_number(random: &mut Random) -> u32 {
    random.pick(&[
        0x4a28,
        0x0000_4a20,
        abi::JIT_APPEND + (8 << 16),
        abi::JIT_CREATE ^ (3 << 30),
        abi::JIT_STATS - (8 << 16),
        (abi::JIT_FILL & !0xff) | 0x1f,
    ])
}

fn stats(world: &World, random: &mut Random) -> Call {
    let slots = world.slots_where(|_| true);
    Call::Stats {
        slot: slot(&slots, random),
        at: at(random),
    }
}

fn choose_look(world: &World, random: &mut Random) -> Look {
    let code = world.pages_where(|cell| matches!(cell, Cell::Code(_)));
    let page = match code.is_empty() || random.one_in(10) {
        true => random.below(ARENA),
        false => random.pick(&code),
    };
    match random.below(24) {
        0 => Look::Mappings,
        1 | 2 if world.arena.cells[page] != Cell::Hole && code.contains(&page) => {
            Look::Store { page }
        }
        3..6 => Look::Debugger { page },
        6 => match world.slots_where(|_| true) {
            slots if slots.is_empty() => Look::Load { page },
            slots => Look::Info {
                slot: random.pick(&slots),
            },
        },
        7..15 => Look::Run {
            page,
            offset: run_offset(world, page, random),
        },
        _ => Look::Load { page },
    }
}

/// Where to execute on a page: a function that starts there, or anything.
fn run_offset(world: &World, page: usize, random: &mut Random) -> usize {
    let offset = random.below(PAGE);
    let Cell::Code(mapped) = world.arena.cells[page] else {
        return offset;
    };
    let functions = &world.regions[mapped.region].functions;
    let here = |offset: usize| offset / PAGE == mapped.page;
    let here: Vec<usize> = functions
        .iter()
        .map(|function| function.offset)
        .filter(|&offset| here(offset))
        .collect();
    match here.is_empty() || random.one_in(4) {
        true => offset,
        false => random.pick(&here) % PAGE,
    }
}
