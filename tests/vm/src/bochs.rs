// SPDX-License-Identifier: GPL-2.0
//! Bochs: its configuration, the medium that its guest boots from, and its start.
//!
//! What it is for: it has PCID and INVPCID, which QEMU's software emulation has not,
//! so the kernel's page table isolation switches between two PCIDs, and two TLBs a
//! CPU. It interprets, all CPUs in turn in one thread, one trace of instructions each,
//! and its clock counts instructions: what the guest takes for a second does not depend
//! on this machine.
//!
//! What it is not: it ignores bit 63 of a new CR3, and INVPCID of one address or one
//! PCID drops every translation that is not global. No stale entry survives either.

use std::fs;
use std::path::PathBuf;

use jitfd_vm_protocol::Link;

use crate::emulator::{self, Emulator};
use crate::error::Error;
use crate::guest::{Program, RUN, in_kernel};
use crate::image::{self, Image};
use crate::options::{Accel, Options};
use crate::rundir::RunDir;

/// Instructions in a second of the guest, of each CPU if all are busy.
const INSTRUCTIONS: u32 = 50_000_000;

/// The newer ones fail the kernel's check of what XSAVE saves.
const MODEL: &str = "corei7_haswell_4770";

/// With more the kernel has not booted after a quarter of an hour; and what Bochs
/// allocates.
const MOST_CPUS: u32 = 4;
const MOST_MEMORY: u32 = 2048;

/// What isolinux reads of one line of its configuration, and the kernel of its own.
const LONGEST_LINE: usize = 2000;

/// Makes the boot medium and becomes Bochs. The channel, on standard output, is kept as
/// descriptor 3 for the serial port, and the screen goes nowhere: Bochs would draw it on
/// a terminal of its own, and wait when nobody reads that.
const START: &str = r#"set -e
kernel=$1; shift
xorriso -as mkisofs -quiet -o "$RUN/$MEDIUM" -b isolinux.bin -c boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table -graft-points \
    isolinux.bin=/usr/lib/ISOLINUX/isolinux.bin \
    ldlinux.c32=/usr/lib/syslinux/modules/bios/ldlinux.c32 \
    isolinux.cfg="$RUN/isolinux.cfg" vmlinuz="$kernel" initramfs="$RUN/$INITRAMFS" >&2
[ ! -e /dev/ptmx ] || mount --bind /dev/null /dev/ptmx
exec bochs -q -f "$RUN/bochsrc" 3>&1 >&2 </dev/null"#;

/// Bochs with the root that it is in.
pub struct Bochs {
    root: PathBuf,
}

impl Bochs {
    /// Has its root built if it is not there yet.
    pub fn choose(options: &Options) -> Result<Bochs, Error> {
        if let Some(refusal) = refusal(options) {
            return Err(Error(format!("EMULATOR=bochs: {refusal}")));
        }
        let root = image::root(Some("bochs"), options)?;
        eprintln!("vm: emulator bochs (its CPU is {MODEL})");
        Ok(Bochs { root })
    }
}

/// What is asked for that Bochs cannot do.
fn refusal(options: &Options) -> Option<String> {
    if options.accel != Accel::Auto {
        return Some("it has one way to run, so ACCEL= must be auto or absent".into());
    }
    if !options.qemu.trim().is_empty() {
        return Some("QEMU= has arguments of another emulator".into());
    }
    if options.smp > MOST_CPUS {
        return Some(format!("SMP= is at most {MOST_CPUS}"));
    }
    if options.memory() > MOST_MEMORY {
        return Some(format!("MEM= is at most {MOST_MEMORY}"));
    }
    if options.append.contains(char::is_control) {
        return Some("APPEND= must be one line".into());
    }
    None
}

impl Emulator for Bochs {
    fn link(&self) -> Link {
        Link::Serial
    }

