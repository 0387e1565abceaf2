// SPDX-License-Identifier: MIT OR Apache-2.0

//! The validator against a decoder that shares nothing with it, yaxpeax-x86:
//! where instructions of real code start, how long they are, and which bytes are
//! none. Whatever the two disagree about must be in [`KNOWN`], with the reason;
//! anything else fails.
//!
//! The ordinary tests take a sample. All of every large program that is here:
//!
//! ```text
//! cargo test --release -p jitfd --test crosscheck -- --ignored --nocapture
//! ```

mod support;

use iced_x86::{Code, DecoderOptions, Instruction};
use jitfd_code::{Reason, Rules, validate};
use std::collections::BTreeMap;
use support::{length, programs, text_of};
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::long_mode::{DecodeError, InstDecoder};

/// The two verdicts about the bytes from one offset on.
struct Case<'a> {
    bytes: &'a [u8],
    ours: Option<usize>,
    theirs: Result<usize, DecodeError>,
}

impl Case<'_> {
    fn agrees(&self) -> bool {
        self.ours == self.theirs.as_ref().ok().copied()
    }

    fn instruction(&self) -> Instruction {
        iced_x86::Decoder::new(64, self.bytes, DecoderOptions::NONE).decode()
    }

    /// Only we accept it.
    fn is_ours(&self) -> bool {
        self.ours.is_some() && self.theirs.is_err()
    }

    /// Only the other decoder accepts it.
    fn is_theirs(&self) -> bool {
        self.ours.is_none() && self.theirs.is_ok()
    }

    /// The bytes behind all prefixes, and those prefixes.
    fn opcode(&self) -> (&[u8], &[u8]) {
        let is_prefix = |byte: &&u8| PREFIXES.contains(byte) || **byte & 0xf0 == 0x40;
        let count = self.bytes.iter().take_while(is_prefix).count();
        let (prefixes, rest) = self.bytes.split_at(count);
        (rest, prefixes)
    }

    fn is_rex_r(&self) -> bool {
        self.opcode()
            .1
            .last()
            .is_some_and(|last| last & 0xf4 == 0x44)
    }

    fn has_repeated_rex(&self) -> bool {
        let prefixes = self.opcode().1;
        let rex = |byte: u8| byte & 0xf0 == 0x40;
        prefixes.windows(2).any(|pair| rex(pair[0]) && rex(pair[1]))
    }
}

const PREFIXES: [u8; 11] = [
    0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3,
];

