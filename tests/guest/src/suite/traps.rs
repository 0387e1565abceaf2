// SPDX-License-Identifier: GPL-2.0
//! What a program gets when it runs or touches what is no code: the right
//! signal at the right place, every time.

use std::arch::global_asm;
use std::os::fd::AsRawFd;

use super::asm;
use super::calls;
use super::execute::{Trap, breaks_at, call, faults, guarded, trapped};
use super::harness::{Test, tests};
use super::memory::{Mapping, load};
use super::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use super::region::Region;
use super::sys::{self, PAGE};

pub fn tests() -> Vec<Test> {
    tests![
        unpublished_page_raises_sigbus,
        unpublished_page_reads_as_sigbus,
        unpublished_page_becomes_code,
        stores_raise_sigsegv,
        fill_behind_code_is_sigtrap,
        every_byte_of_the_fill_is_sigtrap,
        published_int3_is_sigtrap,
        published_int3_in_a_live_page,
        published_int3_at_the_ends_of_a_page,
        code_goes_on_after_int3,
        two_byte_int_3_is_sigtrap,
        two_byte_int_3_across_pages,
        two_byte_int_3_in_two_publications,
        two_byte_int_3_behind_execute_only_memory,
        int3_between_other_bytes,
        fill_bytes_inside_instructions,
        int3_outside_the_region,
        one_byte_int1_is_sigtrap,
        traps_are_no_fixups,
    ]
}

fn unpublished_page_raises_sigbus() -> Outcome {
    let region = Region::new(3)?;
    region.append(&asm::answer(1))?;
    for offset in [PAGE as u64, PAGE as u64 + 100, 3 * PAGE as u64 - 1] {
        faults("an unpublished page", region.at(offset), libc::SIGBUS)?;
    }
    region.answers(0, 1)
}

/// Loads the byte at `addr` under guard: `mov al, [rdi]` would need an
/// argument, so the code is created with the address in it.
fn touch(addr: usize, store: bool) -> Checked<Result<u64, Trap>> {
    let mut code = vec![0x48, 0xb8];
    code.extend((addr as u64).to_le_bytes());
    code.extend(if store { [0x88, 0x00] } else { [0x8a, 0x00] });
    code.push(0xc3);
    let region = Region::new(1)?;
    let offset = region.append(&code)?;
    guarded(region.at(offset))
}

fn touch_fails(what: &str, addr: usize, store: bool, signal: i32) -> Outcome {
    match touch(addr, store)? {
        Err(trap) => equal(what, (trap.signal, trap.addr), (signal, addr)),
        Ok(_) => failed(format!("{what}: nothing happened")),
    }
}

fn unpublished_page_reads_as_sigbus() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    touch_fails("a load", region.at(PAGE as u64), false, libc::SIGBUS)?;
    holds(
        touch(region.at(0), false)?.is_ok(),
        "published code is read",
    )?;
    holds(touch(region.at(4095), false)?.is_ok(), "its fill is read")
}

/// The entry that a fault did not find may not be remembered.
fn unpublished_page_becomes_code() -> Outcome {
    let region = Region::new(4)?;
    for page in 0..4 {
        let offset = page * PAGE as u64;
        faults("before", region.at(offset), libc::SIGBUS)?;
        touch_fails("a load before", region.at(offset), false, libc::SIGBUS)?;
        region.append(&asm::long_answer(page as u32, PAGE))?;
        region.answers(offset, page as u32)?;
    }
    Ok(())
}

fn stores_raise_sigsegv() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    for offset in [0, 3, 100, PAGE as u64] {
        touch_fails("a store", region.at(offset), true, libc::SIGSEGV)?;
    }
    region.answers(0, 1)?;
    // Also while the entry is cached.
    touch_fails("a store", region.at(0), true, libc::SIGSEGV)?;
    equal("the code", load(region.at(0), 6), asm::answer(1))
}

fn fill_behind_code_is_sigtrap() -> Outcome {
    let region = Region::new(1)?;
    for value in 0..20 {
        let offset = region.append(&asm::answer(value))?;
        let behind = region.at(offset) + 6;
        breaks_at("behind the code", behind, behind + 1)?;
        region.answers(offset, value)?;
    }
    Ok(())
}

fn every_byte_of_the_fill_is_sigtrap() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0xc3])?;
    for offset in 1..PAGE {
        let addr = region.at(offset as u64);
        breaks_at("the fill", addr, addr + 1)?;
    }
    Ok(())
}

/// `SI_KERNEL`: what an int3 that nobody claims gives.
const SI_KERNEL: i32 = 0x80;

fn published_int3_is_sigtrap() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&asm::breakpoint_then(1))?;
    let trap = trapped("int3", region.at(offset))?;
    let wanted = (libc::SIGTRAP, region.at(offset) + 1, SI_KERNEL);
    equal("int3", (trap.signal, trap.ip, trap.code), wanted)
}

