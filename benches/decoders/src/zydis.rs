// SPDX-License-Identifier: GPL-2.0

//! Zydis, built and run in its minimal mode: all that the check needs.

use crate::Sample;
use crate::ledger::{Decoded, Ledger};
use zydis::{Decoder, DecoderMode, NoOperands};

pub fn check(sample: &Sample) -> Option<usize> {
    let mut decoder = Decoder::new64();
    decoder.enable_mode(DecoderMode::MINIMAL, true).ok()?;
    Ledger::check(sample, |bytes| {
        let instruction = decoder.decode_first::<NoOperands>(bytes).ok()??;
        let immediate = &instruction.raw.imm[0];
        Some(Decoded {
            len: instruction.length.into(),
            displacement: immediate.is_relative.then_some(immediate.value as i64),
        })
    })
}
