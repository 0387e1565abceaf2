// SPDX-License-Identifier: MIT OR Apache-2.0

//! A growing region: a function that calls another one, which is emitted and
//! filled in later at an address that was reserved before.

use jitfd::{Align, Chunk, Error, Fallback, Jit, Published, Region, Rules, validate};

type Function = extern "C" fn(i32) -> i32;

fn main() -> Result<(), Error> {
    let region = Jit::open(Fallback::Any)?.region(1 << 20)?;
    let callee = region.reserve(64, Align::FUNCTION)?;
    let caller = region.publish_with(Align::FUNCTION, |address| call(address, callee.address))?;

    // lea eax, [rdi + rdi]; ret
    let doubled = validate(&[0x8d, 0x04, 0x3f, 0xc3], &Rules::new())?;
    region.fill(&callee, &doubled)?;

    println!(
        "caller at {:#x}, callee at {:#x}",
        caller.address, callee.address
    );
    println!("caller(21) = {}", run(&region, caller, 21)?);
    println!("{:#?}", region.stats()?);
    region.append_handle().seal()
}

/// sub rsp, 8; call target; add rsp, 8; ret: made for `address`.
fn call(address: usize, target: usize) -> Result<Chunk, Error> {
    let behind_call = address.wrapping_add(9);
    let distance = i32::try_from(target as i64 - behind_call as i64)
        .map_err(|_| Error::Argument("the callee is too far away"))?;
    let mut code = vec![0x48, 0x83, 0xec, 8, 0xe8];
    code.extend(distance.to_le_bytes());
    code.extend([0x48, 0x83, 0xc4, 8, 0xc3]);
    Ok(validate(&code, &Rules::new())?)
}

fn run(region: &Region, function: Published, argument: i32) -> Result<i32, Error> {
    // SAFETY: both functions above have this type, and `region` outlives the
    // call.
    let function = unsafe { region.entry::<Function>(function)? };
    Ok(function(argument))
}
