// SPDX-License-Identifier: MIT OR Apache-2.0

//! How fast validation is, compared with an iced-x86 decode loop that does
//! nothing else, over the `.text` of the programs given. Both run by turns in
//! one process, and the best of the rounds counts, so that other load on the
//! machine disturbs neither more than the other.
//!
//! `cargo run --release -p jitfd-bench --bin validation_speed -- /lib/x86_64-linux-gnu/libc.so.6`

use iced_x86::{Decoder, DecoderOptions, Instruction};
use jitfd::{Rules, validate};
use object::{Object, ObjectSection};
use std::{error::Error, hint::black_box, time::Duration, time::Instant};

const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "{:>10} {:>10} {:>10} {:>6}  file",
        "bytes", "bare MB/s", "valid MB/s", "ratio"
    );
    for path in std::env::args().skip(1) {
        compare(&path)?;
    }
    Ok(())
}

fn compare(path: &str) -> Result<(), Box<dyn Error>> {
    let file = std::fs::read(path)?;
    let elf = object::File::parse(&*file)?;
    let text = elf.section_by_name(".text").ok_or("no .text")?.data()?;
    let rules = Rules::new().allow_lock_skips().threads(1);
    if let Err(error) = validate(text, &rules) {
        println!("{path}: refused: {error}");
        return Ok(());
    }
    let (mut bare, mut valid) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        bare = bare.min(time(|| decode(text)));
        valid = valid.min(time(|| {
            validate(text, &rules).map_or(0, |chunk| chunk.len())
        }));
    }
    let speed = |time: Duration| text.len() as f64 / time.as_secs_f64() / 1e6;
    let (bare, valid) = (speed(bare), speed(valid));
    println!(
        "{:>10} {bare:>10.1} {valid:>10.1} {:>6.3}  {path}",
        text.len(),
        valid / bare
    );
    Ok(())
}

fn time(work: impl FnOnce() -> usize) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

/// The bare loop: decodes everything and keeps nothing.
fn decode(code: &[u8]) -> usize {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        black_box(&instruction);
    }
    decoder.position()
}
