// SPDX-License-Identifier: GPL-2.0
//! How QEMU executes the guest's instructions. `/dev/kvm` may exist and lie: on
//! some nested hosts it opens, makes virtual machines, and then nothing ever
//! runs in them. So `auto` boots a guest with nothing but init under KVM, with
//! a short time limit, and remembers the answer until this machine reboots.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boot::boot;
use crate::error::Error;
use crate::image::Image;
use crate::initramfs;
use crate::options::{Accel, Options};
use crate::qemu::Qemu;
use crate::rundir::RunDir;
use crate::session::Limits;

const TRIAL: Duration = Duration::from_secs(10);

/// What QEMU executes the guest with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The host's virtualisation.
    Kvm,
    /// Software emulation, one host thread for each virtual CPU.
    Tcg,
}

impl Engine {
    /// QEMU's arguments for it.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Engine::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Engine::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Engine::Kvm => "kvm",
            Engine::Tcg => "tcg",
        }
    }
}

/// Does as the options say; for `auto`, finds out. Says which one it is.
pub fn choose(options: &Options, image: &Image) -> Result<Engine, Error> {
    let (engine, why) = match options.accel {
        Accel::Kvm => (Engine::Kvm, "asked for"),
        Accel::Tcg => (Engine::Tcg, "asked for"),
        Accel::Auto => find_out(options, image)?,
    };
    eprintln!("vm: accelerator {} ({why})", engine.name());
    Ok(engine)
}

fn find_out(options: &Options, image: &Image) -> Result<(Engine, &'static str), Error> {
    let usable = File::options().read(true).write(true).open("/dev/kvm");
    if usable.is_err() {
        return Ok((Engine::Tcg, "no usable /dev/kvm"));
    }
    let memory = memory_file(&image.cache);
    match fs::read_to_string(&memory).as_deref() {
        Ok("kvm") => return Ok((Engine::Kvm, "its trial boot worked")),
        Ok("tcg") => return Ok((Engine::Tcg, "the trial boot under kvm failed")),
        _ => {}
    }
    eprintln!("vm: trying a boot under kvm, {} s at most", TRIAL.as_secs());
    let engine = match boots_under_kvm(options, image)? {
        true => Engine::Kvm,
        false => Engine::Tcg,
    };
    fs::write(&memory, engine.name()).map_err(Error::at(&memory))?;
    Ok((engine, "by a trial boot"))
}

/// The file that keeps the answer; its name changes when this machine reboots.
fn memory_file(cache: &Path) -> PathBuf {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    cache.join(format!("accel-{}", boot.trim()))
}

fn boots_under_kvm(options: &Options, image: &Image) -> Result<bool, Error> {
    let dir = RunDir::new(&image.cache)?;
    let entries = initramfs::only_init(&image.init)?;
    let limits = Limits {
        boot: TRIAL,
        run: TRIAL,
    };
    let qemu = Qemu(Engine::Kvm);
    Ok(boot(&qemu, options, image, &dir, entries, limits, None)?.complete())
}
