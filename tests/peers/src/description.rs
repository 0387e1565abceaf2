// SPDX-License-Identifier: GPL-2.0

//! A trampoline, described: registers to set, values to push, where to go.

/// How many general registers there are. A register's name is its number in an
/// instruction.
pub const NAMES: usize = 16;

/// The stack pointer, which only pushing changes.
pub const RSP: usize = 4;

/// How many values can be pushed.
pub const PUSHES: usize = 8;

/// What can't be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such register, or the stack pointer.
    Register(usize),
    /// More than [`PUSHES`] values.
    Pushes,
}

/// What a trampoline does.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    target: usize,
    registers: [u64; NAMES],
    pushes: [u64; PUSHES],
    /// A bit for each register.
    set: u16,
    pushed: u8,
}

impl Description {
    /// One that goes to `target` and changes nothing.
    pub fn to(target: usize) -> Self {
        Description {
            target,
            registers: [0; NAMES],
            pushes: [0; PUSHES],
            set: 0,
            pushed: 0,
        }
    }

    /// Sets a register.
    pub fn set(mut self, name: usize, value: u64) -> Result<Self, Refused> {
        if name >= NAMES || name == RSP {
            return Err(Refused::Register(name));
        }
        self.registers[name] = value;
        self.set |= 1 << name;
        Ok(self)
    }

    /// Pushes a value, after those before.
    pub fn push(mut self, value: u64) -> Result<Self, Refused> {
        let slot = self
            .pushes
            .get_mut(usize::from(self.pushed))
            .ok_or(Refused::Pushes)?;
        *slot = value;
        self.pushed += 1;
        Ok(self)
    }

    /// Where it goes.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The registers that are set, with their values.
    pub fn registers(&self) -> impl Iterator<Item = (usize, u64)> {
        let all = self.registers.iter().copied().enumerate();
        all.filter(|(name, _)| self.set & 1 << name != 0)
    }

    /// The values that are pushed, the first one first.
    pub fn pushes(&self) -> &[u64] {
        &self.pushes[..usize::from(self.pushed)]
    }
}
