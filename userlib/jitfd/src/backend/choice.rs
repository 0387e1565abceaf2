// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where code comes from when there is no `/dev/jit`: in which order a program
//! allows the backends, and the choice.

use crate::backend_name::Backend;
use crate::error::{Error, Kind};

/// Which backends a program accepts. The default is the kernel's and no other.
///
/// [`Jit::open`](crate::Jit::open) takes the first one that this system allows. If that is not the
/// kernel's, it is reported once per process
/// ([`set_fallback_hook`](crate::set_fallback_hook)). A backend counts as not
/// allowed if it is absent or refused. Lack of memory, a quota or too many open files
/// are errors, and no reason to try the next backend.
///
/// ```
/// use jitfd::{Backend, Fallback, Jit};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// let jit = Jit::open(Fallback::Any)?;
/// if jit.backend() != Backend::Kernel {
///     println!("code is made by {}", jit.backend());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// `/dev/jit` or an error.
    #[default]
    Never,
    /// `/dev/jit`, else dual mapping.
    DualMapping,
    /// `/dev/jit`, else dual mapping, else mprotect flips.
    Any,
    /// This backend or an error: for tests and measurements.
    Only(Backend),
}

impl Fallback {
    /// How many different ones there are.
    #[doc(hidden)]
    pub const COUNT: usize = 3 + Backend::ALL.len();

    /// A number of its own, below [`COUNT`](Self::COUNT).
    #[doc(hidden)]
    #[must_use]
    pub const fn number(self) -> usize {
        match self {
            Self::Never => 0,
            Self::DualMapping => 1,
            Self::Any => 2,
            Self::Only(backend) => 3 + backend as usize,
        }
    }

    pub(crate) fn order(&self) -> &[Backend] {
        match self {
            Self::Never => &Backend::ALL[..1],
            Self::DualMapping => &Backend::ALL[..2],
            Self::Any => &Backend::ALL,
            Self::Only(backend) => std::slice::from_ref(backend),
        }
    }

    /// What `make` makes with the first backend that this system allows, that backend,
    /// and what refused the better ones; if there is none, all of their errors.
    pub(crate) fn choose<T>(
        self,
        mut make: impl FnMut(Backend) -> Result<T, Error>,
    ) -> Result<(T, Backend, Refused), Error> {
        let mut refused = Refused::new();
        for &backend in self.order() {
            match make(backend) {
                Ok(made) => return Ok((made, backend, refused)),
                Err(error) if is_refusal(&error) => refused.push((backend, error)),
                Err(error) => return Err(error),
            }
        }
        Err(only_or_all(refused))
    }
}

/// Backends, each with why it is not used.
pub(crate) type Refused = Vec<(Backend, Error)>;

/// Whether this says that a backend can't be used here at all.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Unsupported { .. } => true,
        other => matches!(
            other.kind(),
            Some(
                Kind::NoModule
                    | Kind::Denied
                    | Kind::NoExec
                    | Kind::NotOwner
                    | Kind::Foreign
                    | Kind::Refused
                    | Kind::FileSize
                    | Kind::Other
            )
        ),
    }
}

fn only_or_all(mut tried: Vec<(Backend, Error)>) -> Error {
    match tried.pop() {
        Some((_, only)) if tried.is_empty() => only,
        Some(last) => {
            tried.push(last);
            Error::NoBackend { refused: tried }
        }
        None => Error::Argument("no backend was asked for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Call;

    fn refusal(call: Call, errno: i32) -> Error {
        Error::of(call, errno)
    }

    #[test]
    fn the_first_that_is_allowed_is_taken() {
        let missing = refusal(Call::Open, libc::ENOENT);
        let from = |first: usize| {
            move |backend| match Backend::ALL.iter().position(|&one| one == backend) {
                Some(at) if at >= first => Ok(backend),
                _ => Err(refusal(Call::Open, libc::ENOENT)),
            }
        };
        for (at, backend) in Backend::ALL.into_iter().enumerate() {
            let any = Fallback::Any.choose(from(at)).unwrap();
            assert_eq!((any.1, any.2.len()), (backend, at));
            let only = Fallback::Only(backend).choose(from(0)).unwrap();
            assert_eq!((only.0, only.2.len()), (backend, 0));
        }
        assert_eq!(Fallback::Never.choose(from(1)), Err(missing));
        let none = Fallback::DualMapping.choose(from(2)).unwrap_err();
        assert_eq!(none.errno(), libc::ENOENT);
        assert!(matches!(none, Error::NoBackend { refused } if refused.len() == 2));
    }

    #[test]
    fn a_shortage_is_no_reason_for_another_backend() {
        for errno in [libc::ENOMEM, libc::EDQUOT, libc::EMFILE, libc::EINVAL] {
            let error = refusal(Call::Create, errno);
            let chosen = Fallback::Any.choose(|_| Err::<(), _>(error.clone()));
            assert_eq!(chosen, Err(error));
        }
    }
}
