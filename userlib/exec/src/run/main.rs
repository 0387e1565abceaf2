// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `jitfd-run`: starts a program whose executable memory comes from
//! `/dev/jit`, under `PR_SET_MDWE`.

#![deny(missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[forbid(unsafe_code)]
mod class;
#[forbid(unsafe_code)]
mod program;
mod trace;

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use program::Problem;

const LIBRARY: &str = "libjitfd_exec.so";
const PR_SET_MDWE: libc::c_int = 65;
const NO_EXEC_GAIN: libc::c_ulong = 1;

/// Runs PROGRAM so that its generated code comes from /dev/jit and no memory of it is
/// ever writable and executable, under PR_SET_MDWE.
///
/// For programs that make memory executable after they have written to it (LuaJIT, PHP,
/// SpiderMonkey, LLVM). Memory that is writable and executable at once is refused, unless
/// --faults is given. What this protects against and what not: jitfd-run(1).
#[derive(Debug, Parser)]
#[command(name = "jitfd-run", version)]
struct Options {
    /// At the end of each process, one line on standard error with counts.
    #[arg(long)]
    report: bool,

    /// Let shared anonymous memory become code of the one process that asks: right if
    /// the processes that share it don't run each other's code (PHP's command line, not
    /// its FPM).
    #[arg(long)]
    unshare: bool,

    /// Experimental: grant memory that is writable and executable at once (Node.js,
    /// OpenJDK, PCRE2). A page of it is writable until it is executed, and executable
    /// until it is written to.
    #[arg(long)]
    faults: bool,

    /// Only code of this file (a path, or a name such as libluajit-5.1.so) may ask for
    /// executable memory. Can be given more than once.
    #[arg(long, value_name = "LIBRARY")]
    only: Vec<String>,

    /// Instead: run PROGRAM as it is, without the module, and say which kind of engine it
    /// is, and how it would run. The exit status is 1 if it would not.
    #[arg(long)]
    check: bool,

    /// Without the module: a file in memory for each publication. To try it.
    #[arg(long)]
    stand_in: bool,

    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    program: Vec<OsString>,
}

/// Why it can't be done, and the exit status.
struct Failure(String, u8);

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(text, 125)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let failure = match options.check {
        true => match check(&options) {
            Ok(status) => return status,
            Err(failure) => failure,
        },
        false => run(&options),
    };
    let Failure(text, status) = failure;
    eprintln!("jitfd-run: {text}");
    ExitCode::from(status)
}

/// Runs the program as it is, and says what it has asked for.
fn check(options: &Options) -> Result<ExitCode, Failure> {
    let command = plain(options)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let checked = trace::check(command)
        .map_err(|error| Failure(format!("{name} can't be run and traced: {error}"), 126))?;
    let words: Vec<_> = options
        .program
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    for line in checked.tally.report(&words.join(" ")).lines() {
        eprintln!("jitfd-run: {line}");
    }
    if checked.status != 0 {
        eprintln!(
            "jitfd-run: the program ended with status {}",
            checked.status
        );
    }
    Ok(ExitCode::from(u8::from(!checked.tally.is_helped())))
}

/// Becomes the program; returns only if that fails.
fn run(options: &Options) -> Failure {
    match prepare(options) {
        Ok(mut command) => {
            let error = command.exec();
            let name = command.get_program().to_string_lossy().into_owned();
            Failure(format!("{name} can't be run: {error}"), 126)
        }
        Err(failure) => failure,
    }
}

/// The program and its arguments.
fn plain(options: &Options) -> Result<Command, Failure> {
    let (name, arguments) = options
        .program
        .split_first()
        .ok_or_else(|| "no program is named".to_owned())?;
    let path = program::find(name).map_err(|problem| match problem {
        Problem::Missing(text) => Failure(text, 127),
        Problem::Unfit(text) => Failure(text, 126),
    })?;
    let mut command = Command::new(path);
    command.arg0(name).args(arguments);
    Ok(command)
}

fn prepare(options: &Options) -> Result<Command, Failure> {
    if !options.stand_in {
        device()?;
    }
    let mut command = plain(options)?;
    command.env("LD_PRELOAD", preload(&library()?)?);
    let flag = |is_set: bool| is_set.then(|| "1".to_owned());
    let own = [
        (
            "JITFD_EXEC_REPORT",
            options.report.then(|| std::process::id().to_string()),
        ),
        ("JITFD_EXEC_UNSHARE", flag(options.unshare)),
        ("JITFD_EXEC_FAULTS", flag(options.faults)),
        ("JITFD_EXEC_ONLY", only(&options.only)?),
        ("JITFD_EXEC_STAND_IN", flag(options.stand_in)),
    ];

    for (variable, value) in own {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    deny_write_execute()?;
    Ok(command)
}

/// The libraries that may ask, as the preloaded library takes them.
fn only(names: &[String]) -> Result<Option<String>, String> {
    const LONGEST: usize = 1023;
    let mut all = Vec::new();
    for name in names {
        // As the kernel names a mapped file.
        let path = match name.contains('/') {
            true => Path::new(name)
                .canonicalize()
                .map_err(|error| format!("--only {name}: {error}"))?,
            false => PathBuf::from(name),
        };
        let text = path.to_string_lossy().into_owned();
        if text.is_empty() || text.contains(':') {
            return Err(format!(
                "--only {name}: a name may have no colon, and not be empty"
            ));
        }
        all.push(text);
    }
    let all = all.join(":");
    if all.len() > LONGEST {
        return Err(format!("--only: the names have more than {LONGEST} bytes"));
    }
    Ok((!all.is_empty()).then_some(all))
}

/// That `/dev/jit` can be opened.
fn device() -> Result<(), String> {
    let Err(error) = File::open("/dev/jit") else {
        return Ok(());
    };
    Err(match error.kind() {
        io::ErrorKind::NotFound => "there is no /dev/jit: load the kernel module (modprobe jit, \
             after make install-module), or try --stand-in, which needs none"
            .into(),
        io::ErrorKind::PermissionDenied => {
            "/dev/jit can't be opened: its mode or a security policy forbids it (jitctl probe \
             says which)"
                .into()
        }
        _ => format!("/dev/jit can't be opened: {error}"),
    })
}

/// The library: beside this program, or where `make install` puts it.
fn library() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = ["", "../lib", "../lib64", "../lib/x86_64-linux-gnu"];
    let found = places
        .iter()
        .map(|place| folder.join(place).join(LIBRARY))
        .find_map(|path| path.canonicalize().ok());
    found.ok_or_else(|| {
        let folder = folder.display();
        format!(
            "{LIBRARY} is neither in {folder} nor in {folder}/../lib: install it (make install)"
        )
    })
}

/// The value of `LD_PRELOAD`.
fn preload(library: &Path) -> Result<OsString, String> {
    let path = library.as_os_str();
    if path.to_string_lossy().contains([' ', ':']) {
        let library = library.display();
        return Err(format!(
            "{library}: a preloaded library's path may have no space and no colon"
        ));
    }
    let mut all = path.to_owned();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    Ok(all)
}

/// From now on no memory of this process, of its children, and of the programs that they
/// become is writable and executable, and none becomes executable later.
fn deny_write_execute() -> Result<(), String> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: it changes a flag of this process.
    match unsafe { libc::prctl(PR_SET_MDWE, NO_EXEC_GAIN, NONE, NONE, NONE) } {
        0 => Ok(()),
        _ => Err(format!("PR_SET_MDWE: {}", io::Error::last_os_error())),
    }
}
