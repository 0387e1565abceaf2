// SPDX-License-Identifier: GPL-2.0
//! What an emulator is to the rest of the runner. Each has a file of its own, and
//! nothing outside that file depends on which one runs.

use std::time::Duration;

use jitfd_vm_protocol::Link;

use crate::bochs::Bochs;
use crate::error::Error;
use crate::guest::Program;
use crate::image::Image;
use crate::options::{EmulatorName, Options};
use crate::qemu::Qemu;
use crate::rundir::RunDir;
use crate::session::Limits;

/// The kernel's command line, for every emulator. Warnings go to the serial console,
/// which is slow; the whole log comes through the channel. A fault or a stall is the
/// end. The check of the timer's interrupt counts ticks against the time of day, and
/// panics when the host has let the guest wait meanwhile. For the same reason a stall is
/// called one after two minutes, not after the usual twenty seconds: one that is real
/// lasts.
const COMMAND_LINE: &str = "console=ttyS0,115200 loglevel=5 log_buf_len=8M panic=-1 oops=panic \
     softlockup_panic=1 watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120 \
     page_poison=1 no_timer_check rdinit=/init";

/// A program that boots a guest.
pub trait Emulator {
    /// How its guest talks and ends.
    fn link(&self) -> Link;

    /// What its guest's kernel needs on the command line beside what all need.
    fn arguments(&self) -> &'static str;

    /// The flags of `/proc/cpuinfo` that this emulator is chosen for. A run in which
    /// one of them is missing shows nothing.
    fn flags(&self) -> &'static [&'static str];

    /// How many times slower than software emulation by QEMU it is, at most.
    fn slowness(&self) -> u32;

    /// Lays down what it reads beside the kernel and the initramfs, and says how it
    /// is started.
    fn prepare(&self, options: &Options, image: &Image, dir: &RunDir) -> Result<Program, Error>;
}

/// The emulator that is asked for, or the option that it has no use for.
pub fn choose(options: &Options, image: &Image) -> Result<Box<dyn Emulator>, Error> {
    Ok(match options.emulator {
        EmulatorName::Qemu => Box::new(Qemu::choose(options, image)?),
        EmulatorName::Bochs => Box::new(Bochs::choose(options)?),
    })
}

/// The kernel's whole command line; what the caller adds comes last, and so wins.
pub fn command_line(emulator: &dyn Emulator, options: &Options) -> String {
    let all = [
        COMMAND_LINE,
        emulator.arguments(),
        options.flavor.arguments(),
        &options.append,
    ];
    all.into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The limits that are asked for; else the usual ones, times how slow it is.
pub fn limits(emulator: &dyn Emulator, options: &Options) -> Limits {
    let usual = options.usual_limits();
    let limit = |asked: Option<u64>, usual: Duration| {
        asked.map_or(usual * emulator.slowness(), Duration::from_secs)
    };
    Limits {
        boot: limit(options.boot_limit, usual.boot),
        run: limit(options.run_limit, usual.run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::options::tests::options;

    /// One that is never started.
    struct Slow;

    impl Emulator for Slow {
        fn link(&self) -> Link {
            Link::Virtio
        }

        fn arguments(&self) -> &'static str {
            "pti=on"
        }

        fn flags(&self) -> &'static [&'static str] {
            &[]
        }

        fn slowness(&self) -> u32 {
            3
        }

        fn prepare(&self, _: &Options, _: &Image, _: &RunDir) -> Result<Program, Error> {
            Err(Error("it is never started".into()))
        }
    }

    #[test]
    fn the_callers_arguments_come_last() {
        let options = options(&["--append", "pti=off quiet", "--flavor", "debug"]);
        let line = command_line(&Slow, &options);
        assert!(line.starts_with("console=ttyS0,115200 "), "{line}");
        assert!(line.ends_with(" pti=on no5lvl pti=off quiet"), "{line}");
        assert!(!line.contains("  "), "{line}");
    }

    #[test]
    fn only_the_usual_limits_are_stretched() {
        let stretched = limits(&Slow, &options(&[]));
        assert_eq!(stretched.boot, Duration::from_secs(180));
        assert_eq!(stretched.run, Duration::from_secs(1800));
        let asked = limits(&Slow, &options(&["--boot-limit", "7", "--run-limit", "8"]));
        assert_eq!(asked.boot, Duration::from_secs(7));
        assert_eq!(asked.run, Duration::from_secs(8));
    }
}
