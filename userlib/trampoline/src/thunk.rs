// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code from a declarative description: registers, pushed values, and where to go.
//! Pure.

use crate::assemble::{Assembly, align, quadword_at};
use crate::register::encoded;
use iced_x86::{Code, IcedError, Instruction};
use jitfd::tools::Frame;
use jitfd::{Error, Register};
use jitfd_code::internal::num::to_u64;
use jitfd_code::{Align, Chunk};

/// What a trampoline does: set any of the general registers, push values on the
/// stack, and go to a target. All else, the flags included, is as the caller left
/// it.
///
/// ```
/// use jitfd::{Fallback, Jit, Register};
/// use jitfd_trampoline::Thunk;
///
/// extern "C" fn add(first: u64, second: u64) -> u64 {
///     first + second
/// }
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let target = add as *const () as usize;
/// let thunk = Thunk::to(target).set(Register::Rsi, 40);
/// let code = Jit::open(Fallback::Any)?.code(&thunk.code(None)?)?;
/// // SAFETY: the code calls `add` with a second argument.
/// let add_40 = unsafe { code.entry::<extern "C" fn(u64) -> u64>(0)? };
/// assert_eq!(add_40(2), 42);
/// # Ok(())
/// # }
/// ```
///
/// # In which order
///
/// First `rsp` is set, if it is at all; then the values are pushed in the order of
/// the calls of [`push`](Self::push), so that the last is at `[rsp]`; then the
/// other registers are set, and the target is jumped to. No register carries its
/// address, so all others can be set at once.
///
/// # What the target finds
///
/// * Without pushes and without `rsp`: what its caller wanted to call, in its place.
///   The trampoline was never there, on the stack as on the shadow stack.
/// * With pushes the return address lies below them. The target is code that takes
///   them off before it returns: a function would take the last one for its return
///   address. That is not a way to return to somewhere: with shadow stacks the CPU
///   compares each `ret` with its `call`.
/// * With `rsp` it is on another stack: the start of a coroutine. It can't return
///   to the caller; with shadow stacks, that has to be taken care of too before it
///   switches back.
///
/// # What is writable
///
/// Nothing. Values and target are constants in the code or between code, which no
/// part of the program can change. See [`publish`](Self::publish) for many of them;
/// if they come and go, and may be data, a [`Table`](crate::Table) is cheaper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thunk {
    /// The address of the code that it goes to.
    pub target: usize,
    registers: [Option<u64>; 16],
    pushes: Vec<u64>,
}

/// Code without its end.
struct Written {
    assembly: Assembly,
    /// Where the stack has one more value each.
    pushed: Vec<usize>,
}

impl Thunk {
    /// Goes to the code at this address.
    #[must_use]
    pub const fn to(target: usize) -> Self {
        Self {
            target,
            registers: [None; 16],
            pushes: Vec::new(),
        }
    }

    /// Sets a register. Of several values for the same one the last holds.
    #[must_use]
    pub const fn set(mut self, register: Register, value: u64) -> Self {
        self.registers[register as usize] = Some(value);
        self
    }

    /// Pushes a value on the stack, after those of earlier calls. An odd number of
    /// them leaves the stack aligned to 8 bytes only.
    ///
    /// ```
    /// use jitfd::Register;
    /// use jitfd_trampoline::Thunk;
    ///
    /// let code = Thunk::to(0x1234_5678_9abc).push(7).push(u64::MAX / 3).code(None).unwrap();
    /// // endbr64; push 7; push [constant]; jmp [constant]; int3...; two constants.
    /// assert_eq!(code.bytes()[4..6], [0x6a, 7]);
    /// assert_eq!(code.len(), 40);
    /// ```
    #[must_use]
    pub fn push(mut self, value: u64) -> Self {
        self.pushes.push(value);
        self
    }

    /// The code for this address: with a direct jump if the target is in reach of one. Or
    /// without an address, code that can be put anywhere, which is never shorter.
    ///
    /// Pushed values that are no 32-bit numbers, and the target without a direct jump,
    /// are data in the chunk. It starts with `endbr64`, is whole in a line of 64 bytes if
    /// it is no longer than that, and has no instruction in two lines if it is.
    ///
    /// ```
    /// use jitfd_trampoline::Thunk;
    ///
    /// let thunk = Thunk::to(0x1000_0000);
    /// assert!(thunk.code(None).unwrap().holds_data());
    /// let near = thunk.code(Some(0x2000_0000)).unwrap();
    /// // endbr64; jmp rel32
    /// assert_eq!(near.len(), 9);
    /// ```
    ///
    /// # Errors
    /// [`Error::Code`] if there are so many pushes that the code is longer
    /// than code can be.
    pub fn code(&self, address: Option<usize>) -> Result<Chunk, Error> {
        if let Some(Ok(near)) = address.map(|address| self.near(address)) {
            return Ok(near);
        }
        let constants: Vec<u64> = self.far().chain([to_u64(self.target)]).collect();
        self.finish(&constants, |assembly, last| assembly.push(indirect(last)))
    }