/// A class of disagreements.
struct Known {
    name: &'static str,
    why: &'static str,
    holds: fn(&Case<'_>) -> bool,
}

/// Every class that was found, and who is right.
const KNOWN: &[Known] = &[
    Known {
        name: "VEX",
        why: "instructions that yaxpeax 2.2 does not know, or not in all forms: on the registers \
              k0 to k7 (in glibc, LLVM), AMD's FMA4 (in libm) and VPERMIL2, CMPccXADD, AVX-IFMA, \
              AVX-VNNI, wide VPCLMULQDQ; the makers' manuals have them, so we accept them",
        holds: |case| {
            let names = [
                "K", "Vfm", "Vfnm", "Vpermil2", "Cmp", "Vpmadd52", "Vpdp", "Vpclmul",
            ];
            case.is_ours() && is_one_of(case, "VEX_", &names)
        },
    },
    Known {
        name: "EVEX",
        why: "instructions of AVX-512 that yaxpeax 2.2 does not know, or not in all forms: shifts \
              by a constant, gathers, half precision; the manual has them, so we accept them",
        holds: |case| {
            let names = ["Vpsl", "Vpsr", "Vgather", "Vpgather"];
            case.is_ours() && (is_one_of(case, "EVEX_", &names) || is_half_precision(case))
        },
    },
    Known {
        name: "XOP",
        why: "AMD's XOP instructions: yaxpeax 2.2 says itself that it does not know them",
        holds: |case| case.is_ours() && case.theirs == Err(DecodeError::IncompleteDecoder),
    },
    Known {
        name: "repeated REX",
        why: "of several REX prefixes in a row processors take the last, and so do we; yaxpeax \
              refuses most of these",
        holds: |case| case.is_ours() && case.has_repeated_rex(),
    },
    Known {
        name: "REX.R and segment registers",
        why: "mov from and to a segment register ignores REX.R (Intel's manual, 2.2.1.2); \
              yaxpeax takes it for a register that does not exist",
        holds: |case| {
            case.is_ours() && matches!(case.opcode().0[0], 0x8c | 0x8e) && case.is_rex_r()
        },
    },
    Known {
        name: "newer instructions",
        why: "LKGS, PBNDKB, SERIALIZE, WRMSRNS: newer than yaxpeax 2.2",
        holds: |case| {
            case.is_ours() && is_one_of(case, "", &["Lkgs", "Pbndkb", "Serialize", "Wrmsrns"])
        },
    },
    Known {
        name: "VIA PadLock",
        why: "VIA's instructions, in libcrypto: yaxpeax 2.2 does not know them; on other \
              processors they fault",
        holds: |case| {
            case.is_ours() && is_one_of(case, "", &["Xcrypt", "Xsha", "Xstore", "Montmul"])
        },
    },
    Known {
        name: "0F 0D with a register",
        why: "a reserved NOP, which executes as one; yaxpeax knows it with memory only",
        holds: |case| case.is_ours() && name(case).starts_with("Reservednop"),
    },
    Known {
        name: "prefix before VEX, EVEX or XOP",
        why: "66, F2, F3, F0 and REX before these fault (Intel's manual, 2.3.2 to 2.3.5), and we \
              refuse; yaxpeax accepts some",
        holds: |case| {
            let (opcode, prefixes) = case.opcode();
            let faults = |byte: &u8| matches!(byte, 0x66 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f);
            let vector = matches!(opcode[0], 0x62 | 0x8f | 0xc4 | 0xc5);
            case.is_theirs() && vector && prefixes.iter().any(faults)
        },
    },
    Known {
        name: "operands of VEX and EVEX",
        why: "a second source where there is none (vvvv is not 1111), and a gather whose registers \
              are not all different: processors fault, and we refuse; yaxpeax does not look",
        holds: |case| {
            let opcode = case.opcode().0;
            let (vvvv, gather) = match opcode {
                [0xc5, byte, ..] => (byte, false),
                [0xc4, _, byte, op, ..] => (byte, matches!(op, 0x90..=0x93)),
                [0x62, _, byte, ..] => (byte, false),
                _ => return false,
            };
            case.is_theirs() && (vvvv & 0x78 != 0x78 || gather)
        },
    },
    Known {
        name: "C6 and C7 with ModRM.reg not 0",
        why: "undefined (Intel's manual, table A-6, group 11): processors fault, and we refuse; \
              yaxpeax does not look at ModRM.reg and says mov",
        holds: |case| {
            let opcode = case.opcode().0;
            case.is_theirs() && matches!(opcode[0], 0xc6 | 0xc7) && opcode[1] & 0x38 != 0
        },
    },
];

/// Whether what we accept is called `family`, and then any of `names`.
fn is_one_of(case: &Case<'_>, family: &str, names: &[&str]) -> bool {
    let name = name(case);
    let rest = name.strip_prefix(family);
    rest.is_some_and(|rest| names.iter().any(|name| rest.starts_with(name)))
}

/// EVEX_Vaddph_xmm... and the like.
fn is_half_precision(case: &Case<'_>) -> bool {
    let name = name(case);
    let mut parts = name.split('_');
    let mnemonic = parts.nth(1).unwrap_or_default();
    name.starts_with("EVEX") && (mnemonic.ends_with("ph") || mnemonic.ends_with("sh"))
}

fn name(case: &Case<'_>) -> String {
    match case.instruction().code() {
        Code::INVALID => String::new(),
        code => format!("{code:?}"),
    }
}

/// What was compared, and what came of it.
#[derive(Default)]
struct Tally {
    compared: usize,
    known: BTreeMap<&'static str, usize>,
    /// By what we call it and what the other decoder says: how often, and the
    /// first one.
    unexplained: BTreeMap<String, (usize, String)>,
}

impl Tally {
    fn add(&mut self, case: &Case<'_>, at: usize) {
        self.compared += 1;
        if case.agrees() {
            return;
        }
        match KNOWN.iter().find(|known| (known.holds)(case)) {
            Some(known) => *self.known.entry(known.name).or_default() += 1,
            None => self.unexplained(case, at),
        }
    }

