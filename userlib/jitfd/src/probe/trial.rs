// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tries a backend out, in a child.

use super::finding::Trial;
use super::sys::{End, PATIENCE, Shared, in_child};
use crate::abi::PAGE_SIZE;
use crate::backend_name::Backend;
use crate::error::{Call, Error};
use crate::region::handle::create;
use jitfd_code::{Rules, validate};
use std::io;
use std::sync::atomic::Ordering;

/// What the child leaves behind: `WORKS`, or a refused call and its errno.
const NOTHING: u64 = 0;
const WORKS: u64 = 1;

fn refused(error: &Error) -> u64 {
    let call = match error {
        Error::System { call, .. } => Call::ALL.iter().position(|one| one.name() == *call),
        _ => None,
    };
    let call = call.and_then(|call| u64::try_from(call).ok());
    let errno = u64::from(error.errno().unsigned_abs());
    (errno << 16) | (call.unwrap_or(0) << 8) | 2
}

fn as_trial(left: u64, end: &End) -> Trial {
    let call = usize::try_from(left >> 8 & 0xff).ok();
    let call = call.and_then(|call| Call::ALL.get(call).copied());
    let errno = i32::try_from(left >> 16).unwrap_or(libc::EIO);
    match (left, end) {
        (_, End::Signal(libc::SIGALRM)) => failed(&io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        (_, End::Signal(signal)) => Trial::Killed(*signal),
        (WORKS, _) => Trial::Works,
        (NOTHING, _) => failed(&io::Error::from_raw_os_error(libc::EIO)),
        _ => Trial::Refused(Error::of(call.unwrap_or(Call::Create), errno)),
    }
}

fn failed(error: &io::Error) -> Trial {
    Trial::Untried(Error::system(Call::Fork, error))
}

/// Tries `backend`.
pub(super) fn run(backend: Backend) -> Trial {
    let shared = match Shared::new() {
        Ok(shared) => shared,
        Err(error) => return failed(&error),
    };
    let end = in_child(PATIENCE, || {
        let left = publish_and_run(backend).map_or_else(|error| refused(&error), |()| WORKS);
        shared.number().store(left, Ordering::Release);
    });
    match end {
        Ok(end) => as_trial(shared.number().load(Ordering::Acquire), &end),
        Err(error) => failed(&error),
    }
}

fn publish_and_run(backend: Backend) -> Result<(), Error> {
    // mov eax, 42; ret
    let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
    let (map, append) = create(backend, PAGE_SIZE, false, None)?;
    let mapping = map.map(PAGE_SIZE, None)?;
    append.publish_all(&[&chunk])?;
    call(&mapping)
}

#[expect(unsafe_code, reason = "runs the code that it has published")]
fn call(mapping: &crate::region::mapping::Mapping) -> Result<(), Error> {
    // SAFETY: such a function was published there, and the mapping outlives the
    // call.
    let answer = unsafe { mapping.entry::<extern "C" fn() -> i32>(0)? }();
    if answer == 42 {
        Ok(())
    } else {
        Err(Error::Argument("the code that was published did not run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_leaves_behind_says_what_was_refused() {
        for call in Call::ALL {
            for errno in [libc::EPERM, libc::ENOSYS, 133] {
                let error = Error::of(call, errno);
                let trial = as_trial(refused(&error), &End::Exited);
                assert_eq!(trial, Trial::Refused(error));
            }
        }
        assert_eq!(as_trial(WORKS, &End::Unknown), Trial::Works);
        assert_eq!(as_trial(WORKS, &End::Signal(31)), Trial::Killed(31));
        let hung = as_trial(NOTHING, &End::Signal(libc::SIGALRM));
        assert!(hung.to_string().contains("after 5 seconds"), "{hung}");
        assert!(matches!(hung, Trial::Untried(_)));
        assert!(matches!(
            as_trial(NOTHING, &End::Unknown),
            Trial::Untried(_)
        ));
    }
}
