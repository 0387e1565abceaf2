// SPDX-License-Identifier: GPL-2.0
//! Loads and unloads the module, the way insmod and rmmod do.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use super::outcome::{OrFail, Outcome};
use super::patience::Patience;
use super::sys;

/// Where the runner puts them.
const MODULE: &str = "/run/jit.ko";
const PARAMETERS: &str = "/run/parameters";

/// delete_module(2), without waiting.
pub fn unload() -> io::Result<()> {
    let name = c"jit".as_ptr().expose_provenance();
    let flags = libc::O_NONBLOCK as usize;
    sys::syscall(libc::SYS_delete_module, [name, flags, 0, 0, 0, 0]).map(|_| ())
}

/// The same, once nobody uses it any more: a closed handle may take a moment.
pub fn unload_soon() -> io::Result<()> {
    let mut patience = Patience::new();
    loop {
        match unload() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && !patience.is_over(0) => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// finit_module(2).
pub fn load(parameters: &str) -> io::Result<()> {
    let module = File::open(MODULE)?;
    let parameters = CString::new(parameters)?;
    let arguments = [
        module.as_raw_fd() as usize,
        parameters.as_ptr().expose_provenance(),
        0,
        0,
        0,
        0,
    ];
    sys::syscall(libc::SYS_finit_module, arguments).map(|_| ())
}

/// Whether it is loaded.
pub fn is_loaded() -> bool {
    fs::exists("/sys/module/jit").unwrap_or(false)
}

/// What the runner loads it with.
pub fn parameters() -> String {
    fs::read_to_string(PARAMETERS).unwrap_or_default()
}

/// Loads it as the runner did.
pub fn load_as_before() -> io::Result<()> {
    load(&parameters())
}

/// Runs `test` with the module loaded with other parameters, and loads it as
/// before afterwards, in any case.
pub fn with_parameters(parameters: &str, test: impl FnOnce() -> Outcome) -> Outcome {
    unload_soon().or_fail("unload the module")?;
    let outcome = match load(parameters) {
        Ok(()) => test(),
        Err(error) => Err(error).or_fail("load the module"),
    };
    if is_loaded() {
        unload_soon().or_fail("unload the module again")?;
    }
    load_as_before().or_fail("load the module as before")?;
    outcome
}
