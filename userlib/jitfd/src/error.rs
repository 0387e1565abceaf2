// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong, and the one table that turns an errno of a call into its
//! cause and what to do about it.

use crate::backend_name::Backend;
use jitfd_code::CodeError;
use std::{fmt, io};

/// What can go wrong.
///
/// ```
/// use jitfd::{Error, Fallback, Jit, Kind, Rules, validate};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let region = Jit::open(Fallback::Any)?.region(4096)?;
/// match region.publish(&validate(&[0x90; 5000], &Rules::new())?) {
///     Err(error) if error.kind() == Some(Kind::Full) => println!("a further region is due"),
///     Err(Error::Code(error)) => println!("this compiler has a bug: {error}"),
///     other => panic!("4096 bytes took 5000: {other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The code was refused before any system call: the chunk, a branch from it to
    /// another one, an item of an image, or a record of it. Nothing was published.
    Code(CodeError),
    /// The library refused an argument before any system call; says which.
    Argument(&'static str),
    /// The cursor of the region is not at the offset that the code was made
    /// for: somebody else published first. Nothing was published.
    Stale {
        /// The offset that was expected, in bytes from the start of the region.
        expected: usize,
    },
    /// No gap of this size is left at the addresses asked for.
    NoRoom {
        /// The number of bytes looked for.
        len: usize,
    },
    /// A code space needs a further region, which would exceed its
    /// [bound](crate::space::SpaceOptions::max_capacity). All numbers are in bytes.
    Bound {
        /// What the region would have to hold.
        needed: usize,
        /// The capacity of the regions there are.
        used: usize,
        /// The bound.
        bound: usize,
    },
    /// The system refused a call. Nothing was changed by it.
    #[non_exhaustive]
    System {
        /// What was refused: "append code".
        call: &'static str,
        /// The errno it was refused with.
        errno: i32,
        /// The cause.
        kind: Kind,
    },
    /// The backend in use can't do this; the kernel's can.
    Unsupported {
        /// The backend.
        backend: Backend,
        /// What it can't do.
        what: &'static str,
    },
    /// None of the backends that the program accepts is allowed here.
    NoBackend {
        /// The backends in the order in which they were tried, each with its error.
        refused: Vec<(Backend, Error)>,
    },
}

impl Error {
    /// The errno behind this error: as the kernel gave it, or for what the
    /// library itself refused `EINVAL`, `EILSEQ` for code that is not valid,
    /// `EOVERFLOW` for code that can't be relocated, `ENOSPC` for the bound of a code
    /// space, `EOPNOTSUPP` for what a backend can't do. If several backends were refused, that of the first.
    ///
    /// ```
    /// let error = jitfd::Error::Stale { expected: 4096 };
    /// assert_eq!(error.errno(), 116); // ESTALE
    /// ```
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Unsupported { .. } => libc::EOPNOTSUPP,
            Self::NoBackend { refused } => refused
                .first()
                .map_or(libc::ENODEV, |(_, error)| error.errno()),
            Self::Code(error) if error.is_no_memory() => libc::ENOMEM,
            Self::Code(error) if error.is_argument() => libc::EINVAL,
            Self::Code(error) if error.is_record() => libc::EOVERFLOW,
            Self::Code(_) => libc::EILSEQ,
            Self::Argument(_) => libc::EINVAL,
            Self::Stale { .. } => libc::ESTALE,
            Self::NoRoom { .. } => libc::ENOMEM,
            Self::Bound { .. } => libc::ENOSPC,
            Self::System { errno, .. } => *errno,
        }
    }

    /// The cause, if the system refused a call; [`Kind::Full`] also for the bound of
    /// a code space, [`Kind::NoMemory`] also if there was none to check a chunk.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self {
            Self::System { kind, .. } => Some(*kind),
            Self::Bound { .. } => Some(Kind::Full),
            Self::Code(error) if error.is_no_memory() => Some(Kind::NoMemory),
            _ => None,
        }
    }

    /// The refusal of `call` with this error of the system.
    #[doc(hidden)]
    #[must_use]
    pub fn system(call: Call, error: &io::Error) -> Self {
        Self::of(call, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The refusal of `call` with `errno`.
    pub(crate) const fn of(call: Call, errno: i32) -> Self {
        Self::System {
            call: call.name(),
            errno,
            kind: kind_of_call(call, errno),
        }
    }

    /// The error for lack of memory in the program's own allocator.
    #[doc(hidden)]
    #[must_use]
    pub fn no_memory() -> Self {
        Self::system(Call::Allocate, &io::Error::from_raw_os_error(libc::ENOMEM))
    }
}

/// Why there is no function pointer.
pub const NO_ENTRY: Error = Error::Argument("an entry is an offset inside the code");

/// What makes an error of one of `call`.
pub(crate) fn failed(call: Call) -> impl Fn(io::Error) -> Error {
    move |error| Error::system(call, &error)
}

/// What makes an error of the number by which `call` is refused.
pub(crate) fn refused(call: Call) -> impl Fn(i32) -> Error {
    move |errno| Error::of(call, errno)
}

/// The calls that can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Opening `/dev/jit`.
    Open,
    /// `mmap` of a region.
    Map,
    /// `mmap` of data pages next to code.
    MapData,
    /// `JIT_CREATE_CODE`.
    CreateCode,
    /// `JIT_CREATE`.
    Create,
    /// `JIT_CLONE`.
    Clone,
    /// `JIT_APPEND`.
    Append,
    /// `JIT_RESERVE`.
    Reserve,
    /// `JIT_FILL`.
    Fill,
    /// `JIT_SEAL`.
    Seal,
    /// `JIT_STATS`.
    Stats,
    /// In a fallback: making a memory file.
    MemoryFile,
    /// In a fallback: mapping memory.
    OwnMap,
    /// In a fallback: turning pages executable.
    Protect,
    /// In a fallback: moving pages to their place.
    Move,
    /// In a fallback: making other threads see new code.
    Barrier,
    /// In a fallback: telling a forked child from its parent.
    Owner,
    /// Reading `/proc/self/maps`, for a place in a window.
    Maps,
    /// `fork` of a child in which [`probe`](crate::probe) tries a backend.
    Fork,
    /// Getting memory from the program's allocator.
    Allocate,
}

