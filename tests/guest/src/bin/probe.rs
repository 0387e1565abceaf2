// SPDX-License-Identifier: GPL-2.0
//! `jitctl` and `jitfd::probe()` where things are refused: each obstacle is put in
//! the way, and must be named. Each test is a process of its own, so what it gives
//! up is gone with it.

#[path = "../probe/expect.rs"]
mod expect;
#[path = "../probe/filter.rs"]
mod filter;

/// The harness of the suite, and of its tools what that needs.
#[expect(dead_code, reason = "the suite uses all of it")]
#[path = "../suite"]
mod suite {
    pub mod harness;
    pub mod kmod;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

use expect::{and_restore, blamed, jitctl, make, working};
use filter::Answer;
use jitctl::Status;
use jitfd::{Backend, Error, Fallback, Kind, Trial};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use suite::harness::tests;
use suite::outcome::{Checked, OrFail, Outcome, equal, failed, holds};
use suite::{kmod, sys};

fn everything_is_allowed() -> Outcome {
    let probe = jitfd::probe();
    working(&probe, [true; 3])?;
    let refusing = |finding: &&jitfd::Finding| !finding.backends.is_empty();
    equal(
        "obstacles",
        probe.findings.iter().filter(refusing).count(),
        0,
    )?;
    let (status, text) = jitctl(&["probe"]);
    equal("status", status, Status::Good)?;
    holds(
        text.ends_with("\nprograms get their code from /dev/jit\n"),
        text,
    )
}

fn memory_denial_of_writable_code_refuses_flips_only() -> Outcome {
    const PR_SET_MDWE: i32 = 65;
    sys::prctl(PR_SET_MDWE, 1).or_fail("PR_SET_MDWE")?;
    let probe = jitfd::probe();
    working(&probe, [true, true, false])?;
    blamed(&probe, Backend::ProtectFlips, &["MDWE"])?;
    let refused = make(Fallback::Only(Backend::ProtectFlips));
    let kind = refused.err().and_then(|error| error.kind());
    equal("error", kind, Some(Kind::Refused))?;
    let (status, text) = jitctl(&["probe"]);
    equal("status", status, Status::Good)?;
    holds(text.contains("MDWE refuses it: PR_SET_MDWE is set"), text)
}

fn a_filter_that_refuses_is_blamed() -> Outcome {
    filter::install(libc::SYS_memfd_create, None, Answer::Errno(libc::EPERM)).or_fail("seccomp")?;
    let probe = jitfd::probe();
    working(&probe, [true, false, true])?;
    blamed(&probe, Backend::DualMapping, &["seccomp"])?;
    let kind = make(Fallback::Only(Backend::DualMapping)).err();
    let kind = kind.and_then(|error| error.kind());
    equal("error", kind, Some(Kind::Refused))
}

fn a_filter_that_kills_does_not_kill_the_prober() -> Outcome {
    filter::install(libc::SYS_memfd_create, None, Answer::Kill).or_fail("seccomp")?;
    filter::install(libc::SYS_membarrier, None, Answer::Kill).or_fail("seccomp")?;
    // No filter can be installed after this one.
    filter::install(libc::SYS_prctl, None, Answer::Kill).or_fail("seccomp")?;
    let probe = jitfd::probe();
    working(&probe, [true, false, true])?;
    let rules = probe.findings.iter();
    let unknown = rules.filter(|finding| finding.text.contains("did not survive"));
    equal("rules that can't be asked for", unknown.count(), 2)?;
    let dual = (Backend::DualMapping, Trial::Killed(libc::SIGSYS));
    holds(probe.trials.contains(&dual), "killed by SIGSYS")?;
    let (_, text) = jitctl(&["probe"]);
    holds(text.contains("killed by a seccomp filter"), text)
}

/// `JIT_CREATE` as the documentation has it.
const JIT_CREATE: u32 = 0x4020_4a21;

fn a_refused_ioctl_leads_to_the_fallback() -> Outcome {
    let answer = Answer::Errno(libc::EACCES);
    filter::install(libc::SYS_ioctl, Some(JIT_CREATE), answer).or_fail("seccomp")?;
    working(&jitfd::probe(), [false, true, true])?;
    equal("any", make(Fallback::Any), Ok(Backend::DualMapping))?;
    let never = make(Fallback::Never).err().and_then(|error| error.kind());
    equal("never", never, Some(Kind::Denied))?;
    filter::install(libc::SYS_membarrier, None, Answer::Errno(libc::ENOSYS)).or_fail("seccomp")?;
    equal("next", make(Fallback::Any), Ok(Backend::ProtectFlips))?;
    match make(Fallback::DualMapping) {
        Err(Error::NoBackend { refused }) => equal("refused", refused.len(), 2),
        other => failed(format!("{other:?}")),
    }
}

fn set_mode(mode: u32) -> Outcome {
    fs::set_permissions("/dev/jit", fs::Permissions::from_mode(mode)).or_fail("chmod")
}

fn become_a_user() -> Outcome {
    sys::syscall(libc::SYS_setresuid, [1000, 1000, 1000, 0, 0, 0]).or_fail("setresuid")?;
    Ok(())
}

fn the_mode_of_the_device_is_blamed() -> Outcome {
    set_mode(0o600)?;
    let as_user = || {
        become_a_user()?;
        let probe = jitfd::probe();
        working(&probe, [false, true, true])?;
        blamed(&probe, Backend::Kernel, &["/dev/jit"])?;
        let text = &probe.reasons(Backend::Kernel)[0].text;
        holds(text.contains("mode 0600, owner 0"), text.clone())?;
        equal("status", jitctl(&["probe"]).0, Status::No)
    };
    and_restore(as_user, || set_mode(0o666))
}

fn a_noexec_mount_is_blamed() -> Outcome {
    let arguments = [libc::CLONE_NEWNS as usize, 0, 0, 0, 0, 0];
    sys::syscall(libc::SYS_unshare, arguments).or_fail("unshare the mounts")?;
    sys::mount_flags(c"/", libc::MS_PRIVATE | libc::MS_REC).or_fail("keep the mounts apart")?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOEXEC;
    sys::mount_flags(c"/dev", flags).or_fail("remount /dev noexec")?;
    let probe = jitfd::probe();
    working(&probe, [false, true, true])?;
    blamed(&probe, Backend::Kernel, &["mount"])
}

fn an_absent_module_is_blamed() -> Outcome {
    kmod::unload_soon().or_fail("unload the module")?;
    let without = || {
        let probe = jitfd::probe();
        working(&probe, [false, true, true])?;
        blamed(&probe, Backend::Kernel, &["module", "/dev/jit"])?;
        let (status, text) = jitctl(&["probe"]);
        equal("status", status, Status::No)?;
        holds(
            text.contains("programs that ask for a fallback get dual mapping"),
            text,
        )?;
        equal("never", make(Fallback::Never).is_err(), true)
    };
    and_restore(without, || {
        kmod::load_as_before().or_fail("load the module")
    })
}

fn set_memfd_noexec(value: &str) -> Outcome {
    fs::write("/proc/sys/vm/memfd_noexec", value).or_fail("vm.memfd_noexec")
}

fn memory_files_that_are_no_programs_are_allowed() -> Outcome {
    for value in ["1", "2"] {
        set_memfd_noexec(value)?;
        let probe = jitfd::probe();
        working(&probe, [true; 3])?;
        let text = format!("vm.memfd_noexec is {value}");
        let said = |finding: &jitfd::Finding| finding.text.starts_with(&text);
        holds(probe.findings.iter().any(said), text.clone())?;
    }
    // Not every kernel lets it be lowered again; nothing else here minds.
    let _ = set_memfd_noexec("0");
    Ok(())
}

fn region() -> Checked<jitfd::Region> {
    let jit = jitfd::Jit::open(jitfd::Fallback::Never);
    jit.and_then(|jit| jit.region(8192))
        .or_else(|error| failed(error.to_string()))
}

fn counters_of_a_process_are_shown() -> Outcome {
    let own = std::process::id().to_string();
    equal("without a region", jitctl(&["stat", &own]).0, Status::No)?;
    let region = region()?;
    region
        .reserve(6, jitfd::Align::NONE)
        .map_err(|error| suite::outcome::Stop::Failed(error.to_string()))?;
    let (status, text) = jitctl(&["stat", &own]);
    equal("status", status, Status::Good)?;
    for part in [
        "/dev/jit",
        "[jit-append]",
        "  capacity      8192\n",
        "  cursor        6\n",
    ] {
        holds(text.contains(part), format!("{part:?} in {text}"))?;
    }
    let (_, json) = jitctl(&["stat", "--json", &own]);
    holds(json.contains("\"cursor\": 6"), json)?;
    equal("no process", jitctl(&["stat", "999999"]).0, Status::Failed)
}

fn main() -> std::process::ExitCode {
    suite::harness::main(tests![
        everything_is_allowed,
        memory_denial_of_writable_code_refuses_flips_only,
        a_filter_that_refuses_is_blamed,
        a_filter_that_kills_does_not_kill_the_prober,
        a_refused_ioctl_leads_to_the_fallback,
        the_mode_of_the_device_is_blamed,
        a_noexec_mount_is_blamed,
        an_absent_module_is_blamed,
        counters_of_a_process_are_shown,
        memory_files_that_are_no_programs_are_allowed,
    ])
}
