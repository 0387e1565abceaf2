// SPDX-License-Identifier: GPL-2.0
//! One boot, from the files that the guest consists of to what was learned from it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jitfd_vm_protocol::Token;

use crate::emulator::Emulator;
use crate::error::Error;
use crate::guest::Guest;
use crate::image::Image;
use crate::initramfs::{self, Entry};
use crate::options::Options;
use crate::rundir::RunDir;
use crate::session::{self, Limits, Outcome, Wish};

/// Boots a guest that holds `entries`, and talks to it until its end.
pub fn boot(
    emulator: &dyn Emulator,
    options: &Options,
    image: &Image,
    dir: &RunDir,
    mut entries: Vec<Entry>,
    limits: Limits,
    out: Option<&Path>,
) -> Result<Outcome, Error> {
    let token = new_token()?;
    entries.extend(initramfs::orders(emulator.link(), token));
    initramfs::write(&dir.initramfs(), &entries)?;
    let program = emulator.prepare(options, image, dir)?;
    let guest = Guest::start(&program, image, dir)?;
    let wish = Wish {
        token,
        limits,
        flags: emulator.flags(),
        out,
    };
    session::hold(guest, &wish)
}

/// What nobody can guess.
fn new_token() -> Result<Token, Error> {
    let source = Path::new("/dev/urandom");
    let mut token = Token([0; 16]);
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut token.0))
        .map_err(Error::at(source))?;
    Ok(token)
}
