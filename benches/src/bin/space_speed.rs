// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a code space costs on top of a region: 100,000 functions of 61 bytes.
//!
//! ```text
//! cargo run --release -p jitfd-bench --bin space_speed
//! ```

use jitfd::space::{Item, Request, SpaceOptions};
use jitfd::{Align, Chunk, CodeSpace, Error, Fallback, Jit, Region, Rules, validate};
use std::time::Instant;

const COUNT: usize = 100_000;
const BATCH: usize = 1000;
const CAPACITY: usize = 64 << 20;

fn main() -> Result<(), Error> {
    let code: Vec<u8> = [vec![0x90; 60], vec![0xc3]].concat();
    let chunk = validate(&code, &Rules::new())?;
    let region = region()?;
    println!("over {}, nanoseconds for each function", region.backend());
    timed("Region::publish", COUNT, || {
        region.publish(&chunk).map(drop)
    })?;
    let region = self::region()?;
    timed("Region::reserve, fill", COUNT, || fill(&region, &chunk))?;
    let space = space()?;
    timed("publish", COUNT, || space.publish("f", &chunk).map(drop))?;
    timed("lookup", COUNT, lookups(&space))?;
    let space = self::space()?;
    let request = Request {
        name: "f",
        ..Request::new(code.len())
    };
    let emit = || {
        space
            .publish_with(&request, |_| Ok::<_, Error>(chunk.clone()))
            .map(drop)
    };
    timed("emit", COUNT, emit)?;
    let batch = vec![("f", &chunk); BATCH];
    timed("publish_all", COUNT / BATCH, || {
        space.publish_all(&batch).map(drop)
    })?;
    let mut image = Vec::new();
    for _ in 0..BATCH {
        image.push(Item::new("f", code.clone()));
    }
    timed("link, validation included", COUNT / BATCH, || {
        space.link(&image, None).map(drop)
    })
}

fn region() -> Result<Region, Error> {
    Jit::open(Fallback::Any)?.region(CAPACITY)
}

fn space() -> Result<CodeSpace, Error> {
    Jit::open(Fallback::Any)?.space(SpaceOptions::default())
}

fn fill(region: &Region, chunk: &Chunk) -> Result<(), Error> {
    let place = region.reserve(chunk.len(), Align::FUNCTION)?;
    region.fill(&place, chunk).map(drop)
}

/// Looks up another function at each call, in no order that caches would like.
fn lookups(space: &CodeSpace) -> impl FnMut() -> Result<(), Error> {
    let all: Vec<usize> = space.symbols().map(|symbol| symbol.address).collect();
    let mut next = 0;
    move || {
        next = (next + 7919) % all.len();
        let found = space.lookup(all[next] + 3);
        found
            .map(drop)
            .ok_or(Error::Argument("every function is found"))
    }
}

/// Does `work` so often that `COUNT` functions were worked on.
fn timed(
    what: &str,
    times: usize,
    mut work: impl FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let start = Instant::now();
    for _ in 0..times {
        work()?;
    }
    let each = start.elapsed().as_nanos() / COUNT as u128;
    println!("{what:26} {each:6}");
    Ok(())
}
