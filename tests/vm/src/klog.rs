// SPDX-License-Identifier: GPL-2.0
//! Finds the reports in a kernel log: what the kernel itself calls a bug, a
//! warning, a leak, a race, a stall or a panic.

/// Texts with which the kernel begins a report. The first that is found in a line
/// names it, so the sharper one comes first.
const SIGNS: [&str; 14] = [
    "Kernel panic - not syncing",
    "KASAN:",
    "BUG: ",
    "kernel BUG at",
    "Oops: ",
    "WARNING: ",
    "UBSAN: ",
    "INFO: task ",
    "detected stall",
    "self-detected stall",
    "INFO: trying to register non-static key",
    "DEBUG_LOCKS_WARN_ON",
    "new suspected memory leaks",
    "page_owner tracks",
];

/// How much of the log is shown from a report on, and how much without one.
const REPORT_LINES: usize = 70;
const END_LINES: usize = 15;

/// A data race between two places. The kernel has some of its own, so one counts
/// only if the module is in one of its two stacks.
const RACE: &str = "BUG: KCSAN: data-race";
const RACE_END: &str = "=====";
const OURS: &str = "[jit]";

/// The lines that begin a report, without their time stamps, each once.
pub fn reports(log: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let lines: Vec<&str> = log.lines().map(without_time).collect();
    for (index, line) in lines.iter().enumerate() {
        if counts(&lines[index..]) && !found.contains(line) {
            found.push(line);
        }
    }
    found
}

/// The part of the log that a person needs: from the first report on, with its
/// backtrace, or the last few lines.
pub fn excerpt(log: &str) -> String {
    let all: Vec<&str> = log.lines().collect();
    let plain: Vec<&str> = all.iter().map(|line| without_time(line)).collect();
    let report = (0..plain.len()).find(|&index| counts(&plain[index..]));
    let first = report.unwrap_or(all.len().saturating_sub(END_LINES));
    let end = all.len().min(first + REPORT_LINES);
    all[first..end].join("\n")
}

/// Whether the first of `lines` begins a report that the module answers for.
fn counts(lines: &[&str]) -> bool {
    let Some((first, rest)) = lines.split_first() else {
        return false;
    };
    if first.contains(RACE) {
        let mut stacks = rest.iter().take_while(|line| !line.contains(RACE_END));
        return stacks.any(|line| line.contains(OURS));
    }
    SIGNS.iter().any(|sign| first.contains(sign))
}

/// The line without `[   12.345678]` and what printk puts beside it.
fn without_time(line: &str) -> &str {
    match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, text)) => text.trim_start(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_log_has_no_report() {
        let log = "[    0.000000] Linux version 7.3.4\n[    1.000000] Run /init as init process\n\
                   [    2.0] traps: program[70] general protection fault ip:401000\n";
        assert!(reports(log).is_empty());
        assert_eq!(excerpt(log), log.trim_end());
    }

    #[test]
    fn each_report_is_named_once_also_when_two_logs_are_joined() {
        let log = "[    1.5] fine\n[    2.000001] WARNING: jit.c:3 at f+0x1, CPU#0: a/1\n\
                   [    2.000002] Call Trace:\nWARNING: jit.c:3 at f+0x1, CPU#0: a/1\n\
                   [    3.0] Kernel panic - not syncing: x\n";
        assert_eq!(
            reports(log),
            [
                "WARNING: jit.c:3 at f+0x1, CPU#0: a/1",
                "Kernel panic - not syncing: x"
            ]
        );
        assert!(excerpt(log).starts_with("[    2.000001]"));
    }

    #[test]
    fn a_race_counts_if_the_module_is_in_it() {
        let race = |place: &str| {
            format!(
                "[    2.0] BUG: KCSAN: data-race in a / b\n[    2.0] write to 0xff by task 1:\n\
                 [    2.0]  {place}\n[    2.0] ==================\n[    2.1]  c+0x1/0x2 [jit]\n"
            )
        };
        assert!(reports(&race("do_nanosleep+0x29/0x100")).is_empty());
        assert_eq!(
            reports(&race("jit_pte_lock+0x9/0x70 [jit]")),
            ["BUG: KCSAN: data-race in a / b"]
        );
    }

    #[test]
    fn every_sign_is_recognised() {
        for sign in SIGNS {
            assert_eq!(reports(&format!("[    9.9] rcu: {sign} x\n")).len(), 1);
        }
    }
}
