// SPDX-License-Identifier: MIT OR Apache-2.0

//! The validator against its shadow, on random bytes and on real code: whole,
//! cut, and damaged.

mod support;

use jitfd_code::{Reason, Rules, validate};
use proptest::{collection::vec, prelude::*};
use std::ops::Range;
use support::{Verdict, judge, text_of};

const LIBC: [&str; 2] = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
const LS: [&str; 2] = ["/bin/ls", "/usr/bin/ls"];

/// A failure is printed in full and not kept in a file: the tree stays clean.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Validator and shadow say the same, down to the start of each instruction.
fn agree(code: &[u8], data: &[Range<usize>]) -> Result<(), TestCaseError> {
    let options = Rules::new().allow_lock_skips();
    let options = data.iter().cloned().fold(options, Rules::data);
    match (validate(code, &options), judge(code, data)) {
        (Ok(chunk), Verdict::Accepted(starts, skips)) => {
            prop_assert_eq!(chunk.bytes(), code);
            let found = (0..code.len()).filter(|&at| chunk.is_boundary(at));
            prop_assert!(found.eq(starts), "other starts in {code:02x?}");
            prop_assert!(chunk.lock_skips().iter().copied().eq(skips));
        }
        (Err(_), Verdict::Refused) => {}
        (Err(_), _) if code.is_empty() => {}
        (result, verdict) => {
            return Err(TestCaseError::fail(format!(
                "{result:?}, {verdict:?}: {code:02x?}"
            )));
        }
    }
    Ok(())
}

/// Ascending ranges that do not touch, in `len` bytes, from random cuts.
fn ranges(mut cuts: Vec<usize>, len: usize) -> Vec<Range<usize>> {
    cuts.iter_mut().for_each(|cut| *cut %= len + 1);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]).collect()
}

/// Bytes that make branches and prefixes more likely than chance does.
fn byte() -> impl Strategy<Value = u8> {
    let likely: Vec<u8> = vec![
        0x90, 0xc3, 0xeb, 0x74, 0xe8, 0x00, 0xff, 0xf0, 0x66, 0x48, 0x0f, 0x83, 0x01, 0xfe,
    ];
    prop_oneof![2 => prop::sample::select(likely), 1 => any::<u8>()]
}

/// A chunk of whole instructions, most of them short, with branches to anywhere
/// near.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<Vec<u8>> = vec![
        vec![0x90],
        vec![0xc3],
        vec![0x48, 0x89, 0xc3],
        vec![0xf0, 0x48, 0x0f, 0xb1, 0x0b],
        vec![0xf0, 0xff, 0x07],
        vec![0x8b, 0x84, 0x24, 0x80, 0, 0, 0],
        vec![0xc5, 0xf8, 0x77],
    ];
    let one = prop_oneof![
        3 => prop::sample::select(fixed),
        1 => any::<i8>().prop_map(|to| vec![0xeb, (to / 4) as u8]),
        1 => any::<i8>().prop_map(|to| [&[0x0f, 0x84][..], &i32::from(to / 4).to_le_bytes()].concat()),
        1 => any::<i8>().prop_map(|to| [&[0xe8][..], &i32::from(to / 2).to_le_bytes()].concat()),
    ];
    vec(one, 1..24).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn random_bytes(code in vec(byte(), 1..64), cuts in vec(any::<usize>(), 0..5)) {
        let data = ranges(cuts, code.len());
        agree(&code, &data)?;
    }

    #[test]
    fn whole_instructions(code in instructions(), cuts in vec(any::<usize>(), 0..3)) {
        agree(&code, &[])?;
        let data = ranges(cuts, code.len());
        agree(&code, &data)?;
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn pieces_of_real_code(from in any::<usize>(), len in 1_usize..4000) {
        let text = text_of(&LIBC).unwrap();
        let from = from % text.len();
        agree(&text[from..text.len().min(from + len)], &[])?;
    }

    #[test]
    fn damaged_code(from in any::<usize>(), hits in vec((any::<usize>(), any::<u8>()), 1..4)) {
        let text = text_of(&LS).unwrap();
        let from = from % text.len();
        let mut code = text[from..text.len().min(from + 1000)].to_vec();
        for (at, value) in hits {
            let at = at % code.len();
            code[at] = value;
        }
        agree(&code, &[])?;
    }
}

#[test]
fn whole_programs() {
    for paths in [&LIBC, &LS] {
        let Some(text) = text_of(paths) else {
            eprintln!("SKIP {paths:?}: not on this host");
            continue;
        };
        agree(&text, &[]).unwrap();
    }
}

#[test]
fn glibc_skips_lock_prefixes() {
    let Some(text) = text_of(&LIBC) else {
        eprintln!("SKIP: no glibc on this host");
        return;
    };
    let tolerated = Rules::new().allow_lock_skips();
    let chunk = validate(&text, &tolerated).unwrap();
    let error = validate(&text, &Rules::new()).map(|_| ()).unwrap_err();
    let first = chunk.lock_skips()[0];
    assert_eq!(error.reason, Reason::SkipsLock { target: first });
}

#[track_caller]
fn refused(code: &[u8], options: Rules) -> (usize, Reason) {
    let error = validate(code, &options).map(|_| ()).unwrap_err();
    (error.offset, error.reason)
}