fn published_int3_in_a_live_page() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    for _ in 0..50 {
        let offset = region.append(&asm::breakpoint_then(1))?;
        let addr = region.at(offset);
        breaks_at("int3", addr, addr + 1)?;
        breaks_at("int3 again", addr, addr + 1)?;
        region.answers(offset + 1, 1)?;
    }
    Ok(())
}

fn published_int3_at_the_ends_of_a_page() -> Outcome {
    let region = Region::new(2)?;
    let mut code = vec![0x90; 2 * PAGE];
    for offset in [0, PAGE - 1, PAGE, 2 * PAGE - 1] {
        code[offset] = 0xcc;
    }
    region.append(&code)?;
    for offset in [0, PAGE - 1, PAGE, 2 * PAGE - 1] {
        let addr = region.at(offset as u64);
        breaks_at("int3", addr, addr + 1)?;
    }
    Ok(())
}

/// A handler that returns finds the program behind the int3.
fn code_goes_on_after_int3() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&asm::breakpoint_then(17))?;
    extern "C" fn ignore(_: i32) {}
    let handler: extern "C" fn(i32) = ignore;
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGTRAP, handler as libc::sighandler_t) };
    equal("behind the int3", call(region.at(offset)), 17)
}

fn two_byte_int_3_is_sigtrap() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    for _ in 0..50 {
        let offset = region.append(&asm::int_3_then(1))?;
        let addr = region.at(offset);
        breaks_at("CD 03", addr, addr + 2)?;
        breaks_at("CD 03 again", addr, addr + 2)?;
        region.answers(offset + 2, 1)?;
    }
    Ok(())
}

fn two_byte_int_3_across_pages() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    region.skip_to(PAGE as u64 - 1)?;
    let offset = region.append(&asm::int_3_then(2))?;
    let addr = region.at(offset);
    breaks_at("CD 03", addr, addr + 2)?;
    region.answers(offset + 2, 2)
}

fn two_byte_int_3_in_two_publications() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    let offset = region.append(&[0xcd])?;
    region.append(&[0x03])?;
    let addr = region.at(offset);
    breaks_at("CD 03", addr, addr + 2)?;
    // The other way round: the second byte is there first.
    let hole = calls::reserve(region.fd(), 1, 0).or_fail("JIT_RESERVE")?;
    region.append(&[0x03, 0xc3])?;
    breaks_at("the hole", region.at(hole), region.at(hole) + 1)?;
    region.fill(hole, &[0xcd])?;
    breaks_at("CD 03 filled", region.at(hole), region.at(hole) + 2)
}

/// The first byte is in memory of the program's own, before the mapping.
fn two_byte_int_3_behind_execute_only_memory() -> Outcome {
    let region = Region::new(1)?;
    region.append(&[0x03, 0xc3])?;
    let memory = Mapping::anonymous(2)?;
    memory.write(PAGE - 1, &[0xcd]);
    sys::mprotect(memory.addr(), PAGE, libc::PROT_EXEC).or_fail("mprotect")?;
    let (at, flags) = (memory.addr() + PAGE, libc::MAP_SHARED | libc::MAP_FIXED);
    sys::mmap(at, PAGE, sys::RX, flags, region.device.as_raw_fd(), 0).or_fail("mmap")?;
    breaks_at("CD 03", at - 1, at + 1)
}

/// An int3 behind bytes that look like the start of `CD 03`, and before them.
fn int3_between_other_bytes() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&[0xcd, 0xcc, 0x03, 0xcc, 0xcd, 0x03])?;
    let addr = region.at(offset);
    breaks_at("CC behind CD", addr + 1, addr + 2)?;
    breaks_at("CC behind 03", addr + 3, addr + 4)?;
    breaks_at("CD 03", addr + 4, addr + 6)
}

fn fill_bytes_inside_instructions() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(0xcccc_cccc))?;
    region.answers(0, 0xcccc_cccc)?;
    for value in [0xcccc_cccc, 0x03cd_03cd, 0xcd03_cdcc] {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
    }
    Ok(())
}

global_asm!(
    ".global jit_suite_int3",
    "jit_suite_int3:",
    "int3",
    "mov eax, 3",
    "ret",
);

unsafe extern "C" {
    fn jit_suite_int3();
}

fn int3_outside_the_region() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    let function = jit_suite_int3 as unsafe extern "C" fn();
    let addr = function as usize;
    breaks_at("the program's own int3", addr, addr + 1)
}

fn one_byte_int1_is_sigtrap() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&[0xf1, 0xc3])?;
    let addr = region.at(offset);
    breaks_at("int1", addr, addr + 1)
}

fn traps_are_no_fixups() -> Outcome {
    let region = Region::new(1)?;
    let offset = region.append(&asm::breakpoint_then(1))?;
    for _ in 0..100 {
        breaks_at("int3", region.at(offset), region.at(offset) + 1)?;
    }
    equal("fixups", region.stats()?.fixups, 0)
}
