// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system's rules, read from its files. Tests have a folder in the place of
//! the root.

use super::files::{Files, field};
use super::finding::{Finding, subject};
use super::{selinux, sys};
use crate::backend::dispatch::membarrier_works;
use crate::backend_name::Backend::{self, DualMapping, Kernel, ProtectFlips};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// The oldest kernel that the module supports.
const OLDEST: (u32, u32) = (7, 2);

/// Where the rules are read, and what is asked by system calls.
pub(super) struct System {
    pub(super) files: Files,
    /// Whether `PR_SET_MDWE` is set.
    pub(super) mdwe: Answer,
    /// Whether `membarrier` makes other threads see new code.
    pub(super) membarrier: Answer,
}

/// What a system call says; `None` if a child did not survive it.
type Answer = Option<io::Result<bool>>;

fn finding(
    subject: &'static str,
    certain: bool,
    backends: &[Backend],
    text: impl Into<String>,
) -> Finding {
    Finding {
        subject,
        backends: backends.to_vec(),
        certain,
        text: text.into(),
    }
}

fn allows(subject: &'static str, text: impl Into<String>) -> Finding {
    finding(subject, true, &[], text)
}

fn refuses(subject: &'static str, backends: &[Backend], text: impl Into<String>) -> Finding {
    finding(subject, true, backends, text)
}

fn may_refuse(subject: &'static str, backends: &[Backend], text: impl Into<String>) -> Finding {
    finding(subject, false, backends, text)
}

/// The file that would tell is not there or can't be opened.
fn unknown(subject: &'static str, backends: &[Backend], path: &str, error: &io::Error) -> Finding {
    let text = format!("not known, as {path} can't be read: {error}");
    may_refuse(subject, backends, text)
}

/// Asks by a system call for which a seccomp filter might kill.
fn in_child(question: fn() -> io::Result<bool>) -> Answer {
    const NONE: u64 = u64::MAX;
    let shared = sys::Shared::new().ok()?;
    shared.number().store(NONE, Ordering::Relaxed);
    sys::in_child(sys::PATIENCE, || {
        let answer = question().map_or_else(
            |error| {
                error
                    .raw_os_error()
                    .map_or(NONE, |errno| u64::from(errno.unsigned_abs()) + 2)
            },
            u64::from,
        );
        shared.number().store(answer, Ordering::Release);
    })
    .ok()?;
    match shared.number().load(Ordering::Acquire) {
        NONE => None,
        bit @ 0..2 => Some(Ok(bit == 1)),
        errno => {
            let errno = i32::try_from(errno - 2).unwrap_or(libc::EIO);
            Some(Err(io::Error::from_raw_os_error(errno)))
        }
    }
}

impl System {
    /// The one that this process runs on.
    pub(super) fn live() -> Self {
        let mut system = Self {
            files: Files {
                root: PathBuf::from("/"),
            },
            mdwe: None,
            membarrier: None,
        };
        let filtered = system.files.is_filtered();
        let ask = |question: fn() -> io::Result<bool>| match filtered {
            true => in_child(question),
            false => Some(question()),
        };
        system.mdwe = ask(sys::refuses_exec_gain);
        system.membarrier = ask(|| membarrier_works().map(|()| true));
        system
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all = vec![
            self.cpu(),
            self.kernel(),
            self.module(),
            self.device(),
            self.mount(),
            self.mdwe(),
            self.seccomp(),
        ];
        all.extend(selinux::findings(&self.files));
        all.extend([self.memfd_noexec(), self.membarrier()]);
        all
    }

    fn cpu(&self) -> Finding {
        let path = "/proc/cpuinfo";
        let flags = match self.files.text(path) {
            Ok(flags) => flags,
            Err(error) => return unknown(subject::CPU, &[Kernel], path, &error),
        };
        let nx = flags.split_whitespace().any(|flag| flag == "nx");
        if nx {
            return allows(subject::CPU, "x86-64 with NX");
        }
        let text = "no NX: the module does not load, and data is executable anyway";
        refuses(subject::CPU, &[Kernel], text)
    }

