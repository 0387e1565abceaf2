// SPDX-License-Identifier: GPL-2.0
//! QEMU: its command line. The guest's virtio port is QEMU's standard input and
//! output.

use jitfd_vm_protocol::{DEBUG_EXIT_PORT, Link, PORT_NAME, QEMU_EXIT};

use crate::accel::{self, Engine};
use crate::emulator::{self, Emulator};
use crate::error::Error;
use crate::guest::{Program, RUN, in_kernel};
use crate::image::Image;
use crate::options::Options;
use crate::rundir::RunDir;

/// QEMU with what it executes the guest with.
pub struct Qemu(pub Engine);

impl Qemu {
    /// Does as the options say, finds out what they leave open.
    pub fn choose(options: &Options, image: &Image) -> Result<Qemu, Error> {
        accel::choose(options, image).map(Qemu)
    }
}

impl Emulator for Qemu {
    fn link(&self) -> Link {
        Link::Virtio
    }

    fn arguments(&self) -> &'static str {
        ""
    }

    fn flags(&self) -> &'static [&'static str] {
        &[]
    }

    fn slowness(&self) -> u32 {
        1
    }

    fn prepare(&self, options: &Options, image: &Image, _: &RunDir) -> Result<Program, Error> {
        let mut words: Vec<String> = ["qemu-system-x86_64", "-nodefaults", "-no-reboot"]
            .into_iter()
            .chain(["-display", "none", "-machine", "pc"])
            .chain(self.0.arguments())
            .map(str::to_owned)
            .collect();
        let values = [
            ("-smp", options.smp.to_string()),
            ("-m", options.memory().to_string()),
            ("-kernel", in_kernel(&image.vmlinuz)?),
            ("-initrd", format!("{RUN}/{}", RunDir::INITRAMFS)),
            ("-append", emulator::command_line(self, options)),
            ("-serial", format!("file:{RUN}/{}", RunDir::CONSOLE)),
            ("-chardev", "stdio,id=channel,signal=off".into()),
            ("-device", "virtio-serial-pci".into()),
            (
                "-device",
                format!("virtserialport,chardev=channel,name={PORT_NAME}"),
            ),
            (
                "-device",
                format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x04"),
            ),
        ];
        for (name, value) in values {
            words.extend([name.to_owned(), value]);
        }
        words.extend(options.qemu.split_whitespace().map(str::to_owned));
        Ok(Program {
            root: image.root.clone(),
            words,
            ends_with: QEMU_EXIT,
        })
    }
}
