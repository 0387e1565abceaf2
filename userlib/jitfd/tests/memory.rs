// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where memory ends: an error of that kind, whatever was got before, and nothing
//! published. An abort is seen as the signal of a forked child.

use jitfd::space::{Item, Reloc, RelocKind, Request, SpaceOptions, Target, move_code};
use jitfd::tools::{EhFrame, Frame};
use jitfd::*;

const LEN: usize = 4 << 20;

/// How many bytes of private memory this process has.
fn in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let number = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
    number.parse::<u64>().unwrap() << 10
}

fn limit_to(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: sets a limit of this process, a child that ends soon.
    unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) };
}

/// What other tests have freed the allocator may have kept: no limit would be met.
fn use_up_what_is_free() {
    for len in [1 << 20, 1 << 16, 1 << 13] {
        let mut piece: Vec<u8> = Vec::new();
        while piece.try_reserve_exact(len).is_ok() {
            std::mem::forget(std::mem::take(&mut piece));
        }
    }
}

/// What a child says that may get `extra` bytes more once it has called the first
/// half of the work; `None` if it was killed.
fn with<T>(
    extra: u64,
    before: impl Fn() -> T,
    work: impl Fn(T) -> Result<(), Error>,
) -> Option<i32> {
    // SAFETY: the child works with what is its own and ends.
    match unsafe { libc::fork() } {
        0 => {
            let ready = before();
            limit_to(in_use());
            use_up_what_is_free();
            limit_to(in_use() + extra);
            let end = work(ready).map_or_else(|error| error.errno(), |()| 0);
            // SAFETY: ends this process.
            unsafe { libc::_exit(end) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is this process's, and the status a number of ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
        }
    }
}

/// With every amount of memory it is one of the two, and both are seen.
fn enough_or_not(most: u64, run: impl Fn(u64) -> Option<i32>) {
    let ends: Vec<_> = (0..=most).step_by(256 << 10).map(run).collect();
    let known = [Some(0), Some(libc::ENOMEM)];
    assert!(ends.iter().all(|end| known.contains(end)), "{ends:?}");
    assert!(known.iter().all(|end| ends.contains(end)), "{ends:?}");
}

#[test]
fn a_chunk_that_there_is_no_memory_to_check() {
    let code = vec![0x90; LEN];
    for options in [Rules::new(), Rules::new().entry(0)] {
        let options = options.threads(1);
        enough_or_not(8 << 20, |extra| {
            with(
                extra,
                || (),
                |()| {
                    let checked = validate(&code, &options).map(drop).map_err(Error::from);
                    let kind = checked.as_ref().err().map(Error::kind);
                    match kind {
                        None | Some(Some(Kind::NoMemory)) => checked,
                        Some(_) => Err(Error::Argument("of another kind")),
                    }
                },
            )
        });
    }
}

#[test]
fn a_publication_that_there_is_no_memory_to_note() {
    let chunk = validate(&vec![0x90; LEN], &Rules::new()).unwrap();
    let backend = Fallback::Only(Backend::DualMapping);
    let create = || Jit::open(backend).unwrap().region(LEN).unwrap();
    enough_or_not(3 << 20, |extra| {
        with(extra, create, |region| {
            let appended = region.publish(&chunk).map(drop);
            let cursor = region.append_handle().stats()?.cursor;
            if cursor == if appended.is_ok() { LEN } else { 0 } {
                appended
            } else {
                Err(Error::Argument("a refused chunk was published"))
            }
        })
    });
}

fn space() -> CodeSpace {
    let backend = Fallback::Only(Backend::DualMapping);
    let jit = Jit::open(backend).unwrap();
    jit.space(SpaceOptions::default()).unwrap()
}

/// Whatever a code space could not get, its counts and its names agree.
fn consistent(space: &CodeSpace, done: Result<(), Error>) -> Result<(), Error> {
    let stats = space.stats();
    let (count, bytes) = space.symbols().fold((0, 0), |(count, bytes), symbol| {
        (count + 1, bytes + symbol.bytes.len())
    });
    let right = (stats.functions, stats.published, stats.reserved) == (count, bytes, 0);
    match done {
        Err(error) if error.kind() != Some(Kind::NoMemory) => {
            Err(Error::Argument("of another kind"))
        }
        _ if !right => Err(Error::Argument("the counts are wrong")),
        done => done,
    }
}

#[test]
fn functions_that_there_is_no_memory_to_name() {
    let chunk = validate(&[0xc3], &Rules::new()).unwrap();
    let name = "x".repeat(1 << 16);
    enough_or_not(48 << 20, |extra| {
        with(extra, space, |space| {
            let one = |_| space.publish(&name, &chunk).map(drop);
            let done = (0..300).try_for_each(one).and_then(|()| {
                let slots: Result<Vec<_>, _> = (0..300)
                    .map(|_| {
                        space.publish_with(
                            &Request {
                                name: &name,
                                ..Request::new(8)
                            },
                            |_| Ok::<_, Error>(chunk.clone()),
                        )
                    })
                    .collect();
                slots.map(drop)
            });
            consistent(&space, done)
        })
    });
}

#[test]
fn an_image_that_there_is_no_memory_to_link() {
    let mut image = vec![Item::new("large", vec![0x90; LEN])];
    for _ in 0..20_000 {
        let call = Reloc::new(1, RelocKind::Call32, Target::Address(1 << 46), -4);
        image.push(Item {
            relocs: vec![call],
            ..Item::new("small", vec![0xe8, 0, 0, 0, 0])
        });
    }
    enough_or_not(24 << 20, |extra| {
        with(extra, space, |space| {
            let done = space.link(&image, None).map(drop);
            consistent(&space, done)
        })
    });
}

#[test]
fn code_that_there_is_no_memory_to_move() {
    // Simple ones, and branches that go by an address.
    for (code, most) in [
        (vec![0x90; 1 << 16], 24 << 20),
        ([0x0f, 0x84, 0, 0, 0x10, 0].repeat(1 << 14), 24 << 20),
    ] {
        enough_or_not(most, |extra| {
            with(
                extra,
                || (),
                |()| match move_code(&code, 1 << 20, 1 << 45) {
                    Err(error) if error.kind() != Some(Kind::NoMemory) => {
                        Err(Error::Argument("of another kind"))
                    }
                    moved => moved.map(drop),
                },
            )
        });
    }
    let code = vec![0x90; 1 << 15];
    enough_or_not(24 << 20, |extra| {
        with(extra, space, |space| {
            let done = space.publish_moved(
                &Request {
                    name: "moved",
                    ..Request::new(0)
                },
                &code,
                1 << 20,
            );
            consistent(&space, done.map(drop))
        })
    });
}

/// What grows by as much as a program wants, up to some MiB.
#[test]
fn what_grows_without_memory() {
    let fresh = |work: fn() -> Result<(), Error>| {
        enough_or_not(20 << 20, |extra| with(extra, || (), |()| work()));
    };
    fresh(|| {
        let mut lines = LineWriter::default();
        (0..1_000_000).try_for_each(|_| {
            lines.push(&[0xb8, 42, 0, 0, 0])?;
            Ok(())
        })
    });
    fresh(|| {
        let mut lines = LineWriter::default();
        (0..2000).try_for_each(|_| {
            lines.push(&[0xc3])?;
            lines.align(Align::PAGE)?;
            Ok(())
        })
    });
    fresh(|| {
        let mut table = EhFrame::default();
        (1..100_000).try_for_each(|at| table.add(at * 4096, 4096, &Frame::leaf()))
    });
    fresh(|| Frame::leaf().try_reserve(300_000));
    fresh(|| {
        let options = Rules::new().try_reserve(100_000, 100_000)?;
        let options = (0..100_000).fold(options, |options, at| options.data(2 * at..2 * at + 1));
        let options = (0..100_000).fold(options, |options, at| options.entry(2 * at + 1));
        validate(&[0x90; 200_001], &options.threads(1))?;
        Ok(())
    });
}
