// SPDX-License-Identifier: GPL-2.0
//! The conversation with a guest from its start to its end: passes on what the
//! program prints, keeps what the guest reports, and watches both time limits.
//! It judges nothing.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use jitfd_vm_protocol::{Kind, receive};

use crate::error::Error;
use crate::interrupt;
use crate::qemu::Qemu;

/// QEMU ends within this once its guest has.
const GRACE: Duration = Duration::from_secs(10);

/// How long a guest may take.
#[derive(Clone, Copy)]
pub struct Limits {
    /// From the start until init runs.
    pub boot: Duration,
    /// From then to the end.
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

/// Which limit was passed, and what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Init did not run in time.
    Boot(Duration),
    /// The guest did not end in time.
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

/// Talks to the guest until it ends, a limit is passed or a signal comes; then QEMU is
/// gone.
pub fn hold(mut qemu: Qemu, limits: Limits, out: Option<&Path>) -> Result<Outcome, Error> {
    let (answers, reports) = qemu.channel().ok_or(Error("the channel is taken".into()))?;
    let (sender, frames) = mpsc::sync_channel(64);
    let reader = thread::spawn(move || pass_frames(reports, &sender));
    let outcome = converse(&mut qemu, answers, frames, limits, out);
    drop(qemu);
    // It reads until nobody has the channel's other end any more. It does not panic.
    let _ = reader.join();
    outcome
}

/// Hands on each frame while somebody takes it, then reads on until the channel's end.
fn pass_frames(reports: impl Read, frames: &SyncSender<(Kind, Vec<u8>)>) {
    let mut reports = BufReader::new(reports);
    while let Ok(frame) = receive(&mut reports) {
        if frames.send(frame).is_err() {
            break;
        }
    }
    // An error is an end, too.
    let _ = io::copy(&mut reports, &mut io::sink());
}

fn converse(
    qemu: &mut Qemu,
    mut answers: ChildStdin,
    frames: Receiver<(Kind, Vec<u8>)>,
    limits: Limits,
    out: Option<&Path>,
) -> Result<Outcome, Error> {
    let mut session = Session::new(limits, out);
    session.listen(&frames)?;
    if session.outcome.ended {
        // It fails only when QEMU is gone, which is seen below.
        let _ = answers.write_all(b"\n");
    }
    if session.outcome.timeout.is_none() {
        session.outcome.qemu = qemu.wait(GRACE);
    }
    interrupt::check()?;
    Ok(session.outcome)
}

struct Session<'a> {
    outcome: Outcome,
    limits: Limits,
    deadline: Instant,
    out: Option<&'a Path>,
    file: Option<File>,
}

impl<'a> Session<'a> {
    fn new(limits: Limits, out: Option<&'a Path>) -> Session<'a> {
        Session {
            outcome: Outcome::default(),
            limits,
            deadline: Instant::now() + limits.boot,
            out,
            file: None,
        }
    }

    fn listen(&mut self, frames: &Receiver<(Kind, Vec<u8>)>) -> Result<(), Error> {
        while !self.outcome.ended {
            interrupt::check()?;
            let left = self.deadline.saturating_duration_since(Instant::now());
            match frames.recv_timeout(left.min(interrupt::LOOK)) {
                Ok((kind, payload)) => self.take(kind, &payload)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if left > interrupt::LOOK => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.outcome.timeout = Some(self.passed_limit());
                    break;
                }
            }
        }
        Ok(())
    }

    fn passed_limit(&self) -> Timeout {
        match self.outcome.ready {
            true => Timeout::Run(self.limits.run),
            false => Timeout::Boot(self.limits.boot),
        }
    }

    fn take(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let text = || String::from_utf8_lossy(payload).into_owned();
        let byte = payload.first().copied().unwrap_or(u8::MAX);
        match kind {
            Kind::Ready => {
                self.outcome.ready = true;
                self.deadline = Instant::now() + self.limits.run;
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
