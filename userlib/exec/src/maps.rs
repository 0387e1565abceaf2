// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of `/proc/self/maps`, without allocation.

/// What lies at an address, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Code of `/dev/jit`, or of what stands in for it.
    Code,
    /// A private mapping: of a file, or anonymous.
    Private,
    /// Shared anonymous memory.
    SharedAnonymous,
    /// A shared mapping of a file.
    SharedFile,
}

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address of its first byte.
    pub start: usize,
    /// The address behind its last byte.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
}

/// The name of what stands in for `/dev/jit`; see `publish.rs`.
pub const STAND_IN: &[u8] = b"/memfd:jitfd-run";

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    let mut number: usize = 0;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    for &digit in digits {
        let value = char::from(digit).to_digit(16)?;
        number = (number << 4) | usize::try_from(value).ok()?;
    }
    Some(number)
}

/// Reads a line: `7f00-7f01 rw-s 00000000 00:01 12   /dev/zero (deleted)`.
pub fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut words = line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let mut range = words.next()?.split(|&byte| byte == b'-');
    let (start, end) = (hexadecimal(range.next()?)?, hexadecimal(range.next()?)?);
    let shared = *words.next()?.get(3)? == b's';
    let name = words.nth(3).unwrap_or_default();
    let kind = if name == b"/dev/jit" || name.starts_with(STAND_IN) {
        Kind::Code
    } else if !shared {
        Kind::Private
    } else if name == b"/dev/zero" {
        // It can't be told from a mapping of that device.
        Kind::SharedAnonymous
    } else {
        Kind::SharedFile
    };
    Some(Mapping { start, end, kind })
}

/// The path of a line; empty if there is none.
pub fn path(line: &[u8]) -> &[u8] {
    let mut rest = line;
    for _ in 0..5 {
        let end = rest.iter().position(|&byte| byte == b' ');
        rest = end.and_then(|end| rest.get(end..)).unwrap_or_default();
        rest = rest.trim_ascii_start();
    }
    rest
}

/// Whether a file of this path is meant by a name: a path, or the file's name with or
/// without what follows a dot.
pub fn is_named(path: &[u8], name: &[u8]) -> bool {
    if name.contains(&b'/') || name.is_empty() {
        return path == name && !name.is_empty();
    }
    let file = path.rsplit(|&byte| byte == b'/').next();
    let rest = file.and_then(|file| file.strip_prefix(name));
    path.starts_with(b"/") && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Kind {
        mapping(line.as_bytes()).unwrap().kind
    }

    #[test]
    fn a_line_is_a_mapping() {
        let line = b"7f64032e5000-7f64032e6000 r-xs 4000000000 00:06 95                 /dev/jit";
        let read = Mapping {
            start: 0x7f64_032e_5000,
            end: 0x7f64_032e_6000,
            kind: Kind::Code,
        };
        assert_eq!(mapping(line), Some(read));
        let file = "7f64032e5000-7f64032e6000 rw-p 00000000 00:06 95 /memfd:JITCode (deleted)";
        assert_eq!(kind(file), Kind::Private);
        assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0 "), Kind::Private);
        let zero = "1000-2000 rw-s 00000000 00:01 95   /dev/zero (deleted)";
        assert_eq!(kind(zero), Kind::SharedAnonymous);
        assert_eq!(
            kind("1000-2000 rw-s 00000000 00:01 95 /x"),
            Kind::SharedFile
        );
        let stand_in = "1000-2000 r-xs 00000000 00:01 95 /memfd:jitfd-run (deleted)";
        assert_eq!(kind(stand_in), Kind::Code);
    }

    #[test]
    fn files_are_named_by_their_path_or_name() {
        let line = b"1000-2000 r-xp 00000000 00:01 95                 /usr/lib/a b.so.1.2";
        let found = path(line);
        assert_eq!(found, b"/usr/lib/a b.so.1.2");
        for name in [
            "/usr/lib/a b.so.1.2",
            "a b.so.1.2",
            "a b.so.1",
            "a b.so",
            "a b",
        ] {
            assert!(is_named(found, name.as_bytes()), "{name}");
        }
        for name in ["", "a", "b.so", "/usr/lib/a b.so", "a b.so.1.", "lib"] {
            assert!(!is_named(found, name.as_bytes()), "{name}");
        }
        assert_eq!(path(b"1000-2000 rw-p 00000000 00:00 0 "), b"");
        assert!(!is_named(b"", b"") && !is_named(b"[heap]", b"[heap]"));
    }

    #[test]
    fn all_of_this_process_can_be_read() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let lines = maps
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut last = 0;
        for line in lines {
            let read = mapping(line).unwrap();
            assert!(last <= read.start && read.start < read.end);
            last = read.end;
        }
        assert_ne!(last, 0);
    }

    #[test]
    fn what_is_none_is_none() {
        for line in [
            "",
            "x",
            "1000",
            "1000-",
            "1000-2000",
            "1000-2000 rw",
            "1-11112222333344445 rwxp",
        ] {
            assert_eq!(mapping(line.as_bytes()), None, "{line}");
        }
    }
}
