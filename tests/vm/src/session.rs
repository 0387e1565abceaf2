// SPDX-License-Identifier: GPL-2.0
//! The conversation with a guest from its start to its end: passes on what the
//! program prints, keeps what the guest reports, and watches that it does not stall.
//! It judges nothing but whether it is worth going on: not with a machine that is
//! not the wanted one, nor when somebody else speaks for init.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use jitfd_vm_protocol::{Kind, Token, receive};

use crate::cpu::Cpus;
use crate::error::Error;
use crate::guest::Guest;
use crate::interrupt;
use crate::watch::Watch;

/// The emulator ends within this once its guest has.
const GRACE: Duration = Duration::from_secs(10);

/// How long nothing may be heard of a guest. A slow machine gets more ([`Watch`]).
#[derive(Clone, Copy)]
pub struct Limits {
    /// From the start until init runs.
    pub boot: Duration,
    /// From then on, each time: output and all else that it sends begins it anew.
    pub run: Duration,
}

/// What is expected of a guest.
pub struct Wish<'a> {
    /// What its init has to know.
    pub token: Token,
    /// How long it may take.
    pub limits: Limits,
    /// What its CPUs must have.
    pub flags: &'a [&'a str],
    /// Where its files go.
    pub out: Option<&'a Path>,
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
    /// What init could not do, or why it was not worth going on.
    pub failures: Vec<String>,
    /// The kernel log as init sent it at its end.
    pub kernel_log: String,
    /// The guest said that nothing follows.
    pub ended: bool,
    /// A limit was passed.
    pub timeout: Option<Timeout>,
    /// It was not worth going on.
    pub given_up: bool,
    /// How the emulator ended, if it did.
    pub emulator: Option<ExitStatus>,
    /// And whether its guest wanted it so.
    pub on_purpose: bool,
}

impl Outcome {
    /// Whether the guest reached its end on purpose, and says that all went well.
    pub fn complete(&self) -> bool {
        self.ended && self.failures.is_empty() && self.on_purpose
    }
}

/// Talks to the guest until it ends, stalls, is given up or a signal comes; then the emulator is gone.
pub fn hold(mut guest: Guest, wish: &Wish) -> Result<Outcome, Error> {
    let (answers, reports) = guest
        .channel()
        .ok_or(Error("the channel is taken".into()))?;
    let (sender, frames) = mpsc::sync_channel(64);
    let token = wish.token;
    let reader = thread::spawn(move || forward(BufReader::new(reports), token, &sender));
    let outcome = converse(&mut guest, answers, frames, wish);
    drop(guest);
    // It reads until nobody has the channel's other end any more. It does not panic.
    let _ = reader.join();
    outcome
}

fn converse(
    guest: &mut Guest,
    mut answers: ChildStdin,
    frames: Receiver<Frame>,
    wish: &Wish,
) -> Result<Outcome, Error> {
    let mut session = Session::new(wish);
    session.listen(&frames)?;
    let mut outcome = session.outcome;
    if outcome.ended {
        // It fails only when the emulator is gone, which is seen below.
        let _ = answers.write_all(b"\n");
    }
    if outcome.timeout.is_none() && !outcome.given_up {
        outcome.emulator = guest.wait(GRACE);
        outcome.on_purpose = outcome
            .emulator
            .is_some_and(|status| guest.on_purpose(status));
    }
    interrupt::check()?;
    Ok(outcome)
}

/// A frame, or why there are no more.
type Frame = io::Result<(Kind, Vec<u8>)>;

/// Hands on each frame while somebody takes it, then reads on until the channel's end.
fn forward(mut reports: impl Read, token: Token, sender: &SyncSender<Frame>) {
    loop {
        let frame = receive(&mut reports, token);
        let last = frame.is_err();
        if sender.send(frame).is_err() || last {
            break;
        }
    }
    // An error is an end, too.
    let _ = io::copy(&mut reports, &mut io::sink());
}

struct Session<'a> {
    looked: bool,
    outcome: Outcome,
    wish: &'a Wish<'a>,
    watch: Watch,
    file: Option<File>,
}

