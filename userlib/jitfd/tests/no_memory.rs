// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each allocation of a publication fails once, and once with all that follow it:
//! `ENOMEM` and nothing published, never an abort. Alone in its program, as the
//! allocator is everybody's.

#[path = "support/failing.rs"]
mod failing;

use failing::{Failing, Fails, in_child};
use jitfd::internal::fill_at;
use jitfd::*;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

const CAPACITY: usize = 4 << 20;
const CHUNKS: usize = 1000;

/// What one call may change.
fn state(region: &Region) -> (usize, u64) {
    let stats = region.stats().unwrap();
    (stats.cursor, stats.publications)
}

fn region(backend: Backend, map: bool) -> Region {
    let options = RegionOptions {
        capacity: CAPACITY,
        boundary_map: map,
        ..Default::default()
    };
    let jit = Jit::open(Fallback::Only(backend)).unwrap();
    jit.region(options).unwrap()
}

/// In a region of a forked child, after `before`: the status is 0 if `work` was done,
/// else the number of its error. 100 and above: it was half done.
fn once<T>(
    (backend, map): (Backend, bool),
    fails: Fails,
    before: &impl Fn(&Region) -> T,
    work: &impl Fn(&Region, &T) -> Result<(), Error>,
) -> (Option<i32>, usize) {
    let mut shared = Shared::new();
    let status = in_child(|| {
        let region = region(backend, map);
        let given = before(&region);
        let earlier = state(&region);
        let (done, count) = failing::failing(fails, || work(&region, &given));
        shared.set(count);
        let unchanged = state(&region) == earlier;
        match done {
            Ok(()) if unchanged => 100,
            Ok(()) => 0,
            Err(_) if !unchanged => 101,
            // It is as if nothing had happened.
            Err(error) => work(&region, &given).map_or(102, |()| error.errno()),
        }
    });
    (status, shared.get())
}

/// A number that a child leaves for its parent.
struct Shared(
    std::os::unix::net::UnixStream,
    std::os::unix::net::UnixStream,
);

impl Shared {
    fn new() -> Self {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        Self(here, there)
    }

    fn set(&mut self, number: usize) {
        use std::io::Write;
        let _ = self.1.write_all(&number.to_ne_bytes());
    }

    /// 0 if the child left none.
    fn get(mut self) -> usize {
        use std::io::Read;
        let mut bytes = [0; 8];
        let _ = self.0.read_exact(&mut bytes);
        usize::from_ne_bytes(bytes)
    }
}

/// Every allocation of `work`, with each backend, with and without a map of boundaries.
fn each<T>(before: impl Fn(&Region) -> T, work: impl Fn(&Region, &T) -> Result<(), Error>) {
    set_fallback_hook(|_| {});
    let mut wrong = Vec::new();
    for backend in [Backend::DualMapping, Backend::ProtectFlips] {
        for map in [false, true] {
            let kind = (backend, map);
            let (status, count) = once(kind, Fails::One(usize::MAX), &before, &work);
            assert_eq!(status, Some(0), "with memory");
            for number in 0..count {
                for fails in [Fails::One(number), Fails::From(number)] {
                    let (status, _) = once(kind, fails, &before, &work);
                    if status != Some(libc::ENOMEM) {
                        wrong.push((kind, count, fails, status));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn chunks() -> Vec<Chunk> {
    let chunk = |number: usize| {
        let code = [&[0x90].repeat(number % 40), &[0xc3][..]].concat();
        validate(&code, &Rules::new()).unwrap()
    };
    (0..CHUNKS).map(chunk).collect()
}

#[test]
fn a_batch_is_appended_or_not() {
    let chunks = chunks();
    let refs: Vec<_> = chunks.iter().collect();
    each(
        |_| (),
        |region, ()| {
            let published = region.publish_all(&refs)?;
            let right = published.iter().zip(&chunks).all(|(at, chunk)| {
                let place = std::ptr::with_exposed_provenance::<u8>(at.address);
                // SAFETY: the chunk's code is there, readable.
                let code = unsafe { std::slice::from_raw_parts(place, at.len) };
                code == chunk.bytes()
            });
            if right && published.len() == CHUNKS {
                return Ok(());
            }
            Err(Error::Argument("published elsewhere"))
        },
    );
}

#[test]
fn a_chunk_is_appended_or_not() {
    let chunk = validate(&vec![0x90; 1 << 20], &Rules::new()).unwrap();
    each(|_| (), |region, ()| region.publish(&chunk).map(drop));
}

#[test]
fn a_place_is_reserved_and_filled_or_not() {
    let chunk = validate(&[0x90, 0xc3], &Rules::new()).unwrap();
    let many = |region: &Region| -> Vec<_> {
        let reserve = |_| region.reserve(64, Align::FUNCTION).unwrap();
        (0..256).map(reserve).collect()
    };
    each(many, |region, _| region.reserve(16, Align::NONE).map(drop));
    // In the middle, so that what is open is two ranges then.
    each(many, |region, places| {
        let place = &places[places.len() / 2];
        fill_at(region, place, 16, &chunk).map(drop)
    });
}