#[test]
fn each_reason_and_its_place() {
    let none = Rules::new;
    assert_eq!(refused(&[], none()), (0, Reason::Empty));
    assert_eq!(refused(&[0x90, 0x06], none()), (1, Reason::Invalid));
    assert_eq!(refused(&[0x90, 0xe8, 0], none()), (1, Reason::Truncated));
    let runs = Reason::RunsIntoData { data: 2 };
    assert_eq!(
        refused(&[0x90, 0xb0, 0, 0xc3], none().data(2..3)),
        (1, runs)
    );
    let into = Reason::IntoInstruction {
        target: 3,
        start: 2,
    };
    assert_eq!(refused(&[0xeb, 1, 0xb0, 0x90], none()), (0, into));
    let lock = Reason::SkipsLock { target: 3 };
    assert_eq!(refused(&[0x74, 1, 0xf0, 0xff, 0x07], none()), (0, lock));
    let data = Reason::IntoData { target: 2 };
    assert_eq!(refused(&[0xeb, 0, 0x90], none().data(2..3)), (0, data));
    assert_eq!(
        refused(&[0x66, 0xe9, 0, 0, 0, 0], none()),
        (0, Reason::VendorDependent)
    );
    assert_eq!(
        refused(&[0x66, 0x70, 0], none()),
        (0, Reason::VendorDependent)
    );
    // jmp rax; call [rax]; ret; ret 8
    for code in [
        &[0x66, 0xff, 0xe0][..],
        &[0x66, 0xff, 0x10],
        &[0x66, 0xc3],
        &[0x66, 0xc2, 8, 0],
    ] {
        assert_eq!(refused(code, none()), (0, Reason::VendorDependent));
    }
}

/// What both makers' manuals agree on: iced-x86 decodes by either.
#[test]
fn what_is_accepted_means_the_same_to_both_makers() {
    use iced_x86::{Code, Decoder, DecoderOptions};
    // Undefined either way; or only the size of a far pointer differs.
    const KNOWN: [Code; 8] = [
        Code::Ud0_r16_rm16,
        Code::Ud0_r32_rm32,
        Code::Ud0_r64_rm64,
        Code::Call_m1664,
        Code::Jmp_m1664,
        Code::Lfs_r64_m1664,
        Code::Lgs_r64_m1664,
        Code::Lss_r64_m1664,
    ];
    let prefixes: [&[u8]; 10] = [
        &[],
        &[0x48],
        &[0x66],
        &[0x66, 0x40],
        &[0x66, 0x48],
        &[0x66, 0x67],
        &[0x66, 0xf2],
        &[0xf0],
        &[0xf2],
        &[0xf3],
    ];
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    let mut accepted = 0;
    for (prefix, map) in prefixes.iter().flat_map(|p| maps.map(|map| (p, map))) {
        for [opcode, modrm] in (0..=u16::MAX).map(u16::to_le_bytes) {
            let code = [*prefix, map, &[opcode, modrm], &[0x11; 12]].concat();
            let decode = |options| Decoder::new(64, &code, options).decode();
            let (intel, amd) = (decode(DecoderOptions::NONE), decode(DecoderOptions::AMD));
            let known = intel.is_invalid() || KNOWN.contains(&intel.code());
            if known || validate(&code[..intel.len()], &Rules::new()).is_err() {
                continue;
            }
            accepted += 1;
            assert_eq!(
                (intel.code(), intel.len()),
                (amd.code(), amd.len()),
                "{code:x?}"
            );
        }
    }
    assert!(accepted > 100_000, "{accepted}");
}

#[test]
fn bad_data_ranges() {
    let bad = |range: Range<usize>| Reason::DataRange { range, len: 2 };
    for range in [0..0, 1..3, 5..6, 0..usize::MAX, usize::MAX - 1..usize::MAX] {
        assert_eq!(
            refused(&[0x90, 0xc3], Rules::new().data(range.clone())),
            (0, bad(range))
        );
    }
    let reversed = Range { start: 2, end: 1 };
    assert_eq!(
        refused(&[0x90, 0xc3], Rules::new().data(reversed.clone())),
        (0, bad(reversed))
    );
}

#[test]
fn data_ranges_in_any_order_may_overlap() {
    let options = Rules::new().data(3..5).data(1..2).data(4..6);
    let chunk = validate(&[0x90, 0x06, 0x90, 0x06, 0x06, 0x06], &options).unwrap();
    assert!((0..8).filter(|&at| chunk.is_boundary(at)).eq([0, 2]));
}

#[test]
fn branches_may_leave_the_chunk() {
    // To the byte behind it, far before it, and far behind it.
    for code in [[0xeb, 0x00], [0xeb, 0x80], [0xeb, 0x7f]] {
        assert!(validate(&code, &Rules::new()).is_ok());
    }
}

#[test]
fn wide_branches_with_an_operand_size_prefix_are_the_same_everywhere() {
    // data16 data16 rex.W call: what compilers emit for __tls_get_addr.
    assert!(validate(&[0x66, 0x66, 0x48, 0xe8, 0, 0, 0, 0], &Rules::new()).is_ok());
}

#[test]
fn the_text_of_an_error_is_complete() {
    let error = validate(&[0x90, 0xeb, 0xfd, 0xeb, 0xfd], &Rules::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "offset 0x3: eb fd (jmp 2h): the branch goes to 0x2, into the instruction at 0x1; \
         fix the branch's displacement; was it patched?"
    );
}