    fn kernel(&self) -> Finding {
        let path = "/proc/sys/kernel/osrelease";
        let release = match self.files.text(path) {
            Ok(release) => release,
            Err(error) => return unknown(subject::KERNEL, &[Kernel], path, &error),
        };
        let refused = |why: &str| {
            let text = format!("Linux {release}: {why}");
            refuses(subject::KERNEL, &[Kernel], text)
        };
        let is = |path, wanted: &str| self.files.read(path).as_deref() == Some(wanted);
        if version(&release).is_none_or(|version| version < OLDEST) {
            return refused("the module needs 7.2 or newer");
        }
        if is("/sys/kernel/realtime", "1") {
            return refused("the module does not load into a PREEMPT_RT kernel");
        }
        if is("/sys/hypervisor/type", "xen") && is("/sys/hypervisor/guest_type", "PV") {
            return refused("the module does not load under Xen PV");
        }
        allows(subject::KERNEL, format!("Linux {release}"))
    }

    fn module(&self) -> Finding {
        if self.files.path("/sys/module/jit").exists() {
            return allows(subject::MODULE, "the jit module is loaded");
        }
        let all = "/sys/module";
        if let Err(error) = fs::metadata(self.files.path(all)) {
            return unknown(subject::MODULE, &[Kernel], all, &error);
        }
        let text = "the jit module is not loaded (modprobe jit)";
        refuses(subject::MODULE, &[Kernel], text)
    }

    fn device(&self) -> Finding {
        let path = self.files.path("/dev/jit");
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let text = format!("/dev/jit can't be reached: {error}");
                return refuses(subject::DEVICE, &[Kernel], text);
            }
            Err(error) => {
                let text = format!("there is no /dev/jit ({error})");
                return refuses(subject::DEVICE, &[Kernel], text);
            }
        };
        let whose = whose(&metadata);
        if !metadata.file_type().is_char_device() {
            let text = format!("/dev/jit is no character device ({whose})");
            return refuses(subject::DEVICE, &[Kernel], text);
        }
        match open(&path) {
            Ok(_) => allows(subject::DEVICE, format!("it can be opened ({whose})")),
            Err(error) => {
                let text = format!("it can't be opened ({whose}): {error}");
                refuses(subject::DEVICE, &[Kernel], text)
            }
        }
    }

    fn mount(&self) -> Finding {
        let path = "/proc/self/mountinfo";
        let mounts = match self.files.text(path) {
            Ok(mounts) => mounts,
            Err(error) => return unknown(subject::MOUNT, &[Kernel], path, &error),
        };
        let (point, options) = mount_of(&mounts, "/dev/jit").unwrap_or(("/", ""));
        if options.split(',').any(|option| option == "noexec") {
            let text = format!("{point} is mounted noexec (mount -o remount,exec {point})");
            return refuses(subject::MOUNT, &[Kernel], text);
        }
        allows(subject::MOUNT, format!("{point} is not mounted noexec"))
    }

    fn mdwe(&self) -> Finding {
        match &self.mdwe {
            Some(Ok(true)) => refuses(
                subject::MDWE,
                &[ProtectFlips],
                "PR_SET_MDWE is set: no page becomes executable later; /dev/jit and dual mapping \
                 need none that does",
            ),
            Some(Ok(false)) => allows(subject::MDWE, "PR_SET_MDWE is not set"),
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                allows(subject::MDWE, "this kernel has no PR_SET_MDWE")
            }
            Some(Err(error)) => {
                let text = format!("not known, as prctl can't be called: {error}");
                may_refuse(subject::MDWE, &[ProtectFlips], text)
            }
            None => {
                let text = "not known: a child that called prctl did not survive it";
                may_refuse(subject::MDWE, &[ProtectFlips], text)
            }
        }
    }

    fn seccomp(&self) -> Finding {
        let path = "/proc/self/status";
        let status = match self.files.text(path) {
            Ok(status) => status,
            Err(error) => return unknown(subject::SECCOMP, &Backend::ALL, path, &error),
        };
        if !self.files.is_filtered() {
            return allows(subject::SECCOMP, "no filter");
        }
        let filters = field(&status, "Seccomp_filters").unwrap_or("some");
        let text = format!(
            "{filters} filter(s); needed are openat, mmap and ioctl (/dev/jit), \
                     memfd_create, fallocate, fcntl, statx, prlimit64, mmap, madvise and \
                     membarrier (dual mapping), \
                     mmap, madvise, mprotect and mremap (mprotect flips)"
        );
        may_refuse(subject::SECCOMP, &Backend::ALL, text)
    }

    fn memfd_noexec(&self) -> Finding {
        let missing = |error: &io::Error| {
            error.kind() == io::ErrorKind::NotFound && self.files.path("/proc/sys/vm").exists()
        };
        let text = match self.files.text("/proc/sys/vm/memfd_noexec").as_deref() {
            Ok("0") => "vm.memfd_noexec is 0: no rule",
            Ok("1") => "vm.memfd_noexec is 1: memory files are no programs, as jitfd's are not",
            Ok(_) => "vm.memfd_noexec is 2: memory files must not be programs, as jitfd's are not",
            Err(error) if missing(error) => "this kernel has no vm.memfd_noexec",
            Err(_) => "vm.memfd_noexec can't be read; it stops programs, as jitfd's files are not",
        };
        allows(subject::MEMFD_NOEXEC, text)
    }

    fn membarrier(&self) -> Finding {
        match &self.membarrier {
            Some(Ok(_)) => {
                let text = "it can make other threads see new code";
                allows(subject::MEMBARRIER, text)
            }
            Some(Err(error)) => {
                let text = format!("other threads can't be made to see new code: {error}");
                refuses(subject::MEMBARRIER, &[DualMapping], text)
            }
            None => {
                let text = "not known: a child that called membarrier did not survive it";
                may_refuse(subject::MEMBARRIER, &[DualMapping], text)
            }
        }
    }
}