impl Call {
    /// Whether it is made only where `/dev/jit` is not used.
    #[must_use]
    pub const fn is_of_fallback(self) -> bool {
        matches!(
            self,
            Self::MemoryFile
                | Self::OwnMap
                | Self::Protect
                | Self::Move
                | Self::Barrier
                | Self::Owner
        )
    }

    /// Every call, in the order of a region's life.
    pub const ALL: [Self; 20] = [
        Self::Open,
        Self::Map,
        Self::MapData,
        Self::CreateCode,
        Self::Create,
        Self::Clone,
        Self::Append,
        Self::Reserve,
        Self::Fill,
        Self::Seal,
        Self::Stats,
        Self::MemoryFile,
        Self::OwnMap,
        Self::Protect,
        Self::Move,
        Self::Barrier,
        Self::Owner,
        Self::Maps,
        Self::Fork,
        Self::Allocate,
    ];

    /// What the call does, for error texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open /dev/jit",
            Self::Map => "map the region (mmap)",
            Self::MapData => "map data pages (mmap)",
            Self::CreateCode => "create code",
            Self::Create => "create a region",
            Self::Clone => "clone a region",
            Self::Append => "append code",
            Self::Reserve => "reserve a range",
            Self::Fill => "fill a reserved range",
            Self::Seal => "seal the region",
            Self::Stats => "read the counters",
            Self::MemoryFile => "make a memory file (memfd_create, fallocate)",
            Self::OwnMap => "map memory for code (mmap)",
            Self::Protect => "make pages executable (mprotect)",
            Self::Move => "move pages to their place (mremap)",
            Self::Barrier => "make other threads see new code (membarrier)",
            Self::Owner => "keep the region from forked children (madvise)",
            Self::Maps => "look for a place in the window",
            Self::Fork => "fork a child to try it in",
            Self::Allocate => "allocate memory",
        }
    }
}

