// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line, its answers and its exit statuses.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn jitctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jitctl"));
    command.args(arguments).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("jitctl-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_full_standard_error_changes_no_status() {
    for (arguments, expected) in [(&["nothing"][..], 2), (&["validate", "/nothing"], 3)] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jitctl"));
        let output = command.args(arguments).stderr(full).output().unwrap();
        assert_eq!(status(&output), expected);
    }
}

#[test]
fn files_of_another_kind_are_recognised() {
    let folder = Folder::new("foreign");
    // mov w0, #42; ret
    let other = folder.write("other", [0x40, 5, 0x80, 0x52, 0xc0, 3, 0x5f, 0xd6]);
    for (file, kind) in [
        (other.as_str(), "instructions of aarch64"),
        (env!("CARGO_BIN_EXE_jitctl"), "an ELF file for x86-64"),
    ] {
        let output = jitctl(&["validate", file]);
        assert!(
            status(&output) == 1 && text(&output).contains(kind),
            "{output:?}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_told_from_an_answer() {
    for wrong in [
        &["nothing"][..],
        &[],
        &["stat"],
        &["validate"],
        &["stat", "x"],
    ] {
        let output = jitctl(wrong);
        assert_eq!(
            (status(&output), text(&output).as_str()),
            (2, ""),
            "{wrong:?}"
        );
    }
    let help = jitctl(&["--help"]);
    assert_eq!(status(&help), 0);
    for command in ["probe", "validate", "stat"] {
        assert!(text(&help).contains(command));
    }
}

#[test]
fn what_could_not_be_tried_is_not_known() {
    let mut command = Command::new("bash");
    let limited = "ulimit -u 0 && exec \"$0\" probe";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_jitctl")]);
    // Root has no such limit.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(12345);
    }
    let output = command.output().unwrap();
    if [126, 127].contains(&status(&output)) {
        eprintln!("SKIP: another user can't start jitctl from here");
        return;
    }
    let answer = text(&output);
    assert_eq!(status(&output), 3, "{answer}");
    for part in [
        "not tried: cannot fork",
        "RLIMIT_NPROC",
        "it is not known whether programs can make code here",
    ] {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
}

#[test]
fn probing_says_what_refuses_what() {
    let output = jitctl(&["probe"]);
    let answer = text(&output);
    if Path::new("/dev/jit").exists() {
        eprintln!("SKIP: this host has /dev/jit");
        return;
    }
    assert_eq!(status(&output), 1, "{answer}");
    for part in [
        "/dev/jit         cannot open /dev/jit",
        "module refuses it: the jit module is not loaded",
        "dual mapping     works",
        "mprotect flips   works",
        "programs that ask for a fallback get dual mapping",
    ] {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
}

#[test]
fn probing_can_answer_in_json() {
    let output = jitctl(&["probe", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    let backends = answer["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 3);
    assert_eq!(backends[1]["backend"], "dual mapping");
    assert_eq!(backends[1]["works"], true);
    assert!(answer["findings"].as_array().unwrap().len() >= 9);
    assert!(answer["choice"].is_string());
}

#[test]
fn raw_code_is_validated() {
    let folder = Folder::new("raw");
    let good = folder.write("good", [0xb8, 42, 0, 0, 0, 0xc3]);
    let output = jitctl(&["validate", &good]);
    assert_eq!(status(&output), 0);
    assert_eq!(text(&output), format!("{good}: valid, 6 bytes\n"));
    let bad = folder.write("bad", [0x90, 0x06, 0xc3]);
    let output = jitctl(&["validate", &bad]);
    assert_eq!(status(&output), 1);
    assert!(text(&output).contains("not valid") && text(&output).contains("0x1"));
    let as_data = jitctl(&["validate", &bad, "--data", "0x1..2"]);
    assert_eq!(status(&as_data), 0, "{}", text(&as_data));
    assert_eq!(status(&jitctl(&["validate", &bad, "--data", "1-2"])), 2);
    assert_eq!(status(&jitctl(&["validate", "/nowhere/at/all"])), 3);
    assert_eq!(status(&jitctl(&["validate", "--elf", &good])), 3);
}

#[test]
fn a_section_without_bytes_is_not_taken_for_code() {
    let file = std::env::current_exe().unwrap();
    let file = file.to_str().unwrap();
    let output = jitctl(&["validate", "--elf", "--section", ".bss", file]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(status(&output), 3, "{said}");
    assert!(said.contains(".bss has no bytes"), "{said}");
}

#[test]
fn an_elf_file_of_another_machine_is_not_taken_for_code() {
    let folder = Folder::new("machine");
    let mut file = fs::read(std::env::current_exe().unwrap()).unwrap();
    // e_machine: i386, ARM, AArch64.
    for machine in [3, 40, 183] {
        file[18] = machine;
        let file = folder.write("elf", &file);
        let output = jitctl(&["validate", "--elf", "--section", ".init", &file]);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(status(&output), 3, "{said}");
        assert!(said.contains("no ELF file with x86-64 code"), "{said}");
    }
    file[18] = 62;
    let file = folder.write("elf", &file);
    let same = jitctl(&["validate", "--elf", "--section", ".init", &file]);
    assert_eq!(status(&same), 0, "{}", text(&same));
}

#[test]
fn policies_can_be_asked_for() {
    let folder = Folder::new("policies");
    let call = folder.write("call", [0x0f, 0x05, 0xc3]);
    assert_eq!(status(&jitctl(&["validate", &call])), 0);
    assert_eq!(
        status(&jitctl(&["validate", "--no-system-calls", &call])),
        1
    );
    let mut line = vec![0x90; 62];
    line.extend([0xb8, 1, 0, 0, 0, 0xc3]);
    let line = folder.write("line", line);
    assert_eq!(status(&jitctl(&["validate", &line])), 0);
    assert_eq!(status(&jitctl(&["validate", "--within-lines", &line])), 1);
    // jmp behind the prefix of: lock inc dword [rax]; ret
    let skip = folder.write("skip", [0xeb, 0x01, 0xf0, 0xff, 0x00, 0xc3]);
    let tolerated = jitctl(&["validate", &skip]);
    assert_eq!(status(&tolerated), 0, "{}", text(&tolerated));
    assert!(text(&tolerated).contains("behind a lock prefix"));
    assert_eq!(status(&jitctl(&["validate", "--strict", &skip])), 1);
}

#[test]
fn entries_and_classes_can_be_asked_for() {
    let folder = Folder::new("entries");
    // endbr64; nop; mov eax, 1; cpuid; syscall; ret
    let code = [
        0xf3, 0x0f, 0x1e, 0xfa, 0x90, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x0f, 0x05, 0xc3,
    ];
    let code = folder.write("code", code);
    let validate = |flags: &[&str]| status(&jitctl(&[&["validate", &code], flags].concat()));
    assert_eq!(validate(&["--entry", "0", "--entry", "0x5"]), 0);
    assert_eq!(validate(&["--entry", "6"]), 1);
    assert_eq!(validate(&["--entry", "x"]), 2);
    assert_eq!(validate(&["--endbr64", "--entry", "0"]), 0);
    assert_eq!(validate(&["--endbr64", "--entry", "0", "--entry", "5"]), 1);
    assert_eq!(validate(&["--forbid", "system-calls"]), 1);
    assert_eq!(validate(&["--forbid", "everything"]), 2);
    assert_eq!(validate(&["--forbid-mnemonic", "cpuid"]), 1);
    assert_eq!(validate(&["--forbid-mnemonic", "rdtsc"]), 0);
    assert_eq!(validate(&["--forbid-mnemonic", "no such"]), 2);
    // One of each class: wrpkru; retf; mov ds, eax; hlt.
    let classes: [(&str, &[u8]); 4] = [
        ("protection-keys", &[0x0f, 0x01, 0xef]),
        ("far-transfers", &[0xcb]),
        ("segments", &[0x8e, 0xd8]),
        ("privileged", &[0xf4]),
    ];
    for (class, code) in classes {
        let code = folder.write(class, code);
        for (other, _) in classes {
            let output = jitctl(&["validate", "--forbid", other, &code]);
            assert_eq!(status(&output), i32::from(class == other), "{class}");
        }
    }
}

#[test]
fn validation_can_answer_in_json() {
    let folder = Folder::new("json");
    let answer = |name: &str, code: &[u8], flags: &[&str]| {
        let file = folder.write(name, code);
        let output = jitctl(&[&["validate", "--json", &file], flags].concat());
        let answer: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
        assert_eq!(answer["file"], file);
        assert_eq!(answer["bytes"], code.len());
        (status(&output), answer)
    };
    let skip = [0xeb, 0x01, 0xf0, 0xff, 0x00, 0xc3];
    let (code, good) = answer("skip", &skip, &[]);
    assert_eq!((code, &good["valid"]), (0, &true.into()));
    assert_eq!(good["lock_skips"], serde_json::json!([3]));
    let (code, bad) = answer("skip", &skip, &["--strict"]);
    assert_eq!((code, &bad["valid"]), (1, &false.into()));
    assert_eq!(
        (&bad["offset"], &bad["instruction"]),
        (&0.into(), &serde_json::json!([0xeb, 1]))
    );
    for key in ["disassembly", "reason", "advice"] {
        assert!(
            bad[key].as_str().is_some_and(|text| !text.is_empty()),
            "{bad}"
        );
    }
}

#[test]
fn a_section_of_an_elf_file_is_validated() {
    // This very program: compilers' code, with what a linker has put between.
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let output = jitctl(&["validate", "--elf", program]);
    let answer = text(&output);
    assert!(status(&output) <= 1, "{answer}");
    assert!(answer.starts_with(program) && answer.contains("valid"));
    let absent = jitctl(&["validate", "--elf", "--section", ".absent", program]);
    assert_eq!(status(&absent), 3);
}

#[test]
fn counters_are_found_among_the_descriptors() {
    let folder = Folder::new("stat");
    folder.write("7/fdinfo/0", "pos:\t0\nflags:\t02\n");
    folder.write(
        "7/fdinfo/12",
        "pos:\t0\njit-capacity:\t8192\njit-cursor:\t6\n",
    );
    folder.write("7/fdinfo/4", "jit-capacity:\t4096\njit-cursor:\t1\n");
    fs::create_dir_all(folder.0.join("7/fd")).unwrap();
    std::os::unix::fs::symlink("/dev/jit", folder.0.join("7/fd/4")).unwrap();
    folder.write("8/fdinfo/0", "pos:\t0\n");
    let proc = ["--proc", folder.0.to_str().unwrap()];
    let output = jitctl(&[&["stat", "7"], &proc[..]].concat());
    assert_eq!(status(&output), 0);
    assert_eq!(
        text(&output),
        "descriptor 4: /dev/jit\n  capacity      4096\n  cursor        1\n\
         descriptor 12: \n  capacity      8192\n  cursor        6\n"
    );
    let output = jitctl(&[&["stat", "7", "--json"], &proc[..]].concat());
    let answer: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!(answer[1]["counters"]["capacity"], 8192);
    assert_eq!(status(&jitctl(&[&["stat", "8"], &proc[..]].concat())), 1);
    assert_eq!(status(&jitctl(&[&["stat", "9"], &proc[..]].concat())), 3);
}
