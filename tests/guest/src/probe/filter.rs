// SPDX-License-Identifier: GPL-2.0
//! Seccomp filters that refuse one system call to this process.

use std::io;

use crate::suite::sys;

/// What the filter does to a caller.
#[derive(Clone, Copy)]
pub enum Answer {
    Errno(i32),
    Kill,
}

/// Where the number and the second argument lie in what a filter looks at.
const NUMBER: u32 = 0;
const SECOND_ARGUMENT: u32 = 24;

fn step(code: u32, constant: u32) -> libc::sock_filter {
    branch(code, constant, 0, 0)
}

fn branch(code: u32, constant: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k: constant,
    }
}

fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Goes on if it is `constant`; else skips `rest` steps.
fn is(constant: u32, rest: u8) -> libc::sock_filter {
    branch(
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        constant,
        0,
        rest,
    )
}

fn end(action: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, action)
}

/// From now on, `number` (with this second argument, if one is given) is
/// answered so.
pub fn install(number: i64, second: Option<u32>, answer: Answer) -> io::Result<()> {
    let action = match answer {
        Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(),
        Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    let number = number as u32;
    let filter = match second {
        None => vec![load(NUMBER), is(number, 1), end(action)],
        Some(second) => vec![
            load(NUMBER),
            is(number, 3),
            load(SECOND_ARGUMENT),
            is(second, 1),
            end(action),
        ],
    };
    attach([filter, vec![end(libc::SECCOMP_RET_ALLOW)]].concat())
}

fn attach(mut filter: Vec<libc::sock_filter>) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let arguments = [
        libc::SECCOMP_SET_MODE_FILTER as usize,
        0,
        std::ptr::from_ref(&program).expose_provenance(),
        0,
        0,
        0,
    ];
    sys::syscall(libc::SYS_seccomp, arguments).map(|_| ())
}
