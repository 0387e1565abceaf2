// SPDX-License-Identifier: GPL-2.0
//! The conversation with a guest from its start to its end: passes on what the
//! program prints, keeps what the guest reports, and watches that it does not stall.
//! It judges nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use jitfd_vm_protocol::{Kind, receive};

use crate::error::Error;
use crate::qemu::Qemu;
use crate::watch::Watch;

/// QEMU ends within this once its guest has.
const GRACE: Duration = Duration::from_secs(10);

/// How long nothing may be heard of a guest. A slow machine gets more ([`Watch`]).
#[derive(Clone, Copy)]
pub struct Limits {
    /// From the start until init runs.
    pub boot: Duration,
    /// From then on, each time: output and all else that it sends begins it anew.
    pub run: Duration,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

/// How long nothing was heard, where that was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Init did not run.
    Boot(Duration),
    /// The guest neither said anything nor ended.
    Run(Duration),
}

/// Everything that was learned from a guest.
#[derive(Default)]
pub struct Outcome {
    /// Init ran.
    pub ready: bool,
    /// How the program ended.
    pub end: Option<End>,
    /// What init could not do.
    pub failures: Vec<String>,
    /// The kernel log as init sent it at its end.
    pub kernel_log: String,
    /// The guest said that nothing follows.
    pub ended: bool,
    /// A limit was passed.
    pub timeout: Option<Timeout>,
    /// How QEMU ended, if it did.
    pub qemu: Option<ExitStatus>,
}

impl Outcome {
    /// Whether the guest reached its end on purpose, and says that all went well.
    pub fn complete(&self) -> bool {
        self.ended
            && self.failures.is_empty()
            && self.qemu.and_then(|status| status.code()) == Some(jitfd_vm_protocol::QEMU_EXIT)
    }
}

/// Talks to the guest until it ends or stalls; then QEMU is gone.
pub fn hold(mut qemu: Qemu, limits: Limits, out: Option<&Path>) -> Result<Outcome, Error> {
    let (mut answers, reports) = qemu.channel().ok_or(Error("the channel is taken".into()))?;
    let (sender, frames) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut reports = io::BufReader::new(reports);
        while let Ok(frame) = receive(&mut reports) {
            if sender.send(frame).is_err() {
                return;
            }
        }
    });
    let mut session = Session::new(limits, out);
    session.listen(&frames)?;
    if session.outcome.ended {
        // It fails only when QEMU is gone, which is seen below.
        let _ = answers.write_all(b"\n");
    }
    if session.outcome.timeout.is_none() {
        session.outcome.qemu = qemu.wait(GRACE);
    }
    Ok(session.outcome)
}

struct Session<'a> {
    outcome: Outcome,
    limits: Limits,
    watch: Watch,
    out: Option<&'a Path>,
    file: Option<File>,
}

impl<'a> Session<'a> {
    fn new(limits: Limits, out: Option<&'a Path>) -> Session<'a> {
        Session {
            outcome: Outcome::default(),
            limits,
            watch: Watch::new(limits.boot),
            out,
            file: None,
        }
    }

    fn listen(&mut self, frames: &Receiver<(Kind, Vec<u8>)>) -> Result<(), Error> {
        let mut over = false;
        while !self.outcome.ended {
            match frames.recv_timeout(self.watch.left()) {
                Ok((kind, payload)) => {
                    self.take(kind, &payload)?;
                    self.watch.progress();
                    over = false;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                // Nothing came while the machine's speed was measured, either.
                Err(RecvTimeoutError::Timeout) if over => {
                    self.outcome.timeout = Some(self.stalled());
                    break;
                }
                Err(RecvTimeoutError::Timeout) => over = self.watch.is_over(),
            }
        }
        Ok(())
    }

    fn stalled(&self) -> Timeout {
        match self.outcome.ready {
            true => Timeout::Run(self.watch.silence()),
            false => Timeout::Boot(self.watch.silence()),
        }
    }

    fn take(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let text = || String::from_utf8_lossy(payload).into_owned();
        let byte = payload.first().copied().unwrap_or(u8::MAX);
        match kind {
            Kind::Ready => {
                self.outcome.ready = true;
                self.watch = Watch::new(self.limits.run);
            }
            Kind::Stdout => pass_on(io::stdout(), payload)?,
            Kind::Stderr => pass_on(io::stderr(), payload)?,
            Kind::Failure => self.outcome.failures.push(text()),
            Kind::FileName => self.open(&text())?,
            Kind::FileData => self.store(payload)?,
            Kind::KernelLog => self.outcome.kernel_log.push_str(&text()),
            Kind::Exited => self.outcome.end = Some(End::Exited(byte)),
            Kind::Killed => self.outcome.end = Some(End::Killed(byte)),
            Kind::End => self.outcome.ended = true,
        }
        Ok(())
    }

    /// Begins a file in the caller's folder. Without one, files are dropped.
    fn open(&mut self, name: &str) -> Result<(), Error> {
        let Some(out) = self.out else { return Ok(()) };
        if name.contains('/') || name == ".." {
            return Err(Error(format!("the guest sent a file named {name:?}")));
        }
        fs::create_dir_all(out).map_err(Error::at(out))?;
        let path = out.join(name);
        self.file = Some(File::create(&path).map_err(Error::at(&path))?);
        Ok(())
    }

    fn store(&mut self, data: &[u8]) -> Result<(), Error> {
        match &mut self.file {
            Some(file) => file.write_all(data).map_err(Error::doing("OUT")),
            None => Ok(()),
        }
    }
}

fn pass_on(mut stream: impl Write, bytes: &[u8]) -> Result<(), Error> {
    stream
        .write_all(bytes)
        .and_then(|()| stream.flush())
        .map_err(Error::doing("passing on the program's output"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(50);

    /// What is learned, and whether the limit began anew.
    fn hear(limits: Limits, kinds: &[Kind]) -> (Outcome, bool) {
        let mut session = Session::new(limits, None);
        let (sender, frames) = mpsc::sync_channel(8);
        thread::sleep(SHORT);
        let start = Instant::now();
        for kind in kinds {
            sender.send((*kind, Vec::new())).unwrap();
        }
        session.listen(&frames).unwrap();
        let silence = session.watch.silence();
        (session.outcome, silence <= start.elapsed())
    }

    #[test]
    fn whatever_the_guest_sends_begins_the_limit_anew() {
        let limits = Limits {
            boot: LONG,
            run: LONG,
        };
        let (outcome, anew) = hear(limits, &[Kind::Stdout, Kind::End]);
        assert!(outcome.ended && outcome.timeout.is_none());
        assert!(anew);
    }

    #[test]
    fn a_guest_that_says_nothing_has_stalled() {
        let limits = |boot, run| Limits { boot, run };
        let (outcome, _) = hear(limits(SHORT, LONG), &[]);
        assert!(matches!(outcome.timeout, Some(Timeout::Boot(_))));
        let (outcome, _) = hear(limits(LONG, SHORT), &[Kind::Ready, Kind::Stdout]);
        assert!(matches!(outcome.timeout, Some(Timeout::Run(_))));
    }
}