    fn unexplained(&mut self, case: &Case<'_>, at: usize) {
        let (opcode, theirs) = (case.opcode().0, &case.theirs);
        let class = match case.instruction().code() {
            Code::INVALID => format!("{:02x?}, yaxpeax {theirs:?}", opcode.get(..4)),
            code => format!("{code:?}, yaxpeax {theirs:?}"),
        };
        let first = || format!("at {at:#x}: {:02x?}, we say {:?}", case.bytes, case.ours);
        let entry = self.unexplained.entry(class);
        entry.or_insert_with(|| (0, first())).0 += 1;
    }

    /// Prints the table, and fails if anything is not explained.
    fn judge(self, what: &str) {
        println!("{what}: {} compared", self.compared);
        for known in KNOWN {
            let count = self.known.get(known.name).unwrap_or(&0);
            println!("  {count:>8}  {}: {}", known.name, known.why);
        }
        assert!(self.unexplained.is_empty(), "{:#?}", self.unexplained);
    }
}

fn theirs(bytes: &[u8]) -> Result<usize, DecodeError> {
    let instruction = InstDecoder::default().decode_slice(bytes)?;
    Ok(usize::try_from(instruction.len().to_const()).unwrap())
}

/// At most the 15 bytes that an instruction can have.
fn window(text: &[u8], at: usize) -> &[u8] {
    &text[at..text.len().min(at + 15)]
}

/// Each instruction that the validator has found in `text`, if it accepts that.
fn instructions(text: &[u8], tally: &mut Tally) -> bool {
    let rules = Rules::new().allow_lock_skips();
    let chunk = match validate(text, &rules) {
        Ok(chunk) => chunk,
        Err(error) => {
            println!("  refused: {error}");
            return false;
        }
    };
    let mut at = 0;
    while at < text.len() {
        let next = (at + 1..text.len()).find(|&next| chunk.is_boundary(next));
        let next = next.unwrap_or(text.len());
        let bytes = window(text, at);
        let case = Case {
            bytes,
            ours: Some(next - at),
            theirs: theirs(bytes),
        };
        tally.add(&case, at);
        at = next;
    }
    true
}

/// From each byte on, whether an instruction starts there or not.
fn every_offset(text: &[u8], tally: &mut Tally) {
    for at in 0..text.len() {
        let bytes = window(text, at);
        let (ours, theirs) = (first(bytes), theirs(bytes));
        tally.add(
            &Case {
                bytes,
                ours,
                theirs,
            },
            at,
        );
    }
}

/// The length of the first instruction of `bytes`, by the validator.
fn first(bytes: &[u8]) -> Option<usize> {
    match validate(bytes, &Rules::new()) {
        Ok(chunk) => (1..bytes.len())
            .find(|&at| chunk.is_boundary(at))
            .or(Some(bytes.len())),
        Err(error) => {
            let none = matches!(error.reason, Reason::Invalid | Reason::Truncated);
            // Else something behind it is at fault, or where it branches to.
            if none && error.offset == 0 {
                None
            } else {
                length(bytes)
            }
        }
    }
}

const LIBC: [&str; 2] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];

#[test]
fn instructions_of_glibc() {
    let Some(text) = text_of(&LIBC) else {
        eprintln!("SKIP: no glibc on this host");
        return;
    };
    let mut tally = Tally::default();
    assert!(instructions(&text, &mut tally));
    assert!(tally.compared > 100_000);
    tally.judge("instructions of glibc");
}

#[test]
fn offsets_in_glibc() {
    let Some(text) = text_of(&LIBC) else {
        eprintln!("SKIP: no glibc on this host");
        return;
    };
    let mut tally = Tally::default();
    let from = text.len() / 2;
    every_offset(&text[from..from + 200_000], &mut tally);
    tally.judge("offsets in glibc");
}

#[test]
#[ignore = "takes a minute: every large program of this host"]
fn instructions_of_all_programs() {
    let (mut tally, mut refused) = (Tally::default(), Vec::new());
    for (path, text) in programs(usize::MAX) {
        let before = tally.compared;
        if instructions(&text, &mut tally) {
            println!(
                "{:>10} instructions of {}",
                tally.compared - before,
                path.display()
            );
        } else {
            refused.push(path);
        }
    }
    println!("not code throughout, so not compared: {refused:?}");
    tally.judge("instructions");
}

#[test]
#[ignore = "takes minutes: every byte of some programs of this host"]
fn offsets_in_programs() {
    let mut tally = Tally::default();
    for (_, text) in programs(40) {
        let text = text.get(..2 << 20).unwrap_or(&text);
        every_offset(text, &mut tally);
    }
    tally.judge("offsets");
}
