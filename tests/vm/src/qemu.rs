// SPDX-License-Identifier: GPL-2.0
//! The QEMU process: its command line, its start inside the build root, and its
//! certain end, also when the runner itself is killed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jitfd_vm_protocol::{DEBUG_EXIT_PORT, PORT_NAME};

use crate::accel::Engine;
use crate::error::Error;
use crate::image::{self, Image};
use crate::interrupt;
use crate::options::Options;
use crate::rundir::RunDir;

/// Enters the root as every set-up script does: in a box, which ends with this bash,
/// as bash is told to end with the runner.
const ENTER: &str = r#". "$0"; in_root "$@""#;

/// The kernel's command line. Warnings go to the serial console, which is slow;
/// the whole log comes through the channel. A fault or a stall is the end. The check of
/// the timer's interrupt counts ticks against the time of day, and panics when the host
/// has let the guest wait meanwhile.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 log_buf_len=8M panic=-1 oops=panic \
     softlockup_panic=1 page_poison=1 no_timer_check rdinit=/init";

fn command_line(options: &Options) -> String {
    format!(
        "{COMMAND_LINE} {} {}",
        options.flavor.arguments(),
        options.append
    )
}

/// A running QEMU. Dropping it ends it.
pub struct Qemu {
    child: Child,
}

impl Qemu {
    /// Starts a guest that boots from the initramfs in `dir`.
    pub fn start(
        options: &Options,
        image: &Image,
        dir: &RunDir,
        engine: Engine,
    ) -> Result<Qemu, Error> {
        let errors = File::create(dir.qemu_log()).map_err(Error::at(&dir.qemu_log()))?;
        let mut command = Command::new("bash");
        command
            .args(["-c", ENTER])
            .arg(image::scripts().join("lib.sh"))
            .arg(&image.root)
            .arg(bind(dir.path(), "mnt/run"))
            .arg(bind(parent(&image.vmlinuz)?, "mnt/kernel"))
            .args(["--", "qemu-system-x86_64", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-machine", "pc"])
            .args(engine.arguments())
            .args(["-smp", &options.smp.to_string()])
            .args(["-m", &options.memory().to_string()])
            .args(["-kernel", &format!("/mnt/kernel/{}", name(&image.vmlinuz)?)])
            .args(["-initrd", "/mnt/run/initramfs.cpio"])
            .args(["-append", &command_line(options)])
            .args(["-serial", "file:/mnt/run/console.log"])
            .args(["-chardev", "stdio,id=channel,signal=off"])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-device",
                &format!("virtserialport,chardev=channel,name={PORT_NAME}"),
            ])
            .args([
                "-device",
                &format!("isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=0x04"),
            ])
            .args(options.qemu.split_whitespace())
            .env("CACHE", &image.cache)
            .env("SETUP_ASKED", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(Error::doing("bash"))?;
        Ok(Qemu { child })
    }

    /// The two directions of the channel to the guest. Both are there once.
    pub fn channel(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// Waits for QEMU to end by itself, and gives up at the limit or for a signal.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline && interrupt::check().is_ok() => {
                    thread::sleep(Duration::from_millis(5));
                }
                _ => return None,
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bind(source: &Path, target: &str) -> String {
    format!("{}:{target}", source.display())
}

fn parent(path: &Path) -> Result<&Path, Error> {
    path.parent()
        .ok_or(Error(format!("{} has no folder", path.display())))
}

fn name(path: &Path) -> Result<&str, Error> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or(Error(format!("{} names no file", path.display())))
}

fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is a plain system call: it allocates nothing and takes no
    // lock, so it may run between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
}
