// SPDX-License-Identifier: GPL-2.0

//! Runs a program of a distribution in the guest three times, in a folder with its
//! packages (`run.sh` makes it): as it is, as it is under `PR_SET_MDWE`, and by
//! `jitfd-run`; before them once more, untimed. The third must have made code, and print
//! and return what the program has on the host. Before them, the tests of `jitfd-exec`
//! itself. The last line is "suite: N passed, N failed".
//!
//! The folder is `root` in the working directory. In its `engines` are `jitfd-run` with
//! its library and, for each program, a folder with `command` and `options` (one word a
//! line), `expected` and `status`, and `refusal`.

mod run;

use std::path::Path;
use std::time::Duration;
use std::{env, fs, io};

use run::{Ended, Way};

/// For the slowest of them, in a guest that is emulated.
const PATIENCE: Duration = Duration::from_secs(900);

struct Program {
    name: String,
    command: Vec<String>,
    options: Vec<String>,
    expected: Vec<u8>,
    status: i32,
    /// What it says where it is known not to run; else empty.
    refusal: String,
}

fn words(path: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(path)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn programs(folder: &Path) -> io::Result<Vec<Program>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(Program {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                command: words(&path.join("command"))?,
                options: words(&path.join("options"))?,
                expected: fs::read(path.join("expected"))?,
                status: words(&path.join("status"))?
                    .first()
                    .and_then(|word| word.parse().ok())
                    .ok_or(io::ErrorKind::InvalidData)?,
                refusal: words(&path.join("refusal"))?.concat(),
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// A number of the line that `--report` prints; of all processes together.
fn counted(errors: &str, name: &str) -> u64 {
    // The program may have left a line without its end before it.
    let lines = errors
        .lines()
        .filter_map(|line| line.split_once("jitfd-run: pid="));
    let words = lines.flat_map(|(_, counts)| counts.split_whitespace());
    let values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.filter_map(|value| value.parse::<u64>().ok()).sum()
}

/// What is wrong with the program's run by `jitfd-run`.
fn fault(program: &Program, ended: &Ended) -> Option<String> {
    if ended.code != Some(program.status) {
        let last = ended
            .errors
            .lines()
            .rev()
            .find(|line| !line.starts_with("jitfd-run: pid="));
        return Some(format!("{}: {}", ended.status, last.unwrap_or_default()));
    }
    if ended.output != program.expected {
        return Some("its output is not that of the host".into());
    }
    if counted(&ended.errors, "publications") == 0 {
        return Some("it has published nothing".into());
    }
    match counted(&ended.errors, "failures") {
        0 => None,
        failures => Some(format!("{failures} publications failed")),
    }
}

/// The verdict on the program's run by `jitfd-run`, in words, and whether it is the
/// expected one.
fn verdict(program: &Program, ended: &Ended) -> (String, bool) {
    let fault = fault(program, ended);
    if program.refusal.is_empty() {
        let is_right = fault.is_none();
        return (fault.unwrap_or_else(|| "ok".into()), is_right);
    }
    let said = ended
        .errors
        .lines()
        .find(|line| line.contains(&program.refusal));
    match (fault, said) {
        (Some(_), Some(said)) => (format!("no, {}: {said}", ended.status), true),
        (Some(fault), None) if fault == program.refusal => {
            (format!("no, {}: {fault}", ended.status), true)
        }
        (Some(fault), None) => (format!("{fault}, and not: {}", program.refusal), false),
        (None, _) => ("ok, which was not expected".into(), false),
    }
}

/// One word on a run that nothing depends on.
fn word(program: &Program, ended: &Ended) -> String {
    match ended.code == Some(program.status) {
        true if ended.output == program.expected => "ok".into(),
        true => "other output".into(),
        false => ended.status.clone(),
    }
}

/// What it took.
fn times(ended: &Ended) -> String {
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    format!(
        "{} s ({} + {})",
        seconds(ended.elapsed),
        seconds(ended.used.user),
        seconds(ended.used.system)
    )
}

fn check(root: &Path, program: &Program) -> io::Result<bool> {
    let go = |way| run::run(root, way, &program.options, &program.command, PATIENCE);
    // The first run pays for what the emulator translates: it is not timed.
    go(Way::Stock)?;
    let denied = go(Way::Denied)?;
    let stock = go(Way::Stock)?;
    let ended = go(Way::JitfdRun)?;
    let (verdict, is_right) = verdict(program, &ended);
    let count = |name| counted(&ended.errors, name);
    println!(
        "engine: {} | stock {}, {} | under MDWE: {} | jitfd-run {}, {}, \
         {} publications, {} KiB, {} pages withdrawn, {} faults, {} refusals, {} mappings",
        program.name,
        word(program, &stock),
        times(&stock),
        word(program, &denied),
        verdict,
        times(&ended),
        count("publications"),
        count("bytes") / 1024,
        count("withdrawn"),
        count("faults"),
        count("refusals"),
        count("mappings"),
    );
    if !is_right {
        let lines: Vec<_> = ended.errors.lines().collect();
        let first = lines.len().saturating_sub(20);
        lines
            .iter()
            .skip(first)
            .for_each(|line| println!("  {line}"));
    }
    Ok(is_right)
}

/// A number of the line with which the tests of a Rust crate end.
fn tests(output: &str, what: &str) -> Option<u64> {
    let line = output
        .lines()
        .rev()
        .find(|line| line.starts_with("test result:"))?;
    let part = line.split(['.', ';']).find(|part| part.ends_with(what))?;
    part.split_whitespace().next()?.parse().ok()
}

/// The tests of `jitfd-exec` itself, if they are here: how many have passed and failed.
fn own_tests(root: &Path) -> io::Result<(u64, u64)> {
    let program = "/engines/preload";
    if !root.join(&program[1..]).exists() {
        return Ok((0, 0));
    }
    let words = [program, "--test-threads=1"].map(str::to_owned);
    let ended = run::run(root, Way::Stock, &[], &words, PATIENCE)?;
    let output = String::from_utf8_lossy(&ended.output);
    let passed = tests(&output, "passed").unwrap_or(0);
    let failed = tests(&output, "failed").unwrap_or(1);
    println!(
        "jitfd-run's own tests: {passed} passed, {failed} failed ({})",
        ended.status
    );
    if ended.code != Some(0) {
        println!("{output}\n{}", ended.errors);
        return Ok((passed, failed.max(1)));
    }
    Ok((passed, failed))
}

fn main() -> io::Result<()> {
    let root = env::current_dir()?.join("root");
    run::mount(&root)?;
    let (mut passed, mut failed) = own_tests(&root)?;
    for program in programs(&root.join("engines"))? {
        match check(&root, &program)? {
            true => passed += 1,
            false => failed += 1,
        }
    }
    println!("suite: {passed} passed, {failed} failed");
    if failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_processes_are_added() {
        let errors = "unfinished jitfd-run: pid=7 publications=3 bytes=4096\nwords publications=9\n\
                      jitfd-run: pid=8 publications=4 bytes=1\n";
        assert_eq!(counted(errors, "publications"), 7);
        assert_eq!(counted(errors, "bytes"), 4097);
        assert_eq!(counted(errors, "by"), 0);
    }

    #[test]
    fn a_refusal_is_right_where_it_is_expected() {
        let mut program = Program {
            name: String::new(),
            command: Vec::new(),
            options: Vec::new(),
            expected: b"7".to_vec(),
            status: 0,
            refusal: "own page".into(),
        };
        let mut ended = Ended {
            code: None,
            status: "signal 11".into(),
            output: Vec::new(),
            errors: "it writes to its own page".into(),
            elapsed: Duration::ZERO,
            used: run::Used::default(),
        };
        let (words, is_right) = verdict(&program, &ended);
        assert!(is_right && words.starts_with("no, signal 11: it writes"));
        ended.errors = "jitfd-run: pid=7 publications=1 failures=0".into();
        assert!(!verdict(&program, &ended).1);
        (ended.code, ended.output) = (Some(0), b"7".to_vec());
        program.refusal = "it has published nothing".into();
        assert!(!verdict(&program, &ended).1);
        ended.errors.clear();
        assert!(verdict(&program, &ended).1);
        ended.errors = "jitfd-run: pid=7 publications=1 failures=0".into();
        assert!(!verdict(&program, &ended).1);
        program.refusal.clear();
        assert_eq!(verdict(&program, &ended), ("ok".into(), true));
    }

    #[test]
    fn tests_are_counted() {
        let output = "running 15 tests\n\ntest result: ok. 15 passed; 2 failed; 0 ignored;";
        assert_eq!(tests(output, "passed"), Some(15));
        assert_eq!(tests(output, "failed"), Some(2));
        assert_eq!(tests("signal", "passed"), None);
    }
}
