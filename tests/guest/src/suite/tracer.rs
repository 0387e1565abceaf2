// SPDX-License-Identifier: GPL-2.0
//! A child that is traced, as a debugger does it.

use std::io;

use super::outcome::{Checked, OrFail, Outcome, failed};
use super::process::Child;
use super::sys;

/// A traced thread of a child, stopped between the calls.
pub struct Traced {
    tid: libc::pid_t,
}

fn ptrace(request: u32, tid: libc::pid_t, addr: usize, data: usize) -> io::Result<i64> {
    let arguments = [request as usize, tid as usize, addr, data, 0, 0];
    sys::syscall(libc::SYS_ptrace, arguments)
}

impl Traced {
    /// Attaches to a thread of a child and stops it.
    pub fn attach(tid: libc::pid_t) -> Checked<Self> {
        ptrace(libc::PTRACE_SEIZE, tid, 0, 0).or_fail("PTRACE_SEIZE")?;
        let traced = Traced { tid };
        traced.stop()?;
        Ok(traced)
    }

    /// Starts a child that does nothing, and attaches to it.
    pub fn idle_child() -> Checked<(Child, Self)> {
        let child = Child::start(|| {
            loop {
                std::thread::park();
            }
        })?;
        let traced = Traced::attach(child.pid())?;
        Ok((child, traced))
    }

    /// Stops it, wherever it is.
    pub fn stop(&self) -> Outcome {
        ptrace(libc::PTRACE_INTERRUPT, self.tid, 0, 0).or_fail("PTRACE_INTERRUPT")?;
        self.wait().map(|_| ())
    }

    /// Lets it run, and hands it a signal unless that is 0.
    pub fn go_on(&self, signal: i32) -> Outcome {
        ptrace(libc::PTRACE_CONT, self.tid, 0, signal as usize)
            .or_fail("PTRACE_CONT")
            .map(|_| ())
    }

    /// Lets it run until one instruction is done. Returns the signal of the
    /// stop, SIGTRAP where all is well.
    pub fn step(&self, signal: i32) -> Checked<i32> {
        ptrace(libc::PTRACE_SINGLESTEP, self.tid, 0, signal as usize)
            .or_fail("PTRACE_SINGLESTEP")?;
        let status = self.wait()?;
        if libc::WIFSTOPPED(status) {
            return Ok(libc::WSTOPSIG(status));
        }
        failed(format!("it ended with {status:#x}"))
    }

    /// Waits until it stops or ends.
    pub fn wait(&self) -> Checked<i32> {
        sys::wait_for_thread(self.tid).or_fail("wait for a traced thread")
    }

    /// Its stop or its end, if that has come already.
    pub fn state_now(&self) -> Checked<Option<i32>> {
        sys::poll_thread(self.tid).or_fail("look at a traced thread")
    }

    /// Lets it go.
    pub fn detach(self) -> Outcome {
        ptrace(libc::PTRACE_DETACH, self.tid, 0, 0)
            .or_fail("PTRACE_DETACH")
            .map(|_| ())
    }

    /// Eight bytes of its memory.
    pub fn peek(&self, addr: usize) -> io::Result<[u8; 8]> {
        let mut word = 0u64;
        let data = std::ptr::from_mut(&mut word).expose_provenance();
        ptrace(libc::PTRACE_PEEKTEXT, self.tid, addr, data)?;
        Ok(word.to_ne_bytes())
    }

    /// Writes eight bytes to its memory.
    pub fn poke(&self, addr: usize, bytes: [u8; 8]) -> io::Result<()> {
        let word = u64::from_ne_bytes(bytes) as usize;
        ptrace(libc::PTRACE_POKETEXT, self.tid, addr, word).map(|_| ())
    }

    /// Its registers.
    pub fn registers(&self) -> Checked<libc::user_regs_struct> {
        // SAFETY: all zeros is a valid value; the kernel fills it.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let data = std::ptr::from_mut(&mut registers).expose_provenance();
        ptrace(libc::PTRACE_GETREGS, self.tid, 0, data).or_fail("PTRACE_GETREGS")?;
        Ok(registers)
    }

    /// The `si_code` of the signal that it stands before.
    pub fn signal_code(&self) -> Checked<i32> {
        // SAFETY: all zeros is a valid value; the kernel fills it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let data = std::ptr::from_mut(&mut info).expose_provenance();
        ptrace(libc::PTRACE_GETSIGINFO, self.tid, 0, data).or_fail("PTRACE_GETSIGINFO")?;
        Ok(info.si_code)
    }

    /// Changes its registers.
    pub fn set_registers(&self, registers: &libc::user_regs_struct) -> Outcome {
        let data = std::ptr::from_ref(registers).expose_provenance();
        ptrace(libc::PTRACE_SETREGS, self.tid, 0, data)
            .or_fail("PTRACE_SETREGS")
            .map(|_| ())
    }
}
