// SPDX-License-Identifier: MIT OR Apache-2.0

//! Machine code for a recipe: `extern "C" fn(u64) -> u64`. The argument stays
//! in RDI, the accumulator is RAX, RCX is scratch.

use super::recipe::{Recipe, Step};

/// A callee too far away for a direct call.
#[derive(Debug)]
pub struct TooFar;

/// The code of `recipe` for `place`. `callee` is where the function lies that it
/// calls, if it calls one. Both are offsets: only their distance matters.
pub fn encode(recipe: &Recipe, place: usize, callee: usize) -> Result<Vec<u8>, TooFar> {
    let mut code = vec![0x48, 0xb8]; // mov rax, imm64
    code.extend(recipe.start.to_le_bytes());
    for step in &recipe.steps {
        match *step {
            Step::Call(_) => call(&mut code, place, callee)?,
            step => plain(&mut code, step),
        }
    }
    code.push(0xc3); // ret
    Ok(code)
}

fn plain(code: &mut Vec<u8>, step: Step) {
    match step {
        Step::AddArgument => code.extend([0x48, 0x01, 0xf8]), // add rax, rdi
        Step::XorArgument => code.extend([0x48, 0x31, 0xf8]), // xor rax, rdi
        Step::AddConstant(constant) => {
            code.extend([0x48, 0x05]); // add rax, imm32
            code.extend(constant.to_le_bytes());
        }
        Step::XorConstant(constant) => {
            code.extend([0x48, 0x35]); // xor rax, imm32
            code.extend(constant.to_le_bytes());
        }
        Step::Multiply(factor) => {
            code.extend([0x48, 0xb9]); // mov rcx, imm64
            code.extend(factor.to_le_bytes());
            code.extend([0x48, 0x0f, 0xaf, 0xc1]); // imul rax, rcx
        }
        Step::Rotate(bits) => code.extend([0x48, 0xc1, 0xc0, bits]), // rol rax, imm8
        Step::SwapBytes => code.extend([0x48, 0x0f, 0xc8]),          // bswap rax
        Step::Call(_) => {}
    }
}

/// Saves argument and accumulator, calls with the stack at a multiple of 16, and
/// adds the accumulator to the result.
fn call(code: &mut Vec<u8>, place: usize, callee: usize) -> Result<(), TooFar> {
    code.extend([0x57, 0x50]); // push rdi; push rax
    code.extend([0x48, 0x83, 0xec, 0x08]); // sub rsp, 8
    code.push(0xe8); // call rel32, from the end of the instruction
    let next = place + code.len() + 4;
    let distance = callee.wrapping_sub(next).cast_signed();
    code.extend(i32::try_from(distance).map_err(|_| TooFar)?.to_le_bytes());
    code.extend([0x48, 0x83, 0xc4, 0x08]); // add rsp, 8
    code.extend([0x59, 0x5f]); // pop rcx; pop rdi
    code.extend([0x48, 0x01, 0xc8]); // add rax, rcx
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::encode;
    use crate::lazy::recipe::{Recipe, Step};

    #[test]
    fn a_call_is_relative_to_its_end() {
        let recipe = Recipe {
            start: 1,
            steps: vec![Step::Call(0)],
        };
        let code = encode(&recipe, 0x1000, 0x1000).unwrap();
        // 10 bytes of mov, 6 of saving, 5 of call.
        assert_eq!(code[16], 0xe8);
        assert_eq!(code[17..21], (-21_i32).to_le_bytes());
        assert!(encode(&recipe, 0, usize::MAX / 2).is_err());
    }
}
