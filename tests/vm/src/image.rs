// SPDX-License-Identifier: GPL-2.0
//! Which kernel boots and which module it loads: asks the set-up scripts, which
//! build what is missing and print where it is.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::error::Error;
use crate::interrupt;
use crate::options::{Flavor, Options};

/// What the set-up has made.
pub struct Image {
    /// The build root, which also holds QEMU. Another emulator has a root of its own.
    pub root: PathBuf,
    /// The folder for things that can be made again.
    pub cache: PathBuf,
    /// The kernel to boot.
    pub vmlinuz: PathBuf,
    /// The module to load, if any.
    pub module: Option<PathBuf>,
    /// The guest's init.
    pub init: PathBuf,
}

/// The folder of the set-up scripts: of the checkout that this program lies in, or else
/// of the one that it is called in. Not of the one that it was built in: a copy of that
/// has a copy of the program.
pub fn scripts() -> Result<PathBuf, Error> {
    let places = [std::env::current_exe(), std::env::current_dir()];
    let above = places.iter().flatten().flat_map(|place| place.ancestors());
    let mut folders = above.map(|checkout| checkout.join("tests/vm"));
    folders
        .find(|folder| folder.join("module.sh").is_file())
        .ok_or(Error(
            "neither this program nor the current folder is in a checkout; call it from one".into(),
        ))
}

/// Finds, or has built, everything that a guest consists of.
pub fn find(options: &Options) -> Result<Image, Error> {
    let init = init(options)?;
    let root = root(None, options)?;
    let cache = root
        .parent()
        .ok_or(Error("the root has no parent".into()))?;
    Ok(Image {
        cache: cache.to_owned(),
        vmlinuz: vmlinuz(options)?,
        module: module(options)?,
        init,
        root,
    })
}

/// The build root, or the one of that name; built if it is missing.
pub fn root(name: Option<&str>, options: &Options) -> Result<PathBuf, Error> {
    ask_for("root.sh", name, options).map(PathBuf::from)
}

fn init(options: &Options) -> Result<PathBuf, Error> {
    let built = scripts()?.join("../../target/guest/x86_64-unknown-linux-gnu/release/init");
    let init = options.init.clone().unwrap_or(built);
    match init.is_file() {
        true => Ok(init),
        false => Err(Error(format!(
            "{} is missing; build it: make init",
            init.display()
        ))),
    }
}

fn module(options: &Options) -> Result<Option<PathBuf>, Error> {
    match (&options.module, options.without_module()) {
        (_, true) => Ok(None),
        (Some(module), false) => Ok(Some(module.clone())),
        (None, false) => Ok(Some(ask("module.sh", options)?.into())),
    }
}

fn vmlinuz(options: &Options) -> Result<PathBuf, Error> {
    if let Some(kdir) = &options.kdir {
        let places = ["arch/x86/boot/bzImage", "vmlinuz"].map(|place| kdir.join(place));
        return places
            .into_iter()
            .find(|place| place.is_file())
            .ok_or(Error(format!("{} holds no bzImage", kdir.display())));
    }
    let script = match options.flavor {
        Flavor::Stock => "kernel.sh",
        Flavor::Debug | Flavor::Kcsan => "debug-kernel.sh",
    };
    Ok(Path::new(&ask(script, options)?).join("vmlinuz"))
}

/// Runs a set-up script and returns the last line that it prints.
fn ask(script: &str, options: &Options) -> Result<String, Error> {
    ask_for(script, None, options)
}

/// The same with an argument.
fn ask_for(script: &str, what: Option<&str>, options: &Options) -> Result<String, Error> {
    let mut command = Command::new(scripts()?.join(script));
    command.args(what);
    if let Some(kdir) = &options.kdir {
        command.env("KDIR", kdir);
    }
    let mut child = command
        .env("FLAVOR", options.flavor.name())
        // The runner says it when it is interrupted.
        .env("SETUP_ASKED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::doing(script))?;
    let status = wait(&mut child).map_err(Error::doing(script))?;
    interrupt::check()?;
    if !status.success() {
        return Err(Error(format!("{script}: {status}")));
    }
    // A line or two: they have waited in the pipe.
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output
            .read_to_string(&mut text)
            .map_err(Error::doing(script))?;
    }
    let last = text.lines().last();
    last.map(str::to_owned)
        .ok_or(Error(format!("{script} printed nothing")))
}

/// Waits for a script. If a signal comes meanwhile, the script is told to end, which
/// it does within moments, with all that it has started.
fn wait(script: &mut Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = script.try_wait()? {
            return Ok(status);
        }
        if interrupt::check().is_err() {
            tell_to_end(script);
            return script.wait();
        }
        thread::sleep(interrupt::LOOK);
    }
}

fn tell_to_end(script: &Child) {
    let Ok(pid) = libc::pid_t::try_from(script.id()) else {
        return;
    };
    // SAFETY: it touches no memory; the process has not been waited for, so the number
    // is still its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}
