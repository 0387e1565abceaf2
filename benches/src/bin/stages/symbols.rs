// SPDX-License-Identifier: GPL-2.0

//! The kernel's symbols, from a copy of /proc/kallsyms.

/// Functions by address.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads the file's text; what is not a function is passed over.
    pub fn parse(text: &str) -> Self {
        let mut all: Vec<(u64, String)> = text.lines().filter_map(symbol).collect();
        all.sort();
        Symbols(all)
    }

    /// The function that holds `address`.
    pub fn name(&self, address: u64) -> String {
        if address >> 63 == 0 {
            return "user code".to_owned();
        }
        let index = self.0.partition_point(|&(start, _)| start <= address);
        match index.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some((_, name)) => name.clone(),
            None => format!("{address:#x}"),
        }
    }
}

fn symbol(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    let name = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then(|| (address, readable(name)))
}

/// A Rust name without its encoding: the identifiers in it, as far as they can
/// be told without the whole grammar.
fn readable(name: &str) -> String {
    let Some(encoded) = name.strip_prefix("_R") else {
        return name.to_owned();
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = encoded;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit() || c == 's') {
        rest = &rest[at..];
        rest = match disambiguator(rest).or_else(|| identifier(rest, &mut parts)) {
            Some(after) => after,
            None => &rest[1..],
        };
    }
    parts.join("::")
}

/// Passes over `s` base-62 `_`, which tells namesakes apart.
fn disambiguator(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('s')?;
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric())?;
    inside[end..].strip_prefix('_')
}

/// Takes a decimal length and that many bytes.
fn identifier<'a>(text: &'a str, parts: &mut Vec<&'a str>) -> Option<&'a str> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let len: usize = text[..digits].parse().ok()?;
    let text = text[digits..].strip_prefix('_').unwrap_or(&text[digits..]);
    let part = text.get(..len).filter(|part| !part.is_empty())?;
    parts.push(part);
    text.get(len..)
}

#[cfg(test)]
mod tests {
    use super::{Symbols, readable};

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let symbols = Symbols::parse(
            "ffffffff81000010 T second\nffffffff81000000 t first\nffffffff81000008 d data\n",
        );
        assert_eq!(symbols.name(0xffff_ffff_8100_000f), "first");
        assert_eq!(symbols.name(0xffff_ffff_8100_0010), "second");
        assert_eq!(symbols.name(0x40_0000), "user code");
    }

    #[test]
    fn rust_names_lose_their_encoding() {
        let name = "_RNvNtCsayfsy7zwHPe_8jit_main7publish12is_ambiguous";
        assert_eq!(readable(name), "jit_main::publish::is_ambiguous");
        assert_eq!(readable("memcpy"), "memcpy");
    }
}
