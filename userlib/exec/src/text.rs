// SPDX-License-Identifier: MIT OR Apache-2.0

//! A line of text without allocation, for places where none is allowed.

use core::fmt::{self, Write};

/// Text of a bounded length; what goes beyond it is left out.
pub struct Line {
    bytes: [u8; 320],
    len: usize,
}

impl Line {
    /// The text of `arguments` and a line feed.
    pub fn new(arguments: fmt::Arguments<'_>) -> Line {
        let mut line = Line {
            bytes: [0; 320],
            len: 0,
        };
        // It has an error for none of its pieces.
        let _ = line.write_fmt(arguments);
        let end = line.len.min(line.bytes.len() - 1);
        if let Some(byte) = line.bytes.get_mut(end) {
            *byte = b'\n';
        }
        line.len = end + 1;
        line
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_its_room_does() {
        let line = Line::new(format_args!("{} {}", 7, "seven"));
        assert_eq!(line.bytes(), b"7 seven\n");
        let line = Line::new(format_args!("{:400}", 7));
        assert_eq!(line.bytes().len(), 320);
        assert!(line.bytes().ends_with(b"  \n"));
    }
}
