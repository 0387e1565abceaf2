// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call of C without memory: `ENOMEM`, and no abort. Tests only.

#[path = "../../jitfd/tests/support/failing.rs"]
mod failing;

use crate::backend::JITFD_FALLBACK_ANY;
use crate::chunk::{jitfd_chunk, jitfd_validate};
use crate::guard::jitfd_error;
use crate::region::{
    jitfd_place, jitfd_region, jitfd_region_create, jitfd_region_options, jitfd_region_publish_all,
};
use failing::{Failing, Fails, failing, in_child};
use std::ffi::CStr;
use std::ptr::{null, null_mut};

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn region() -> *mut jitfd_region {
    let options = jitfd_region_options {
        size: size_of::<jitfd_region_options>(),
        flags: 0,
        fallback: JITFD_FALLBACK_ANY,
        near_first: null(),
        near_last: null(),
    };
    // SAFETY: the options are there during the call.
    let region = unsafe { jitfd_region_create(4 << 20, &options) };
    assert!(!region.is_null());
    region
}

fn chunk() -> *const jitfd_chunk {
    // SAFETY: the byte is there during the call.
    unsafe { jitfd_validate([0xc3_u8].as_ptr().cast(), 1, null()) }
}

/// 0, or the number of the error; 1000 for a text that says something else.
fn append(region: *mut jitfd_region, chunks: &[*const jitfd_chunk], fails: Fails) -> (i32, usize) {
    let place = jitfd_place {
        offset: 0,
        len: 0,
        address: null_mut(),
    };
    let mut places = vec![place; chunks.len()];
    failing(fails, || {
        let (from, to) = (chunks.as_ptr(), places.as_mut_ptr());
        // SAFETY: all of it is there during the call, and as long as is said.
        unsafe {
            if jitfd_region_publish_all(region, from, chunks.len(), to) == 0 {
                return 0;
            }
            let errno = *libc::__errno_location();
            let text = CStr::from_ptr(jitfd_error()).to_bytes();
            let says = text.windows(6).any(|word| word == b"memory");
            if says || text.is_empty() { errno } else { 1000 }
        }
    })
}

#[test]
fn a_batch_is_appended_or_not() {
    let chunks = vec![chunk(); 1000];
    let (done, count) = append(region(), &chunks, Fails::One(usize::MAX));
    assert_eq!(done, 0);
    let all = (0..count).flat_map(|number| [Fails::One(number), Fails::From(number)]);
    let wrong: Vec<_> = all
        .map(|fails| {
            let status = in_child(|| match append(region(), &chunks, fails) {
                (libc::ENOMEM, _) => 0,
                _ => 1,
            });
            (fails, status)
        })
        .filter(|(_, status)| *status != Some(0))
        .collect();
    assert!(wrong.is_empty(), "of {count}: {wrong:?}");
}
