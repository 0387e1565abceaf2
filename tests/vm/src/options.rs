// SPDX-License-Identifier: GPL-2.0
//! What the caller asks for: the program on the command line, everything else by
//! flags or by the environment variables that the Makefile passes on.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::session::Limits;

/// Boots a guest with jit.ko, runs one static program in it as root, and exits
/// with the program's exit status (128+n when a signal ended it).
#[derive(Debug, Parser)]
#[command(name = "vm")]
pub struct Options {
    /// A static binary on the host and its arguments, passed on as they are.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub program: Vec<String>,

    /// Files and folders to copy into the guest's /files, the program's working
    /// directory.
    #[arg(long, env = "FILES", value_delimiter = ' ')]
    pub files: Vec<String>,

    /// A folder that receives what the program leaves in the guest's /out.
    #[arg(long, env = "OUT")]
    pub out: Option<PathBuf>,

    /// Which kernel: Debian's own, or one of ours with checks.
    #[arg(long, env = "FLAVOR", value_enum, default_value = "stock")]
    pub flavor: Flavor,

    /// A kernel build folder of your own, instead of a flavour.
    #[arg(long, env = "KDIR")]
    pub kdir: Option<PathBuf>,

    /// What the guest runs on.
    #[arg(long, env = "EMULATOR", value_enum, default_value = "qemu")]
    pub emulator: EmulatorName,

    /// How QEMU executes the guest's instructions.
    #[arg(long, env = "ACCEL", value_enum, default_value = "auto")]
    pub accel: Accel,

    /// Virtual CPUs.
    #[arg(long, env = "SMP", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub smp: u32,

    /// Memory in MiB; 1024, or 2048 with checks.
    #[arg(long, env = "MEM")]
    pub mem: Option<u32>,

    /// More of the kernel's command line.
    #[arg(long, env = "APPEND", default_value = "", allow_hyphen_values = true)]
    pub append: String,

    /// More of QEMU's command line; its paths are those in the build root.
    #[arg(long, env = "QEMU", default_value = "", allow_hyphen_values = true)]
    pub qemu: String,

    /// A jit.ko to load, instead of one built from module/.
    #[arg(long, env = "MODULE")]
    pub module: Option<PathBuf>,

    /// Parameters of the module, as for insmod.
    #[arg(long, env = "PARAMS", default_value = "")]
    pub params: String,

    /// Boot without the module (any value but 0).
    #[arg(long, env = "NOMODULE", default_value = "0")]
    pub nomodule: String,

    /// Fail on leaked kernel memory: needs a kernel with kmemleak (any value but 0).
    #[arg(long, env = "LEAKS", default_value = "0")]
    pub leaks: String,

    /// The guest's init.
    #[arg(long, env = "INIT")]
    pub init: Option<PathBuf>,

    /// Also write the whole kernel log to this file.
    #[arg(long, env = "KERNEL_LOG")]
    pub kernel_log: Option<PathBuf>,

    /// Seconds until init must run; 60, or 240 with checks; five times that for Bochs.
    /// A slow machine gets more.
    #[arg(long, env = "BOOT_LIMIT")]
    pub boot_limit: Option<u64>,

    /// Seconds without output, each time, that are a stall; 600, or 1800 with checks;
    /// five times that for Bochs. A slow machine gets more.
    #[arg(long, env = "RUN_LIMIT")]
    pub run_limit: Option<u64>,
}

/// A kernel that the set-up scripts know how to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flavor {
    /// Debian's own kernel.
    Stock,
    /// KUnit, KASAN, lockdep, fault injection.
    Debug,
    /// The data-race detector.
    Kcsan,
}

impl Flavor {
    /// The name that the scripts use.
    pub fn name(self) -> &'static str {
        match self {
            Flavor::Stock => "stock",
            Flavor::Debug => "debug",
            Flavor::Kcsan => "kcsan",
        }
    }

    /// What this kernel needs on its command line.
    ///
    /// KASAN asks `boot_cpu_data` whether there are five levels of page tables,
    /// and `identify_cpu` clears that for a moment on its way: an interrupt then
    /// is reported as an access to wild memory, and lockdep turns itself off.
    pub fn arguments(self) -> &'static str {
        match self {
            Flavor::Debug => "no5lvl",
            Flavor::Stock | Flavor::Kcsan => "",
        }
    }
}

/// What the guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmulatorName {
    /// QEMU, with the host's virtualisation or by translation: fast.
    Qemu,
    /// Bochs, an interpreter: page table isolation with PCID and INVPCID.
    Bochs,
}

/// How QEMU executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where a trial boot under it works, else TCG.
    Auto,
    /// The host's virtualisation.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl Options {
    /// Whether the guest goes without the module.
    pub fn without_module(&self) -> bool {
        self.nomodule != "0" && !self.nomodule.is_empty()
    }

    /// Whether leaked kernel memory is searched for.
    pub fn watch_leaks(&self) -> bool {
        self.leaks != "0" && !self.leaks.is_empty()
    }

    /// The memory in MiB.
    pub fn memory(&self) -> u32 {
        self.mem.unwrap_or(self.for_flavor(1024, 2048))
    }

    /// The two limits that a guest of this flavour has in QEMU.
    pub fn usual_limits(&self) -> Limits {
        Limits {
            boot: Duration::from_secs(self.for_flavor(60, 240)),
            run: Duration::from_secs(self.for_flavor(600, 1800)),
        }
    }

    fn for_flavor<T>(&self, stock: T, checked: T) -> T {
        match self.flavor {
            Flavor::Stock => stock,
            Flavor::Debug | Flavor::Kcsan => checked,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    use clap::{CommandFactory, FromArgMatches};

    /// The options that these arguments mean, whatever the environment says.
    pub fn options(arguments: &[&str]) -> Options {
        let words = ["vm"].iter().chain(arguments).chain(&["program"]);
        let matches = Options::command()
            .mut_args(|argument| argument.env(None))
            .try_get_matches_from(words)
            .unwrap();
        Options::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn qemu_is_what_is_not_asked_for() {
        assert_eq!(options(&[]).emulator, EmulatorName::Qemu);
        let asked = options(&["--emulator", "bochs"]);
        assert_eq!(asked.emulator, EmulatorName::Bochs);
    }
}