/// The cause of a refusal by the system.
///
/// ```
/// use jitfd::{Error, Fallback, Jit, Kind};
///
/// match Jit::open(Fallback::Never) {
///     Err(error) if error.kind() == Some(Kind::NoModule) => println!("try: modprobe jit"),
///     Err(Error::System { kind, .. }) => println!("{kind}; {}", kind.advice()),
///     _ => (),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// There is no `/dev/jit`, or nothing behind it.
    NoModule,
    /// The file permissions or a security policy forbid it.
    Denied,
    /// No executable mapping of `/dev/jit` is allowed.
    NoExec,
    /// The handle may be used by the address space that created it only.
    NotOwner,
    /// An argument is not accepted, by the kernel or by what stands in for it.
    Argument,
    /// The bytes to publish cannot be read.
    Source,
    /// The region has not enough room left.
    Full,
    /// The region is sealed.
    Sealed,
    /// The handle is a region already.
    IsRegion,
    /// The handle is not a region yet.
    NotRegion,
    /// The range is not reserved, or filled already.
    NotReserved,
    /// The memory, address space or cgroup limit is used up.
    NoMemory,
    /// The bound for one user is reached.
    Quota,
    /// The process or the system has too many open files.
    TooManyFiles,
    /// `RLIMIT_FSIZE` is too low for a memory file.
    FileSize,
    /// No further process may be made.
    Processes,
    /// `/proc/self/maps` can't be read.
    NoProcfs,
    /// The descriptor is closed.
    Closed,
    /// The descriptor is not of `/dev/jit`, or the module is of another version.
    Foreign,
    /// The cursor is not where it was expected.
    Stale,
    /// The system does not let this program make code in its own memory.
    Refused,
    /// An errno that no call is documented to give.
    Other,
}

/// The cause, in words.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts().0)
    }
}

impl Kind {
    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        self.texts().1
    }

    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::NoModule => (
                "this system has no jit module loaded",
                "load it (modprobe jit, after make install-module), or allow a fallback",
            ),
            Self::Denied => (
                "permission denied",
                "check the mode and owner of /dev/jit, and the security policy (SELinux, seccomp)",
            ),
            Self::NoExec => (
                "no executable mapping of /dev/jit is allowed here",
                "mount /dev without noexec, and check the security policy",
            ),
            Self::NotOwner => (
                "only the address space that created the region may do this",
                "publish in that process, adopt it after a fork, or create the region so that any \
                 process may publish",
            ),
            Self::Argument => (
                "an argument is not accepted",
                "check lengths, offsets and alignment; if /dev/jit is used, also whether the \
                 module fits this library",
            ),
            Self::Source => (
                "the bytes to publish cannot be read",
                "keep the source mapped and readable during the call",
            ),
            Self::Full => (
                "the region has not enough room left",
                "create a further region, or give the next one more capacity",
            ),
            Self::Sealed => (
                "the region is sealed",
                "create a further region for new code",
            ),
            Self::IsRegion => (
                "the handle is a region already",
                "open /dev/jit once per region",
            ),
            Self::NotRegion => ("the handle is not a region yet", "create the region first"),
            Self::NotReserved => (
                "the range is not reserved, or was filled before",
                "reserve a range first and fill each byte of it once",
            ),
            Self::NoMemory => (
                "there is no memory for it",
                "check the cgroup's memory limit, RLIMIT_AS and vm.max_map_count, or create less",
            ),
            Self::Quota => (
                "the bound for one user is reached",
                "drop unused code, or have the module's bound raised",
            ),
            Self::TooManyFiles => (
                "too many open files",
                "drop some regions (each has two descriptors over /dev/jit, one over dual \
                 mapping), or raise RLIMIT_NOFILE (ulimit -n)",
            ),
            Self::FileSize => (
                "the process may not make a file of that size",
                "raise RLIMIT_FSIZE (ulimit -f), ask for less, or accept mprotect flips, which \
                 need no file",
            ),
            Self::Processes => (
                "no further process may be made",
                "raise RLIMIT_NPROC (ulimit -u) or the cgroup's pids.max",
            ),
            Self::NoProcfs => (
                "/proc/self/maps can't be read",
                "mount /proc, or do not use `window` or `together`",
            ),
            Self::Closed => (
                "the descriptor is closed",
                "keep the handle open; a program that closes every descriptor does so before it \
                 makes code",
            ),
            Self::Foreign => (
                "the descriptor does not know this call",
                "check that it is of /dev/jit, and that the module fits this library",
            ),
            Self::Stale => (
                "the cursor is not where it was expected",
                "relocate the code for its new address and try again",
            ),
            Self::Refused => (
                "this system does not let the program make code in its own memory",
                "see what refuses it: jitctl probe",
            ),
            Self::Other => ("unexpected error", "look into the kernel log: dmesg"),
        }
    }
}

/// What an errno means for a call.
const fn kind_of_call(call: Call, errno: i32) -> Kind {
    if call.is_of_fallback() {
        return kind_of_fallback(errno);
    }
    match (call, errno) {
        (Call::Fork, libc::EAGAIN) => Kind::Processes,
        (Call::Maps, libc::ENOENT | libc::ENOTDIR | libc::EPERM | libc::EACCES) => Kind::NoProcfs,
        (Call::Open | Call::Fork, libc::EPERM) | (Call::Fork, libc::ENOSYS) => Kind::Denied,
        (Call::Open, libc::ENOENT | libc::ENODEV | libc::ENXIO) => Kind::NoModule,
        (Call::Map | Call::CreateCode, libc::EPERM) => Kind::NoExec,
        (_, libc::EACCES) => Kind::Denied,
        (_, libc::ENODEV) => Kind::Foreign,
        (_, errno) => kind_of(errno),
    }
}