/// As the library does it.
fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).custom_flags(libc::O_CLOEXEC).open(path)
}

fn whose(metadata: &Metadata) -> String {
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    format!("mode {mode:04o}, owner {uid}, group {gid}")
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// The mount point that has `path`, and its options. A later mount hides an
/// earlier one.
fn mount_of<'a>(mounts: &'a str, path: &str) -> Option<(&'a str, &'a str)> {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        Some((words.next()?, words.next()?))
    });
    points
        .filter(|(point, _)| Path::new(path).starts_with(point))
        .max_by_key(|(point, _)| point.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system made of files below a folder of its own.
    struct Fake(System);

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.files.root);
        }
    }

    fn fake(name: &str, files: &[(&str, &str)]) -> Fake {
        let root = std::env::temp_dir().join(format!("jitfd-{name}-{}", std::process::id()));
        let system = System {
            files: Files { root },
            mdwe: Some(Ok(false)),
            membarrier: Some(Ok(true)),
        };
        for (path, text) in files {
            let path = system.files.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Fake(system)
    }

    const GOOD: [(&str, &str); 5] = [
        ("/proc/cpuinfo", "flags : fpu nx lm\n"),
        ("/proc/sys/kernel/osrelease", "7.3.4+deb13-amd64\n"),
        ("/sys/module/jit/refcnt", "0\n"),
        (
            "/proc/self/mountinfo",
            "22 1 0:5 / /dev rw,nosuid - devtmpfs u rw\n",
        ),
        (
            "/proc/self/status",
            "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n",
        ),
    ];

    fn of(system: &System, subject: &'static str) -> Finding {
        let mut findings = system.findings().into_iter();
        findings.find(|finding| finding.subject == subject).unwrap()
    }

    #[test]
    fn a_system_without_obstacles_has_none() {
        let fake = fake("good", &GOOD);
        for finding in fake.0.findings() {
            // A device can't be made without rights.
            let expected = match finding.subject {
                subject::DEVICE => (true, false),
                _ => (true, true),
            };
            assert_eq!(
                (finding.certain, finding.backends.is_empty()),
                expected,
                "{finding:?}"
            );
            assert_eq!(finding.text.lines().count(), 1, "{finding:?}");
        }
    }

    #[test]
    fn each_obstacle_is_seen() {
        let bad = [
            (subject::CPU, "/proc/cpuinfo", "flags : fpu lm"),
            (subject::KERNEL, "/proc/sys/kernel/osrelease", "7.1.9"),
            (subject::KERNEL, "/proc/sys/kernel/osrelease", "6.18.44-x"),
            (subject::KERNEL, "/proc/sys/kernel/osrelease", ""),
            (subject::KERNEL, "/sys/kernel/realtime", "1\n"),
            (
                subject::MOUNT,
                "/proc/self/mountinfo",
                "2 1 0:5 / /dev rw,noexec - d u rw",
            ),
            (subject::DEVICE, "/dev/jit", "a file"),
        ];
        for (index, (subject, path, text)) in bad.into_iter().enumerate() {
            let mut files = GOOD.to_vec();
            files.push((path, text));
            let fake = fake(&format!("bad-{index}"), &files);
            let finding = of(&fake.0, subject);
            assert!(finding.certain, "{finding:?}");
            assert_eq!(finding.backends, [Kernel], "{finding:?}");
        }
    }

    #[test]
    fn rules_of_the_process_are_seen() {
        let mut fake = fake("rules", &GOOD);
        fs::remove_dir_all(fake.0.files.path("/sys/module/jit")).unwrap();
        fs::write(
            fake.0.files.path("/proc/self/status"),
            "Seccomp:\t2\nSeccomp_filters:\t3",
        )
        .unwrap();
        fake.0.mdwe = Some(Ok(true));
        fake.0.membarrier = Some(Err(io::Error::from_raw_os_error(libc::ENOSYS)));
        let expected = [
            (subject::MODULE, true, vec![Kernel]),
            (subject::MDWE, true, vec![ProtectFlips]),
            (subject::SECCOMP, false, Backend::ALL.to_vec()),
            (subject::MEMBARRIER, true, vec![DualMapping]),
        ];
        for (subject, certain, backends) in expected {
            let finding = of(&fake.0, subject);
            assert_eq!((finding.certain, finding.backends), (certain, backends));
        }
        assert!(of(&fake.0, subject::SECCOMP).text.starts_with("3 filter"));
    }

    /// A process may have no descriptor left, or another file system at /proc.
    #[test]
    fn what_cannot_be_read_is_not_known() {
        let mut fake = fake("blind", &[("/dev/null", "")]);
        fake.0.mdwe = None;
        fake.0.membarrier = None;
        assert!(fake.0.files.is_filtered());
        for finding in fake.0.findings() {
            let expected = match finding.subject {
                subject::DEVICE => (true, false),
                subject::MEMFD_NOEXEC => (true, true),
                _ => (false, false),
            };
            assert_eq!(
                (finding.certain, finding.backends.is_empty()),
                expected,
                "{finding:?}"
            );
            assert!(!finding.text.contains("this kernel"), "{finding:?}");
        }
    }

    #[test]
    fn the_rules_of_a_filter_are_asked_for_in_a_child() {
        let errno = |error: io::Error| error.raw_os_error();
        let answer = |question| in_child(question).map(|answer| answer.map_err(errno));
        assert_eq!(answer(|| Ok(false)), Some(Ok(false)));
        assert_eq!(answer(|| Ok(true)), Some(Ok(true)));
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(answer(refused), Some(Err(Some(libc::EPERM))));
        assert_eq!(answer(|| std::process::abort()), None);
    }

    #[test]
    fn the_closest_mount_counts_and_the_last_of_several() {
        let mounts = "1 0 0:1 / / rw,noexec - x x rw\n\
                      2 1 0:5 / /dev rw - d u rw\n\
                      3 1 0:5 / /dev rw,noexec - d u rw\n\
                      4 1 0:5 / /dev/pts rw - d u rw\n\
                      5 1 0:5 / /device rw - d u rw";
        assert_eq!(mount_of(mounts, "/dev/jit"), Some(("/dev", "rw,noexec")));
        assert_eq!(mount_of(mounts, "/proc"), Some(("/", "rw,noexec")));
        assert_eq!(mount_of("", "/dev/jit"), None);
    }
}
