// SPDX-License-Identifier: GPL-2.0
//! What the guest's CPUs are, for the runner to judge: `/proc/cpuinfo` in three
//! lines. Pure.

/// How many CPUs, the model's name, and the flags that every one of them has.
pub fn summary(cpuinfo: &str) -> String {
    let cpus: Vec<Vec<&str>> = values(cpuinfo, "flags")
        .map(|flags| flags.split_whitespace().collect())
        .collect();
    let model = values(cpuinfo, "model name").next().unwrap_or("unknown");
    let common: Vec<&str> = match cpus.split_first() {
        Some((first, rest)) => first
            .iter()
            .filter(|flag| rest.iter().all(|cpu| cpu.contains(flag)))
            .copied()
            .collect(),
        None => Vec::new(),
    };
    format!("{}\n{model}\n{}", cpus.len(), common.join(" "))
}

/// What stands behind each line that begins with this name.
fn values<'a>(cpuinfo: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn only_what_every_cpu_has_counts() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3.40GHz\nflags\t\t: fpu pcid pti\n\
                       vmx flags\t: vnmi\nbugs\t\t: cpu_meltdown\n\n\
                       processor\t: 1\nmodel name\t: Some CPU @ 3.40GHz\nflags\t\t: fpu pti nx\n";
        assert_eq!(summary(cpuinfo), "2\nSome CPU @ 3.40GHz\nfpu pti");
    }

    #[test]
    fn without_cpus_there_are_no_flags() {
        assert_eq!(summary(""), "0\nunknown\n");
    }
}