/// What an errno means where the program makes code in its own memory. What a
/// kernel does not know (`EINVAL`, `ENOSYS`) counts as refused.
const fn kind_of_fallback(errno: i32) -> Kind {
    match errno {
        libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP => {
            Kind::Refused
        }
        libc::ENOMEM | libc::ENOSPC | libc::EAGAIN => Kind::NoMemory,
        libc::EMFILE | libc::ENFILE => Kind::TooManyFiles,
        libc::EFBIG => Kind::FileSize,
        libc::EBADF => Kind::Closed,
        _ => Kind::Other,
    }
}

/// What an errno means whichever ioctl gave it.
const fn kind_of(errno: i32) -> Kind {
    match errno {
        libc::EPERM => Kind::NotOwner,
        libc::EINVAL | libc::EOVERFLOW => Kind::Argument,
        libc::EFAULT => Kind::Source,
        libc::ENOSPC => Kind::Full,
        libc::EROFS => Kind::Sealed,
        libc::EBUSY => Kind::IsRegion,
        libc::ENODATA => Kind::NotRegion,
        libc::EEXIST => Kind::NotReserved,
        libc::ENOMEM | libc::EAGAIN => Kind::NoMemory,
        libc::EDQUOT => Kind::Quota,
        libc::EMFILE | libc::ENFILE => Kind::TooManyFiles,
        libc::EBADF => Kind::Closed,
        libc::ENOTTY => Kind::Foreign,
        libc::ESTALE => Kind::Stale,
        _ => Kind::Other,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(error) => write!(f, "{error}"),
            Self::Argument(text) => write!(f, "{text}"),
            Self::Stale { expected } => {
                let kind = Kind::Stale;
                let advice = kind.advice();
                write!(f, "offset {expected:#x}: {kind}; {advice}")
            }
            Self::NoRoom { len } => write!(
                f,
                "no gap of {len:#x} bytes is left at the addresses asked for; ask for smaller \
                 regions, or allow more addresses"
            ),
            Self::Bound {
                needed,
                bound: usize::MAX,
                ..
            } => write!(
                f,
                "{needed:#x} bytes more than the code space has are more than a region can have; \
                 ask for less (with its lead, what goes in front of the code)"
            ),
            Self::Bound {
                needed,
                used,
                bound,
            } => write!(
                f,
                "the code space is full: {needed:#x} bytes more in a region of their own, beside \
                 the {used:#x} of those there are, would exceed its bound of {bound:#x} bytes \
                 (max_capacity); raise it, or go on in another code space"
            ),
            Self::System { call, errno, kind } => {
                let system = io::Error::from_raw_os_error(*errno);
                let advice = kind.advice();
                write!(f, "cannot {call}: {kind}; {advice} [{system}]")
            }
            Self::Unsupported { backend, what } => {
                write!(f, "{backend} does not offer {what}; /dev/jit does")
            }
            Self::NoBackend { refused } => {
                f.write_str("nothing that may make code is allowed here")?;
                let mut all = refused.iter();
                all.try_for_each(|(backend, error)| write!(f, "; {backend}: {error}"))
            }
        }
    }
}

