// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random calls on a code space, next to a shadow that keeps what must come of
//! them in plain maps: nothing overlaps, nothing moves, every byte is what was
//! published or 0xCC, every address is found, and every byte is counted once.

use super::jit;
use jitfd::space::*;
use jitfd::{Align, Backend, Chunk, CodeSpace, Published, RegionOptions, Rules, Slot, validate};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;

const REGION: usize = 8192;
const PAGE: usize = 4096;
const LEAD: usize = 16;

#[derive(Clone, Debug)]
enum Call {
    Publish(Vec<(usize, u32)>),
    Reserve(usize, u32),
    Fill(usize, usize),
    GiveUp(usize),
    Link(Vec<(usize, u32)>),
    LinkBadly(usize),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let chunks = || prop::collection::vec((1_usize..300, 0_u32..8), 1..6);
    let call = prop_oneof![
        4 => chunks().prop_map(Call::Publish),
        4 => (1_usize..600, 0_u32..8).prop_map(|(len, log2)| Call::Reserve(len, log2)),
        4 => (any::<usize>(), 1_usize..700).prop_map(|(slot, len)| Call::Fill(slot, len)),
        1 => any::<usize>().prop_map(Call::GiveUp),
        3 => chunks().prop_map(Call::Link),
        1 => (1_usize..300).prop_map(Call::LinkBadly),
    ];
    prop::collection::vec(call, 1..60)
}

/// Code of this length that is nobody else's: `mov`s of a number, then `nop`s.
fn unique(number: u32, len: usize) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    let mut code = code.repeat(len / 5);
    code.resize(len, 0x90);
    code
}

fn chunk(bytes: &[u8], align: Align) -> Chunk {
    validate(bytes, &Rules::new()).unwrap().aligned(align)
}

fn align(log2: u32) -> Align {
    Align::new(1 << log2).unwrap()
}

/// What must be there.
#[derive(Default)]
struct Shadow {
    published: BTreeMap<usize, (String, Vec<u8>)>,
    open: Vec<Slot>,
    /// Ranges that were reserved, of all times.
    taken: BTreeMap<usize, usize>,
    number: u32,
}

impl Shadow {
    fn next(&mut self, len: usize) -> (String, Vec<u8>) {
        self.number += 1;
        (format!("f{}", self.number), unique(self.number, len))
    }

    fn take(&mut self, address: usize, len: usize, align: Align) {
        assert_eq!(address % align.bytes(), 0);
        let before = self.taken.range(..address + len).next_back();
        assert!(before.is_none_or(|(start, taken)| start + taken <= address));
        self.taken.insert(address, len);
    }

    fn note(&mut self, function: Published, code: (String, Vec<u8>)) {
        assert_eq!(function.len, code.1.len());
        self.published.insert(function.address, code);
    }

    fn call(&mut self, space: &CodeSpace, call: &Call) {
        match call {
            Call::Publish(shapes) => self.publish(space, shapes),
            Call::Reserve(len, log2) => self.reserve(space, *len, align(*log2)),
            Call::Fill(slot, len) => self.fill(space, *slot, *len),
            Call::GiveUp(slot) => {
                if !self.open.is_empty() {
                    space.abandon(self.open.swap_remove(slot % self.open.len()));
                }
            }
            Call::Link(shapes) => self.link(space, shapes),
            Call::LinkBadly(len) => {
                let image = vec![Item::new("bad", vec![0x06; *len])];
                assert!(space.link(&image, None).is_err());
            }
        }
    }

    fn publish(&mut self, space: &CodeSpace, shapes: &[(usize, u32)]) {
        let codes: Vec<_> = shapes.iter().map(|&(len, _)| self.next(len)).collect();
        let chunks = codes.iter().zip(shapes);
        let chunks: Vec<_> = chunks
            .map(|(code, &(_, log2))| chunk(&code.1, align(log2)))
            .collect();
        let pairs = codes.iter().zip(&chunks);
        let batch: Vec<_> = pairs
            .map(|(code, chunk)| (code.0.as_str(), chunk))
            .collect();
        let functions = space.publish_all(&batch).unwrap();
        for ((function, code), &(len, log2)) in functions.into_iter().zip(codes).zip(shapes) {
            self.take(function.address, len, align(log2));
            self.note(function, code);
        }
    }

