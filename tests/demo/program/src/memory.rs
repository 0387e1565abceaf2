// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading and writing the WebAssembly program's memory. Pointers are the
//! program's own offsets, an `i32` that means a `u32`; each one is checked.

use crate::errno::Errno;
use std::ops::Range;

/// A pointer as WebAssembly passes it.
pub type Pointer = i32;

/// The program's memory during one call.
pub struct Memory<'a>(pub &'a mut [u8]);

impl Memory<'_> {
    pub fn bytes(&mut self, at: Pointer, len: usize) -> Result<&mut [u8], Errno> {
        self.0.get_mut(range(at, len)?).ok_or(Errno::FAULT)
    }

    pub fn write(&mut self, at: Pointer, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    pub fn write_u32(&mut self, at: Pointer, value: u32) -> Result<(), Errno> {
        self.write(at, &value.to_le_bytes())
    }

    fn read_u32(&self, at: usize) -> Result<u32, Errno> {
        let end = at.checked_add(4).ok_or(Errno::FAULT)?;
        let bytes = self.0.get(at..end).ok_or(Errno::FAULT)?;
        Ok(u32::from_le_bytes(
            bytes.try_into().map_err(|_| Errno::FAULT)?,
        ))
    }

    /// The buffers of a scattered read or a gathered write: `count` pairs of a
    /// pointer and a length at `at`.
    pub fn buffers(&self, at: Pointer, count: i32) -> Result<Vec<Range<usize>>, Errno> {
        let first = offset(at)?;
        let count = usize::try_from(count).map_err(|_| Errno::FAULT)?;
        (0..count)
            .map(|index| self.buffer(first + 8 * index))
            .collect()
    }

    fn buffer(&self, at: usize) -> Result<Range<usize>, Errno> {
        let start = usize_from(self.read_u32(at)?)?;
        let len = usize_from(self.read_u32(at + 4)?)?;
        let end = start.checked_add(len).ok_or(Errno::FAULT)?;
        if end > self.0.len() {
            return Err(Errno::FAULT);
        }
        Ok(start..end)
    }
}

fn range(at: Pointer, len: usize) -> Result<Range<usize>, Errno> {
    let start = offset(at)?;
    Ok(start..start.checked_add(len).ok_or(Errno::FAULT)?)
}

fn offset(at: Pointer) -> Result<usize, Errno> {
    usize_from(at.cast_unsigned())
}

fn usize_from(value: u32) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::Memory;
    use crate::errno::Errno;

    #[test]
    fn pointers_outside_the_memory_are_refused() {
        let mut bytes = [0; 16];
        let mut memory = Memory(&mut bytes);
        assert_eq!(memory.write_u32(12, 1), Ok(()));
        assert_eq!(memory.write_u32(13, 1), Err(Errno::FAULT));
        assert_eq!(memory.write(-1, &[1]), Err(Errno::FAULT));
        assert_eq!(memory.buffers(8, 2), Err(Errno::FAULT));
        assert_eq!(memory.buffers(0, -1), Err(Errno::FAULT));
    }

    #[test]
    fn buffers_are_pairs_of_a_pointer_and_a_length() {
        let mut bytes = [2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Memory(&mut bytes).buffers(0, 2), Ok(vec![2..5, 4..4]));
        bytes[4] = 15;
        assert_eq!(Memory(&mut bytes).buffers(0, 1), Err(Errno::FAULT));
    }
}
