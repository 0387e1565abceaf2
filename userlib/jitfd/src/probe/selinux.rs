// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the SELinux policy says of this process: it is asked for the very
//! permissions that each backend needs, as `selinuxfs` answers them. It can't be asked
//! whether it allows one `ioctl` and not another (`allowxperm`): a trial shows that.

use super::files::Files;
use super::finding::{Finding, Trial, subject};
use super::sys;
use crate::backend::dispatch::MemoryFile;
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// What a backend needs: the class, and the permissions.
struct Need {
    backend: Backend,
    class: &'static str,
    permissions: &'static [&'static str],
    /// The label of what the permissions are on.
    target: Option<String>,
}

/// Nothing, if the kernel has no SELinux or no policy is loaded.
pub(super) fn findings(files: &Files) -> Vec<Finding> {
    let Some(enforcing) = enforcing(files) else {
        return Vec::new();
    };
    let source = &source(files);
    if !enforcing {
        return vec![allows(format!("permissive; this process is {source}"))];
    }
    let denied: Vec<Finding> = needs(files, source)
        .iter()
        .filter_map(|need| judge(files, source, need))
        .collect();
    if denied.is_empty() {
        return vec![allows(format!(
            "enforcing, and allows what is needed to {source}"
        ))];
    }
    denied
}

/// What the trial of the kernel's backend makes likely: an `ioctl` was refused, which
/// only a policy or a filter does. (The policy can't be asked about that.)
pub(super) fn suspicion(files: &Files, trial: &Trial) -> Option<Finding> {
    let Trial::Refused(Error::System { call, errno, .. }) = trial else {
        return None;
    };
    let ioctls = [Call::Create, Call::Append];
    let is_ioctl = ioctls.iter().any(|one| one.name() == *call);
    let denied = is_ioctl && *errno == libc::EACCES && enforcing(files) == Some(true);
    denied.then(|| Finding {
        subject: subject::SELINUX,
        certain: false,
        backends: vec![Backend::Kernel],
        text: format!(
            "the policy may allow {} some ioctls of /dev/jit and not this one (allowxperm)",
            source(files)
        ),
    })
}

/// `None` if there is no SELinux, or no policy.
fn enforcing(files: &Files) -> Option<bool> {
    let text = files.read("/sys/fs/selinux/enforce")?;
    Some(text == "1")
}

/// The label of this process.
fn source(files: &Files) -> String {
    let label = files.read("/proc/self/attr/current").unwrap_or_default();
    label.trim_end_matches('\0').to_owned()
}

fn allows(text: String) -> Finding {
    Finding {
        subject: subject::SELINUX,
        certain: true,
        backends: Vec::new(),
        text,
    }
}

fn needs(files: &Files, source: &str) -> Vec<Need> {
    let own = || Some(source.to_owned());
    let (class, permissions) = memory_file(files);
    vec![
        Need {
            backend: Backend::Kernel,
            class: "chr_file",
            permissions: &["open", "ioctl", "map", "read", "execute"],
            target: sys::label(c"/dev/jit"),
        },
        Need {
            backend: Backend::Kernel,
            class: "anon_inode",
            permissions: &["create", "ioctl"],
            target: own(),
        },
        Need {
            backend: Backend::DualMapping,
            class,
            permissions,
            target: label_of_memory_file(files, class),
        },
        Need {
            backend: Backend::ProtectFlips,
            class: "process",
            permissions: &["execmem"],
            target: own(),
        },
    ]
}

/// The class of memory files, and what a program does with one. A policy can ask for a
/// class of their own.
fn memory_file(files: &Files) -> (&'static str, &'static [&'static str]) {
    let capability = files.read("/sys/fs/selinux/policy_capabilities/memfd_class");
    if capability.as_deref() == Some("1") {
        let all = &["create", "read", "write", "map", "execute"];
        return ("memfd_file", all);
    }
    ("file", &["read", "write", "map", "execute"])
}

/// One is made to look at its label; not if a seccomp filter might kill for that, nor if
/// it has the label of its maker anyway.
fn label_of_memory_file(files: &Files, class: &str) -> Option<String> {
    if class == "memfd_file" {
        return Some(source(files));
    }
    if files.is_filtered() {
        return None;
    }
    let file = MemoryFile::new().ok()?;
    let path = format!("/proc/self/fd/{}", file.as_fd().ok()?.as_raw_fd());
    sys::label(&CString::new(path).ok()?)
}

/// What the policy denies, if anything.
fn judge(files: &Files, source: &str, need: &Need) -> Option<Finding> {
    let class = format!("/sys/fs/selinux/class/{}", need.class);
    let index = files.read(&format!("{class}/index"))?;
    let target = need.target.as_deref()?;
    let (allowed, permissive) = ask(files, &format!("{source} {target} {index}"))?;
    if permissive {
        return None;
    }
    let bit =
        |name: &str| -> Option<u32> { files.read(&format!("{class}/perms/{name}"))?.parse().ok() };
    let is_denied = |name: &&&str| {
        bit(name)
            .and_then(|bit| bit.checked_sub(1))
            .is_some_and(|bit| allowed >> bit & 1 == 0)
    };
    let denied: Vec<&str> = need.permissions.iter().filter(is_denied).copied().collect();
    (!denied.is_empty()).then(|| Finding {
        subject: subject::SELINUX,
        certain: true,
        backends: vec![need.backend],
        text: format!(
            "the policy does not allow {source} {target}:{} {{ {} }}",
            need.class,
            denied.join(" ")
        ),
    })
}

/// The allowed permissions, as bits, and whether the domain is permissive.
fn ask(files: &Files, question: &str) -> Option<(u32, bool)> {
    let path = files.path("/sys/fs/selinux/access");
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    file.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    file.read_to_string(&mut answer).ok()?;
    parse(&answer)
}

/// "allowed decided auditallow auditdeny seqno flags", hexadecimal but for the
/// number.
fn parse(answer: &str) -> Option<(u32, bool)> {
    let mut words = answer.trim_end_matches('\0').split_whitespace();
    let allowed = u32::from_str_radix(words.next()?, 16).ok()?;
    let flags = words
        .nth(4)
        .and_then(|flags| u32::from_str_radix(flags, 16).ok());
    Some((allowed, flags.unwrap_or(0) & 1 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_policy_are_read() {
        assert_eq!(parse("81 ffffffff 0 ffffffff 5 0"), Some((0x81, false)));
        assert_eq!(parse("0 ffffffff 0 ffffffff 12 1\0"), Some((0, true)));
        assert_eq!(parse("ff"), Some((0xff, false)));
        assert_eq!(parse(""), None);
    }
}
