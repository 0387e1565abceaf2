// SPDX-License-Identifier: GPL-2.0

//! The counter's file: `calls SECTION N` and
//! `count SECTION MODULE CALLEE BLOCK INSTRUCTIONS ELEMENTS TIMES`, addresses in
//! hexadecimal.

/// Units spent in one block of code, in one context.
pub struct Count {
    section: u32,
    /// The block of module code before it, or 0.
    pub module: u64,
    /// The first block outside the module since then; 0 in the module.
    pub callee: u64,
    /// The block itself.
    pub block: u64,
    instructions: u64,
    elements: u64,
}

impl Count {
    /// Instructions and elements of string instructions.
    pub fn units(&self) -> u64 {
        self.instructions + self.elements
    }

    fn parse(words: &[&str]) -> Option<Self> {
        let [
            section,
            module,
            callee,
            block,
            instructions,
            elements,
            _times,
        ] = words
        else {
            return None;
        };
        let address = |word| u64::from_str_radix(word, 16).ok();
        Some(Count {
            section: section.parse().ok()?,
            module: address(module)?,
            callee: address(callee)?,
            block: address(block)?,
            instructions: instructions.parse().ok()?,
            elements: elements.parse().ok()?,
        })
    }
}

/// All of them.
pub struct Counts {
    calls: Vec<(u32, f64)>,
    counts: Vec<Count>,
}

impl Counts {
    /// Reads the file's text. Lines of another kind are passed over.
    pub fn parse(text: &str) -> Self {
        let mut all = Counts {
            calls: Vec::new(),
            counts: Vec::new(),
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["calls", section, calls] => {
                    let parsed = section.parse().ok().zip(calls.parse().ok());
                    all.calls.extend(parsed);
                }
                ["count", rest @ ..] => all.counts.extend(Count::parse(rest)),
                _ => {}
            }
        }
        all
    }

    /// How often a section was entered, if ever.
    pub fn calls(&self, section: u32) -> Option<f64> {
        let mut calls = self.calls.iter();
        calls.find(|&&(of, _)| of == section).map(|&(_, n)| n)
    }

    /// The counts of a section.
    pub fn of(&self, section: u32) -> impl Iterator<Item = &Count> {
        self.counts
            .iter()
            .filter(move |count| count.section == section)
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn lines_are_read() {
        let counts = Counts::parse("calls 5 10\ncount 5 ff 0 ff 20 1 2\nnoise\n");
        assert_eq!(counts.calls(5), Some(10.0));
        assert_eq!(counts.calls(6), None);
        let units: Vec<u64> = counts.of(5).map(|count| count.units()).collect();
        assert_eq!(units, [21]);
    }
}