    /// A reboot, also that of a panic, would boot the same again. By a triple fault it
    /// ends Bochs.
    fn arguments(&self) -> &'static str {
        "pti=on reboot=t"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["pti", "pcid", "invpcid"]
    }

    fn slowness(&self) -> u32 {
        5
    }

    fn prepare(&self, options: &Options, image: &Image, dir: &RunDir) -> Result<Program, Error> {
        let line = emulator::command_line(self, options);
        if line.len() > LONGEST_LINE {
            return Err(Error("EMULATOR=bochs: APPEND= is too long".into()));
        }
        write(dir, "isolinux.cfg", &menu(&line))?;
        write(
            dir,
            "bochsrc",
            &configuration(options.smp, options.memory()),
        )?;
        let mut words = vec!["env".into(), "TERM=dumb".into(), format!("RUN={RUN}")];
        words.push(format!("MEDIUM={}", RunDir::MEDIUM));
        words.push(format!("INITRAMFS={}", RunDir::INITRAMFS));
        words.extend(["sh", "-c", START, "sh"].map(str::to_owned));
        words.push(in_kernel(&image.vmlinuz)?);
        Ok(Program {
            root: self.root.clone(),
            words,
            // Bochs calls every end a fatal message; that the guest meant it is said
            // by the frames before.
            ends_with: 1,
        })
    }
}

fn write(dir: &RunDir, name: &str, text: &str) -> Result<(), Error> {
    let path = dir.path().join(name);
    fs::write(&path, text).map_err(Error::at(&path))
}

/// What the boot loader reads.
fn menu(command_line: &str) -> String {
    format!(
        "DEFAULT jitfd\nPROMPT 0\nTIMEOUT 0\nLABEL jitfd\n  KERNEL /vmlinuz\n  \
         INITRD /initramfs\n  APPEND {command_line}\n"
    )
}

/// What Bochs reads. A triple fault is a panic, and every panic is the end. Its errors
/// are unknown registers of the CPU, thousands of them.
fn configuration(cpus: u32, memory: u32) -> String {
    format!(
        "display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model={MODEL}, count={cpus}, ips={INSTRUCTIONS}, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
clock: sync=none
boot: cdrom
ata0-master: type=cdrom, path={RUN}/{medium}, status=inserted
com1: enabled=1, mode=file, dev={RUN}/{console}
com2: enabled=1, mode=file, dev=/proc/self/fd/3
plugin_ctrl: voodoo=0, e1000=0, sb16=0, es1370=0, speaker=0
log: {RUN}/bochs.log
panic: action=fatal
error: action=ignore
info: action=report
debug: action=ignore
",
        medium = RunDir::MEDIUM,
        console = RunDir::CONSOLE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::options::tests::options;

    #[test]
    fn the_configuration_has_what_is_asked_for() {
        let text = configuration(4, 512);
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{text}");
        has("cpu: model=corei7_haswell_4770, count=4, ips=50000000, reset_on_triple_fault=0");
        has("memory: guest=512, host=512");
        has("com1: enabled=1, mode=file, dev=/mnt/run/console.log");
        has("ata0-master: type=cdrom, path=/mnt/run/boot.iso, status=inserted");
    }

    #[test]
    fn the_menu_boots_at_once_with_the_command_line() {
        let text = menu("a=b c");
        assert!(text.contains("\nPROMPT 0\n"));
        assert!(text.ends_with("\n  APPEND a=b c\n"));
    }

    #[test]
    fn what_bochs_cannot_do_is_refused() {
        let refused = |arguments: &[&str], word: &str| {
            let why = refusal(&options(arguments)).expect("a refusal");
            assert!(why.contains(word), "{why}");
        };
        refused(&["--accel", "tcg"], "ACCEL=");
        refused(&["--accel", "kvm"], "ACCEL=");
        refused(&["--qemu", "-s"], "QEMU=");
        refused(&["--smp", "5"], "SMP=");
        refused(&["--mem", "2049"], "MEM=");
        refused(&["--append", "a\nb"], "APPEND=");
        assert_eq!(refusal(&options(&[])), None);
        let most = ["--smp", "4", "--mem", "2048", "--flavor", "debug"];
        assert_eq!(refusal(&options(&most)), None);
    }
}
