// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random calls, each compared with what a naive model of a region says.

use super::{create, jit, read};
use jitfd::internal::publish_all_at;
use jitfd::{Align, Backend, Chunk, Error, Kind, Region, Rules, validate};

const CAPACITY: usize = 8 * 4096;

/// What a byte of the region is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Byte {
    Free,
    /// Set aside by the reservation of this number.
    Reserved(usize),
    Code(u8),
}

struct Model {
    bytes: Vec<Byte>,
    cursor: usize,
    reservations: usize,
}

impl Model {
    fn append(&mut self, chunks: &[&Chunk], expect: Option<usize>) -> Result<Vec<usize>, i32> {
        let mut end = self.cursor;
        let mut offsets = Vec::new();
        for chunk in chunks {
            let offset = end.next_multiple_of(chunk.align().bytes());
            offsets.push(offset);
            end = offset + chunk.len();
        }
        if end > CAPACITY {
            return Err(libc::ENOSPC);
        }
        if expect.is_some_and(|expect| expect != offsets[0]) {
            return Err(libc::ESTALE);
        }
        for (chunk, &offset) in chunks.iter().zip(&offsets) {
            self.put(offset, chunk);
        }
        self.cursor = end;
        Ok(offsets)
    }

    fn put(&mut self, offset: usize, chunk: &Chunk) {
        for (at, &byte) in chunk.bytes().iter().enumerate() {
            self.bytes[offset + at] = Byte::Code(byte);
        }
    }

    fn reserve(&mut self, len: usize, align: Align) -> Result<usize, i32> {
        let offset = self.cursor.next_multiple_of(align.bytes());
        if offset + len > CAPACITY {
            return Err(libc::ENOSPC);
        }
        self.bytes[offset..offset + len].fill(Byte::Reserved(self.reservations));
        self.reservations += 1;
        self.cursor = offset + len;
        Ok(offset)
    }

    /// A filled part splits its range, so what is behind it is another one.
    fn fill(&mut self, offset: usize, chunk: &Chunk) -> Result<(), i32> {
        let range = self.bytes.get(offset..offset + chunk.len());
        let range = range.ok_or(libc::EEXIST)?;
        let all = range.iter().all(|&byte| byte == range[0]);
        if !all || !matches!(range[0], Byte::Reserved(_)) {
            return Err(libc::EEXIST);
        }
        self.put(offset, chunk);
        Ok(())
    }

    /// The bytes of the pages that have code, with the pages' offsets.
    fn pages(&self) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
        let code = |byte: &Byte| matches!(byte, Byte::Code(_));
        let seen = |byte: &Byte| match byte {
            Byte::Code(byte) => *byte,
            _ => 0xcc,
        };
        self.bytes
            .chunks(4096)
            .enumerate()
            .filter(move |(_, page)| page.iter().any(code))
            .map(move |(index, page)| (index * 4096, page.iter().map(seen).collect()))
    }
}

/// Random numbers, the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn chunk(&mut self) -> Chunk {
        let longest = if self.below(8) == 0 { 6000 } else { 60 };
        let len = 1 + self.below(longest);
        // One-byte instructions that differ.
        let bytes: Vec<u8> = (0..len)
            .map(|_| [0x90, 0x50, 0x58, 0xc3][self.below(4)])
            .collect();
        let data = if self.below(6) == 0 { Some(0..1) } else { None };
        let options = data.into_iter().fold(Rules::new(), Rules::data);
        let chunk = validate(&bytes, &options).unwrap();
        chunk.aligned(Align::new(1 << self.below(8)).unwrap())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(got: Result<T, Error>, wanted: Result<T, i32>) {
    assert_eq!(got.map_err(|error| error.errno()), wanted);
}

fn step(random: &mut Random, region: &Region, model: &mut Model) {
    let append = region.append_handle();
    match random.below(4) {
        0 => {
            let chunks: Vec<_> = (0..=random.below(3)).map(|_| random.chunk()).collect();
            let chunks: Vec<_> = chunks.iter().collect();
            let expect = (random.below(3) == 0).then(|| random.below(2 * model.cursor + 1));
            same(
                publish_all_at(append, &chunks, expect),
                model.append(&chunks, expect),
            );
        }
        1 => {
            let len = 1 + random.below(3000);
            let align = Align::new(1 << random.below(13)).unwrap();
            same(append.reserve(len, align), model.reserve(len, align));
        }
        _ => {
            let (offset, chunk) = (random.below(model.cursor + 100), random.chunk());
            same(append.fill(offset, &chunk), model.fill(offset, &chunk));
        }
    }
}

fn compare(region: &Region, model: &Model) {
    assert_eq!(region.stats().unwrap().cursor, model.cursor);
    for (offset, page) in model.pages() {
        assert!(read(region, offset, 4096) == page, "page at {offset:#x}");
    }
}

pub fn random_calls_do_what_a_model_does(backend: Backend) {
    for seed in 1..=30 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let region = create(backend, CAPACITY);
        let mut model = Model {
            bytes: vec![Byte::Free; CAPACITY],
            cursor: 0,
            reservations: 0,
        };
        for _ in 0..80 {
            step(&mut random, &region, &mut model);
            if random.below(10) == 0 {
                compare(&region, &model);
            }
        }
        compare(&region, &model);
        region.append_handle().seal().unwrap();
        let refused = region.publish(&random.chunk()).unwrap_err();
        assert!(matches!(refused.kind(), Some(Kind::Sealed | Kind::Full)));
    }
    assert!(jit(backend).region(CAPACITY).is_ok());
}