    fn near(&self, address: usize) -> Result<Chunk, Error> {
        let constants: Vec<u64> = self.far().collect();
        let distance = to_u64(self.target.wrapping_sub(address));
        let direct = || Instruction::with_branch(Code::Jmp_rel32_64, distance);
        self.finish(&constants, |assembly, _| assembly.push(direct()))
    }

    /// The length and the alignment of [`code`](Self::code), which is not made for that.
    pub(crate) fn most(&self) -> Result<(usize, Align), Error> {
        // No length depends on an offset.
        let mut assembly = self.write(0)?.assembly;
        assembly.push(indirect(0))?;
        let constants = self.far().count() + 1;
        let len = assembly.len().next_multiple_of(8) + 8 * constants;
        Ok((len, align(len)?))
    }

    /// How the caller is found while this code, at the start of which it is meant
    /// to be, is executed: for [`EhFrame`](jitfd::tools::EhFrame). `None` if it
    /// sets `rsp`: nothing leads back from another stack.
    ///
    /// An exception that is thrown in the target does not need it: the trampoline
    /// is on no stack. A profiler or a debugger that stops inside of it does.
    ///
    /// ```
    /// use jitfd::tools::Frame;
    /// use jitfd::Register;
    /// use jitfd_trampoline::Thunk;
    ///
    /// let thunk = Thunk::to(0x1000_0000);
    /// assert_eq!(thunk.frame(), Some(Frame::leaf()));
    /// // endbr64; push 7
    /// let pushed = Frame::leaf().cfa(6, Register::Rsp, 16);
    /// assert_eq!(thunk.clone().push(7).frame(), Some(pushed));
    /// assert_eq!(thunk.set(Register::Rsp, 0x7000_0000).frame(), None);
    /// ```
    #[must_use]
    pub fn frame(&self) -> Option<Frame> {
        if self.registers[Register::Rsp as usize].is_some() {
            return None;
        }
        let written = self.write(0).ok()?;
        let mut frame = Frame::leaf();
        for (number, at) in written.pushed.into_iter().enumerate() {
            let offset = u32::try_from(8 * (number + 2)).ok()?;
            frame = frame.cfa(at, Register::Rsp, offset);
        }
        Some(frame)
    }

    /// The pushed values that no instruction has room for.
    fn far(&self) -> impl Iterator<Item = u64> {
        self.pushes
            .iter()
            .copied()
            .filter(|&value| short(value).is_none())
    }

    /// All but the jump and the constants, which are to lie from `constants` on.
    fn write(&self, constants: usize) -> Result<Written, Error> {
        let mut assembly = Assembly::new()?;
        assembly.entry()?;
        let set = |register: Register| Some((register, self.registers[register as usize]?));
        if let Some((register, value)) = set(Register::Rsp) {
            assembly.push(load(register, value))?;
        }
        let mut constant = constants;
        let mut pushed = Vec::with_capacity(self.pushes.len());
        for &value in &self.pushes {
            if let Some(value) = short(value) {
                assembly.push(push_short(value))?;
            } else {
                let there = quadword_at(constant);
                assembly.push(Instruction::with1(Code::Push_rm64, there))?;
                constant += 8;
            }
            pushed.push(assembly.len());
        }
        let others = Register::ALL
            .into_iter()
            .filter(|&one| one != Register::Rsp);
        for (register, value) in others.filter_map(set) {
            assembly.push(load(register, value))?;
        }
        Ok(Written { assembly, pushed })
    }

    /// The whole. `jump` gets the offset of the last constant.
    fn finish(
        &self,
        constants: &[u64],
        jump: impl Fn(&mut Assembly, usize) -> Result<usize, Error>,
    ) -> Result<Chunk, Error> {
        // The first time it is only measured: no length depends on an offset. Where
        // nothing is behind the code that is enough.
        let mut start = 0;
        for _ in 0..2 {
            let mut assembly = self.write(start)?.assembly;
            jump(&mut assembly, start + 8 * constants.len().saturating_sub(1))?;
            let end = assembly.len().next_multiple_of(8);
            if end == start || constants.is_empty() {
                for &constant in constants {
                    assembly.quadword(constant)?;
                }
                return assembly.finish();
            }
            start = end;
        }
        Err(UNSTEADY)
    }
}

/// The jump by the constant at this offset.
fn indirect(constant: usize) -> Result<Instruction, IcedError> {
    Instruction::with1(Code::Jmp_rm64, quadword_at(constant))
}

const UNSTEADY: Error = Error::Argument("the length of the code depends on its place");

/// The 32-bit number that it is the sign extension of.
fn short(value: u64) -> Option<i32> {
    i32::try_from(jitfd_code::internal::num::to_i64(value)).ok()
}