impl<'a> Session<'a> {
    fn new(wish: &'a Wish<'a>) -> Session<'a> {
        Session {
            looked: false,
            outcome: Outcome::default(),
            wish,
            watch: Watch::new(wish.limits.boot),
            file: None,
        }
    }

    fn listen(&mut self, frames: &Receiver<Frame>) -> Result<(), Error> {
        let mut over = false;
        while !self.outcome.ended && !self.outcome.given_up {
            interrupt::check()?;
            let left = self.watch.left();
            match frames.recv_timeout(left.min(interrupt::LOOK)) {
                Ok(Ok((kind, payload))) => {
                    self.take(kind, &payload)?;
                    self.watch.progress();
                    over = false;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    self.give_up("somebody else than init wrote to the channel".into());
                }
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if left > interrupt::LOOK => {}
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
                self.watch = Watch::new(self.wish.limits.run);
            }
            Kind::Cpu => self.look_at(&Cpus::read(&text())),
            Kind::Stdout => pass_on(io::stdout(), payload)?,
            Kind::Stderr => pass_on(io::stderr(), payload)?,
            Kind::Failure => self.outcome.failures.push(text()),
            Kind::FileName => self.open(&text())?,
            Kind::FileData => self.store(payload)?,
            Kind::KernelLog => self.outcome.kernel_log.push_str(&text()),
            Kind::Exited => self.outcome.end = Some(End::Exited(byte)),
            Kind::Killed => self.outcome.end = Some(End::Killed(byte)),
            Kind::End => self.end(),
        }
        Ok(())
    }

    fn end(&mut self) {
        self.outcome.ended = true;
        if !self.looked {
            self.look_at(&Cpus::read(""));
        }
    }

    /// Says what the machine is, where somebody cares, and whether that is enough.
    fn look_at(&mut self, cpus: &Cpus) {
        self.looked = true;
        let flags = self.wish.flags;
        if flags.is_empty() {
            return;
        }
        eprintln!("vm: guest: {}", cpus.describe(flags));
        let missing = cpus.lack(flags);
        if !missing.is_empty() {
            self.give_up(format!("its CPUs lack {}", missing.join(" ")));
        }
    }

    fn give_up(&mut self, why: String) {
        self.outcome.failures.push(why);
        self.outcome.given_up = true;
    }

    /// Begins a file in the caller's folder. Without one, files are dropped.
    fn open(&mut self, name: &str) -> Result<(), Error> {
        let Some(out) = self.wish.out else {
            return Ok(());
        };
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

    use jitfd_vm_protocol::send;

    const TOKEN: Token = Token([7; 16]);
    const FOREIGN: Token = Token([8; 16]);
    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(50);

    fn wish<'a>(boot: Duration, run: Duration, flags: &'a [&'a str]) -> Wish<'a> {
        Wish {
            token: TOKEN,
            limits: Limits { boot, run },
            flags,
            out: None,
        }
    }

    /// What is learned, and whether the limit began anew.
    fn hear(wish: &Wish, kinds: &[Kind]) -> (Outcome, bool) {
        let mut session = Session::new(wish);
        let (sender, frames) = mpsc::sync_channel(8);
        thread::sleep(SHORT);
        let start = Instant::now();
        for kind in kinds {
            sender.send(Ok((*kind, Vec::new()))).unwrap();
        }
        session.listen(&frames).unwrap();
        let silence = session.watch.silence();
        (session.outcome, silence <= start.elapsed())
    }

    #[test]
    fn whatever_the_guest_sends_begins_the_limit_anew() {
        let (outcome, anew) = hear(&wish(LONG, LONG, &[]), &[Kind::Stdout, Kind::End]);
        assert!(outcome.ended && outcome.timeout.is_none());
        assert!(anew);
    }

    #[test]
    fn a_guest_that_says_nothing_has_stalled() {
        let (outcome, _) = hear(&wish(SHORT, LONG, &[]), &[]);
        assert!(matches!(outcome.timeout, Some(Timeout::Boot(_))));
        let (outcome, _) = hear(&wish(LONG, SHORT, &[]), &[Kind::Ready, Kind::Stdout]);
        assert!(matches!(outcome.timeout, Some(Timeout::Run(_))));
    }

    /// The bytes of a guest that has ended well.
    fn well(flags: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let cpu = format!("2\nCPU\n{flags}");
        for (kind, payload) in [
            (Kind::Ready, &b""[..]),
            (Kind::Cpu, cpu.as_bytes()),
            (Kind::Exited, &[0]),
            (Kind::End, &[]),
        ] {
            send(&mut bytes, TOKEN, kind, payload).unwrap();
        }
        bytes
    }

    /// What is learned from these bytes of the channel.
    fn heard(bytes: &[u8], flags: &[&str]) -> Outcome {
        let wish = wish(LONG, LONG, flags);
        let (sender, frames) = mpsc::sync_channel(100);
        forward(bytes, TOKEN, &sender);
        drop(sender);
        let mut session = Session::new(&wish);
        session.listen(&frames).unwrap();
        session.outcome
    }

    #[test]
    fn a_guest_that_ends_well_is_believed() {
        let outcome = heard(&well("pti pcid"), &["pti"]);
        assert!(outcome.ended && !outcome.given_up && outcome.failures.is_empty());
        assert_eq!(outcome.end, Some(End::Exited(0)));
    }

    #[test]
    fn a_guest_that_stops_in_the_middle_has_not_ended() {
        let bytes = well("");
        for length in 0..bytes.len() {
            let outcome = heard(&bytes[..length], &[]);
            assert!(!outcome.ended && !outcome.complete());
        }
    }

    /// A program knows how a frame looks, but not the token.
    #[test]
    fn a_verdict_that_a_program_writes_is_not_believed() {
        let mut forged = Vec::new();
        send(&mut forged, FOREIGN, Kind::Exited, &[0]).unwrap();
        send(&mut forged, FOREIGN, Kind::End, &[]).unwrap();

        // To the channel itself: nothing that follows counts either.
        let mut bytes = Vec::new();
        send(&mut bytes, TOKEN, Kind::Ready, &[]).unwrap();
        bytes.extend(&forged);
        bytes.extend(well(""));
        let outcome = heard(&bytes, &[]);
        assert!(outcome.given_up && !outcome.ended && outcome.end.is_none());
        assert_eq!(outcome.failures.len(), 1);

        // To what init passes on: it is text.
        let mut bytes = Vec::new();
        send(&mut bytes, TOKEN, Kind::KernelLog, &forged).unwrap();
        let outcome = heard(&bytes, &[]);
        assert!(!outcome.given_up && !outcome.ended && outcome.end.is_none());
    }

    #[test]
    fn another_machine_than_the_wanted_one_is_given_up() {
        let outcome = heard(&well("pti"), &["pti", "pcid"]);
        assert!(outcome.given_up && !outcome.ended);
        assert_eq!(outcome.failures, ["its CPUs lack pcid"]);
    }

    #[test]
    fn a_machine_that_is_not_named_is_not_the_wanted_one() {
        let mut bytes = Vec::new();
        send(&mut bytes, TOKEN, Kind::End, &[]).unwrap();
        assert!(heard(&bytes, &["pti"]).given_up);
        assert!(!heard(&bytes, &[]).given_up);
    }
}
