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

/// The lines that begin a report, without their time stamps, each once.
pub fn reports(log: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in log.lines().map(without_time) {
        if is_report(line) && !found.contains(&line) {
            found.push(line);
        }
    }
    found
}

/// The part of the log that a person needs: from the first report on, with its
/// backtrace, or the last few lines.
pub fn excerpt(log: &str) -> String {
    let all: Vec<&str> = log.lines().collect();
    let report = all.iter().position(|line| is_report(without_time(line)));
    let first = report.unwrap_or(all.len().saturating_sub(END_LINES));
    let end = all.len().min(first + REPORT_LINES);
    all[first..end].join("\n")
}

fn is_report(line: &str) -> bool {
    SIGNS.iter().any(|sign| line.contains(sign))
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
    fn every_sign_is_recognised() {
        for sign in SIGNS {
            assert_eq!(reports(&format!("[    9.9] rcu: {sign} x\n")).len(), 1);
        }
    }
}