/// In the shortest way that leaves the flags alone.
fn load(register: Register, value: u64) -> Result<Instruction, IcedError> {
    let register = encoded(register);
    match (u32::try_from(value), short(value)) {
        (Ok(low), _) => Instruction::with2(Code::Mov_r32_imm32, register.full_register32(), low),
        (_, Some(low)) => Instruction::with2(Code::Mov_rm64_imm32, register, low),
        _ => Instruction::with2(Code::Mov_r64_imm64, register, value),
    }
}

fn push_short(value: i32) -> Result<Instruction, IcedError> {
    let code = match i8::try_from(value) {
        Ok(_) => Code::Pushq_imm8,
        Err(_) => Code::Pushq_imm32,
    };
    Instruction::with1(code, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register as Operand};
    use proptest::prelude::*;

    /// What a CPU would have done at the end.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Machine {
        registers: [Option<u64>; 16],
        stack: Vec<u64>,
        target: u64,
    }

    /// Executes `code` at `address`. Panics at what no thunk does.
    fn execute(code: &Chunk, address: u64) -> Machine {
        let bytes = code.bytes();
        let options = DecoderOptions::NONE;
        let decoder = Decoder::with_ip(64, bytes, address, options);
        let constant = |instruction: &Instruction| {
            assert!(instruction.is_ip_rel_memory_operand());
            let at = usize::try_from(instruction.ip_rel_memory_address() - address).unwrap();
            assert_eq!(at % 8, 0);
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        let mut machine = Machine::default();
        for instruction in decoder {
            let line = |at| at / 64;
            let (first, last) = (instruction.ip(), instruction.next_ip() - 1);
            assert_eq!(line(first), line(last), "in two lines");
            match instruction.code() {
                Code::Endbr64 => assert_eq!(first, address),
                code if code.mnemonic() == iced_x86::Mnemonic::Nop => {}
                Code::Mov_r32_imm32 | Code::Mov_rm64_imm32 | Code::Mov_r64_imm64 => {
                    let register = instruction.op0_register();
                    let all_before = machine.stack.len();
                    assert!(register != Operand::RSP || all_before == 0);
                    let place = &mut machine.registers[register.number()];
                    assert_eq!(place.replace(instruction.immediate(1)), None);
                }
                Code::Pushq_imm8 | Code::Pushq_imm32 => {
                    machine.stack.push(instruction.immediate(0));
                }
                Code::Push_rm64 => machine.stack.push(constant(&instruction)),
                Code::Jmp_rm64 => {
                    machine.target = constant(&instruction);
                    return machine;
                }
                Code::Jmp_rel32_64 => {
                    assert_eq!(instruction.op0_kind(), OpKind::NearBranch64);
                    machine.target = instruction.near_branch64();
                    return machine;
                }
                _ => panic!("{instruction:?}"),
            }
        }
        panic!("it ends without a jump");
    }

    fn value() -> impl Strategy<Value = u64> {
        let edges = [
            0,
            0x7f,
            0x80,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
        ];
        let edges = edges
            .into_iter()
            .flat_map(|edge: u64| [edge, !edge, edge.wrapping_sub(1)]);
        prop_oneof![any::<u64>(), prop::sample::select(Vec::from_iter(edges))]
    }

    fn thunk() -> impl Strategy<Value = (Thunk, Machine)> {
        let registers =
            prop::collection::vec((prop::sample::select(&Register::ALL[..]), value()), 0..20);
        let pushes = prop::collection::vec(value(), 0..30);
        (registers, pushes, any::<usize>()).prop_map(|(registers, pushes, target)| {
            let mut machine = Machine {
                target: to_u64(target),
                stack: pushes.clone(),
                ..Default::default()
            };
            let mut thunk = Thunk::to(target);
            for (register, value) in registers {
                machine.registers[register as usize] = Some(value);
                thunk = thunk.set(register, value);
            }
            (pushes.into_iter().fold(thunk, Thunk::push), machine)
        })
    }

    proptest! {
        #[test]
        fn the_code_does_what_was_asked_for((thunk, machine) in thunk(), line in 0_u64..1 << 40) {
            let chunk = thunk.code(None).unwrap();
            let address = line * to_u64(chunk.align().bytes());
            prop_assert_eq!(execute(&chunk, address), machine);
        }

        #[test]
        fn a_direct_jump_goes_to_the_same(
            (thunk, machine) in thunk(),
            distance in -0x9000_0000_isize..0x9000_0000,
        ) {
            let address = thunk.target.wrapping_add_signed(distance) & !63;
            let far = thunk.code(None).unwrap();
            let chunk = thunk.code(Some(address)).unwrap();
            prop_assert!(chunk.len() <= far.len() && chunk.align() <= far.align());
            let direct = chunk.bytes() != far.bytes();
            prop_assert!(direct || distance.unsigned_abs() > 0x7fff_f000);
            prop_assert_eq!(execute(&chunk, to_u64(address)), machine);
        }
    }

    #[test]
    fn nothing_set_is_a_jump() {
        let code = Thunk::to(0x1111_2222_3333).code(None).unwrap();
        assert_eq!((code.len(), code.align().bytes()), (24, 32));
        assert!(code.is_entry(0) && !code.is_entry(4));
    }
}
