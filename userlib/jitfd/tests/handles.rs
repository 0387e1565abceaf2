// SPDX-License-Identifier: MIT OR Apache-2.0

//! The real calls on hosts without `/dev/jit`: each one says what is wrong, with
//! the errno of the system.

use jitfd::internal::publish_all_at;
use jitfd::{
    Align, AppendHandle, Chunk, Error, Fallback, Jit, Kind, MapHandle, Region, Rules,
    jit_create_code, validate,
};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

const ENODEV: i32 = 19;
const ENOTTY: i32 = 25;

fn chunk() -> Chunk {
    validate(&[0xc3], &Rules::new()).unwrap()
}

fn null() -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

#[track_caller]
fn failed<T>(what: &str, expected: i32, result: Result<T, Error>) {
    let Err(Error::System { call, errno, .. }) = result else {
        panic!("{what}: not refused by the system");
    };
    assert_eq!((call, errno), (what, expected));
}

#[test]
fn without_a_module_everything_says_so() {
    if Path::new("/dev/jit").exists() {
        eprintln!("SKIP: this host has /dev/jit");
        return;
    }
    let text = jit_create_code(&[0xc3]).unwrap_err().to_string();
    assert!(
        text.contains("/dev/jit") && text.contains("modprobe"),
        "{text}"
    );
    let error = Jit::open(Fallback::Never).unwrap_err();
    assert_eq!(error.kind(), Some(Kind::NoModule));
}

#[test]
fn each_call_knows_a_foreign_descriptor() {
    let append = AppendHandle::from(null());
    let chunk = chunk();
    failed("append code", ENOTTY, append.publish_all(&[&chunk]));
    failed(
        "append code",
        ENOTTY,
        publish_all_at(&append, &[&chunk], Some(0)),
    );
    failed("reserve a range", ENOTTY, append.reserve(1, Align::NONE));
    failed("fill a reserved range", ENOTTY, append.fill(0, &chunk));
    failed("seal the region", ENOTTY, append.seal());
    failed("read the counters", ENOTTY, append.stats());
    let map = MapHandle::from(null());
    failed("read the counters", ENOTTY, map.stats());
}

#[test]
fn bad_places_for_code_are_refused_before_the_call() {
    let jit = Jit::open(Fallback::Any).unwrap();
    for address in [0_usize, 1, 4097] {
        let at = std::ptr::without_provenance_mut(address);
        // SAFETY: nothing is at these addresses, and they are refused.
        let result = unsafe { jit.code_at(&chunk(), at) };
        assert!(matches!(result, Err(Error::Argument(_))));
    }
}

#[test]
fn handles_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Region>();
    shared::<AppendHandle>();
    shared::<MapHandle>();
    shared::<Chunk>();
    shared::<Jit>();
    shared::<jitfd::Mapping>();
    shared::<Error>();
}

/// Another program may have sent it, and kept a way to write to it.
#[test]
fn what_is_no_region_is_not_mapped() {
    let path = std::env::temp_dir().join(format!("jitfd-foreign-{}", std::process::id()));
    std::fs::write(&path, [0xc3; 4096]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let zero = File::open("/dev/zero").unwrap();
    let (pipe, _other_end) = std::io::pipe().unwrap();
    let foreign: [OwnedFd; 3] = [file.into(), zero.into(), pipe.into()];
    for fd in foreign {
        failed(
            "map the region (mmap)",
            ENODEV,
            MapHandle::from(fd).map(4096, None),
        );
    }
}
