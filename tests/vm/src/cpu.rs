// SPDX-License-Identifier: GPL-2.0
//! What the guest says its CPUs are, next to what the emulator was chosen for. Pure.

/// The CPUs of a guest.
#[derive(Debug)]
pub struct Cpus {
    count: String,
    model: String,
    flags: Vec<String>,
}

impl Cpus {
    /// Reads what init sends.
    pub fn read(text: &str) -> Cpus {
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Cpus {
            count: next(),
            model: next(),
            flags: next().split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// The flags of `wanted` that not all of them have.
    pub fn lack<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        let has = |flag: &str| self.flags.iter().any(|other| other == flag);
        wanted.iter().copied().filter(|flag| !has(flag)).collect()
    }

    /// One line for a person.
    pub fn describe(&self, wanted: &[&str]) -> String {
        let missing = self.lack(wanted);
        let present: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|flag| !missing.contains(flag))
            .collect();
        format!(
            "CPUs: {} of {}; flags in /proc/cpuinfo: {}",
            self.count,
            self.model,
            present.join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_a_whole_word() {
        let cpus = Cpus::read("2\nSome CPU\nfpu invpcid_single pti");
        assert_eq!(cpus.lack(&["pti", "pcid", "invpcid"]), ["pcid", "invpcid"]);
        assert!(cpus.lack(&["fpu"]).is_empty());
        assert_eq!(
            cpus.describe(&["pti", "pcid"]),
            "CPUs: 2 of Some CPU; flags in /proc/cpuinfo: pti"
        );
    }

    #[test]
    fn a_guest_that_says_nothing_lacks_everything() {
        assert_eq!(Cpus::read("").lack(&["pti"]), ["pti"]);
    }
}