    fn reserve(&mut self, space: &CodeSpace, len: usize, align: Align) {
        self.number += 1;
        let name = format!("slot{}", self.number);
        let request = Request {
            align,
            name: &name,
            ..Request::new(len)
        };
        let slot = space.reserve(&request).unwrap();
        self.take(slot.address, len, align);
        self.open.push(slot);
    }

    fn fill(&mut self, space: &CodeSpace, slot: usize, len: usize) {
        if self.open.is_empty() {
            return;
        }
        let at = slot % self.open.len();
        let (_, code) = self.next(len);
        let result = space.fill(&self.open[at], &chunk(&code, Align::NONE));
        assert_eq!(result.is_ok(), len <= self.open[at].len);
        if let Ok(function) = result {
            self.open.swap_remove(at);
            let name = space.lookup(function.address).unwrap().name.to_owned();
            assert!(name.starts_with("slot"));
            self.note(function, (name, code));
        }
    }

    fn link(&mut self, space: &CodeSpace, shapes: &[(usize, u32)]) {
        let mut image = Vec::new();
        let codes: Vec<_> = shapes.iter().map(|&(len, _)| self.next(len)).collect();
        for ((name, code), &(_, log2)) in codes.iter().zip(shapes) {
            image.push(Item {
                align: align(log2),
                ..Item::new(name, code.clone())
            });
        }
        let functions = space.link(&image, None).unwrap();
        for ((function, code), &(len, log2)) in functions.into_iter().zip(codes).zip(shapes) {
            self.take(function.address, len, align(log2));
            self.note(function, code);
        }
    }

    fn check(&self, space: &CodeSpace) {
        let names: BTreeMap<_, _> = space.symbols().map(|s| (s.address, s.name)).collect();
        let mine = self
            .published
            .iter()
            .map(|(&at, (name, _))| (at, name.as_str()));
        assert_eq!(names, mine.collect());
        for region in space.regions() {
            self.check_region(space, region.mapping().address(), region.mapping().len());
        }
        self.check_stats(space);
    }

    /// Each lookup, and each byte of a page that has code: others can't be read.
    fn check_region(&self, space: &CodeSpace, base: usize, len: usize) {
        for offset in 0..len {
            let address = base + offset;
            let here = self.function_at(address);
            let found = space
                .lookup(address)
                .map(|symbol| (symbol.address, symbol.name));
            assert_eq!(found, here.map(|(start, name, _)| (start, name)));
            assert!(offset >= LEAD || here.is_none());
            if self.has_code(address / PAGE * PAGE) {
                let expected = here.map_or(0xcc, |(start, _, code)| code[address - start]);
                let byte = std::ptr::with_exposed_provenance::<u8>(address);
                // SAFETY: the page has code, so it is mapped and readable as long
                // as `space` lives.
                assert_eq!(unsafe { byte.read_volatile() }, expected);
            }
        }
    }

    fn function_at(&self, address: usize) -> Option<(usize, &str, &[u8])> {
        let (&start, (name, code)) = self.published.range(..=address).next_back()?;
        (address - start < code.len()).then_some((start, name, code))
    }

    fn has_code(&self, page: usize) -> bool {
        let before = self.published.range(..page + PAGE).next_back();
        before.is_some_and(|(start, (_, code))| start + code.len() > page)
    }

    fn check_stats(&self, space: &CodeSpace) {
        let stats = space.stats();
        let published: usize = self.published.values().map(|(_, code)| code.len()).sum();
        assert_eq!(
            (stats.functions, stats.published),
            (self.published.len(), published)
        );
        assert_eq!(
            stats.reserved,
            self.open.iter().map(|slot| slot.len).sum::<usize>()
        );
        let sum = stats.published + stats.reserved + stats.wasted + stats.free;
        assert_eq!(
            (stats.capacity, stats.regions),
            (sum, space.regions().count())
        );
    }
}

pub fn the_code_space_is_its_shadow(backend: Backend) {
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let run = |(calls, together): (Vec<Call>, bool)| {
        let options = SpaceOptions {
            together,
            region: RegionOptions::from(REGION),
            ..Default::default()
        };
        let space = jit(backend).space(options).unwrap();
        let mut shadow = Shadow::default();
        for call in &calls {
            shadow.call(&space, call);
        }
        shadow.check(&space);
        Ok(())
    };
    let result = TestRunner::new(config).run(&(calls(), any::<bool>()), run);
    assert!(result.is_ok(), "{}", result.unwrap_err());
}