/// Its text, so that `fn main() -> Result<(), Error>` says what is wrong.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Code(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CodeError> for Error {
    fn from(error: CodeError) -> Self {
        Self::Code(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = Self::from_raw_os_error(error.errno()).kind();
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_nobody_set_is_not_to_be_raised() {
        let text = |bound| {
            let used = 4096;
            let needed = usize::MAX;
            let full = Error::Bound {
                needed,
                used,
                bound,
            };
            full.to_string()
        };
        assert!(text(8192).contains("raise it"), "{}", text(8192));
        assert!(!text(usize::MAX).contains("raise"), "{}", text(usize::MAX));
        assert!(text(usize::MAX).contains("ask for less"));
    }

    /// Each errno that the module gives, and its cause.
    const TABLE: [(i32, Kind); 14] = [
        (libc::EINVAL, Kind::Argument),
        (libc::EFAULT, Kind::Source),
        (libc::ENOSPC, Kind::Full),
        (libc::EROFS, Kind::Sealed),
        (libc::EPERM, Kind::NotOwner),
        (libc::ESTALE, Kind::Stale),
        (libc::EBUSY, Kind::IsRegion),
        (libc::ENODATA, Kind::NotRegion),
        (libc::EEXIST, Kind::NotReserved),
        (libc::ENOMEM, Kind::NoMemory),
        (libc::EDQUOT, Kind::Quota),
        (libc::EACCES, Kind::Denied),
        (libc::ENOTTY, Kind::Foreign),
        (libc::EBADF, Kind::Closed),
    ];

    #[test]
    fn every_errno_of_every_ioctl_has_a_cause_and_a_complete_text() {
        let calls = Call::ALL.into_iter().filter(|call| {
            let others = [
                Call::Open,
                Call::Map,
                Call::Maps,
                Call::Fork,
                Call::Allocate,
            ];
            !others.contains(call) && !call.is_of_fallback()
        });
        for call in calls {
            for (errno, mut kind) in TABLE {
                if (call, errno) == (Call::CreateCode, libc::EPERM) {
                    kind = Kind::NoExec;
                }
                let error = Error::of(call, errno);
                assert_eq!((error.kind(), error.errno()), (Some(kind), errno));
                let text = error.to_string();
                for part in [
                    call.name(),
                    &kind.to_string(),
                    kind.advice(),
                    &format!("os error {errno}"),
                ] {
                    assert!(text.contains(part), "{part:?} is not in {text:?}");
                }
            }
        }
    }

    #[test]
    fn opening_and_mapping_have_causes_of_their_own() {
        let kind = |call, errno| kind_of_call(call, errno);
        for errno in [libc::ENOENT, libc::ENODEV, libc::ENXIO] {
            assert_eq!(kind(Call::Open, errno), Kind::NoModule);
        }
        for errno in [libc::EPERM, libc::EACCES] {
            assert_eq!(kind(Call::Open, errno), Kind::Denied);
        }
        assert_eq!(kind(Call::Map, libc::EPERM), Kind::NoExec);
        assert_eq!(kind(Call::Map, libc::EACCES), Kind::Denied);
        assert_eq!(kind(Call::Map, libc::ENODEV), Kind::Foreign);
        assert_eq!(kind(Call::Map, libc::ENODATA), Kind::NotRegion);
        assert_eq!(kind(Call::Append, 9999), Kind::Other);
    }

    #[test]
    fn a_failed_fork_and_a_missing_proc_are_not_taken_for_a_refused_backend() {
        let kind = |call, errno| kind_of_call(call, errno);
        assert_eq!(kind(Call::Fork, libc::EAGAIN), Kind::Processes);
        assert_eq!(kind(Call::Fork, libc::EPERM), Kind::Denied);
        assert_eq!(kind(Call::Fork, libc::ENOMEM), Kind::NoMemory);
        assert_eq!(kind(Call::Maps, libc::ENOENT), Kind::NoProcfs);
        assert_eq!(kind(Call::Maps, libc::EMFILE), Kind::TooManyFiles);
    }

    #[test]
    fn a_refused_fallback_is_not_taken_for_a_region_that_is_full() {
        for call in Call::ALL.into_iter().filter(|call| call.is_of_fallback()) {
            let kind = |errno| kind_of_call(call, errno);
            for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL] {
                assert_eq!(kind(errno), Kind::Refused);
            }
            for errno in [libc::ENOMEM, libc::ENOSPC, libc::EAGAIN] {
                assert_eq!(kind(errno), Kind::NoMemory);
            }
            assert_eq!(kind(libc::EFBIG), Kind::FileSize);
            assert_eq!(kind(libc::EBADF), Kind::Closed);
            let text = Error::of(call, libc::EACCES).to_string();
            assert!(
                text.contains(call.name()) && text.contains("jitctl probe"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_the_library_refuses_has_an_errno_too() {
        let whole = CodeError::whole(jitfd_code::Reason::Empty);
        assert_eq!(Error::from(whole).errno(), libc::EILSEQ);
        assert_eq!(Error::Argument("").errno(), libc::EINVAL);
        let full = Error::of(Call::Append, libc::ENOSPC);
        assert_eq!(io::Error::from(full).kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn one_text_in_full() {
        assert_eq!(
            Error::of(Call::Open, libc::ENOENT).to_string(),
            "cannot open /dev/jit: this system has no jit module loaded; load it \
             (modprobe jit, after make install-module), or allow a fallback [No such file or directory (os error 2)]"
        );
    }
}
