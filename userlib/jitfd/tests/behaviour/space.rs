// SPDX-License-Identifier: MIT OR Apache-2.0

//! Code spaces: growing, finding, linking, and running the code.

use super::{is_no_entry, jit, jump_to, leaves, returns};
use jitfd::space::*;
use jitfd::{
    Align, Backend, CodeSpace, Error, Kind, Published, Reason, RegionOptions, Rules, Window,
    validate,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

type Answer = extern "C" fn() -> i32;

fn run(space: &CodeSpace, function: Published) -> i32 {
    // SAFETY: the tests run only such functions.
    unsafe { space.entry::<Answer>(function).unwrap()() }
}

fn large() -> SpaceOptions {
    SpaceOptions::default()
}

fn small() -> SpaceOptions {
    SpaceOptions {
        region: RegionOptions {
            capacity: 4096,
            ..Default::default()
        },
        ..large()
    }
}

pub fn code_is_found_by_every_address_in_it(backend: Backend) {
    let space = jit(backend).space(large()).unwrap();
    let one = space.publish("one", &returns(1)).unwrap();
    let two = space.publish("two", &returns(2)).unwrap();
    assert_eq!((run(&space, one), run(&space, two)), (1, 2));
    let name = |address| space.lookup(address).map(|symbol| symbol.name);
    for inside in 0..6 {
        assert_eq!(name(one.address + inside), Some("one"));
        assert_eq!(name(two.address + inside), Some("two"));
    }
    for outside in [
        one.address - 1,
        one.address + 6,
        two.address + 6,
        0,
        usize::MAX,
    ] {
        assert_eq!(name(outside), None);
    }
    assert!(space.symbols().map(|symbol| symbol.name).eq(["one", "two"]));
}

pub fn sixteen_trap_bytes_precede_the_first_function_of_a_region(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let mut first = BTreeMap::new();
    for value in 0..600 {
        let function = space.publish("", &returns(value)).unwrap();
        first.entry(function.address / 4096).or_insert(function);
    }
    assert_eq!(first.len(), 3);
    for function in first.values() {
        assert_eq!(function.address % 4096, 16);
        let lead = std::ptr::with_exposed_provenance::<[u8; 16]>(function.address - 16);
        // SAFETY: the region starts there and is readable.
        assert_eq!(unsafe { *lead }, [0xcc; 16]);
    }
}

pub fn an_address_is_known_before_its_code(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let slot = space
        .reserve(&Request {
            name: "late",
            ..Request::new(100)
        })
        .unwrap();
    assert_eq!(space.lookup(slot.address), None);
    let before = space.stats();
    assert_eq!((before.reserved, before.published), (100, 0));
    let function = space.fill(&slot, &returns(5)).unwrap();
    assert_eq!((function.address, run(&space, function)), (slot.address, 5));
    assert_eq!(space.lookup(slot.address).unwrap().name, "late");
    assert_eq!(space.lookup(slot.address + 6), None);
    let after = space.stats();
    assert_eq!(
        (after.reserved, after.published, after.wasted),
        (0, 6, 16 + 94)
    );
    let again = space.fill(&slot, &returns(6)).unwrap_err();
    assert_eq!(again.kind(), Some(Kind::NotReserved));
}

pub fn slots_of_others_and_slots_given_up_are_refused(backend: Backend) {
    let (one, two) = (
        jit(backend).space(small()).unwrap(),
        jit(backend).space(small()).unwrap(),
    );
    let slot = one.reserve(&Request::new(10)).unwrap();
    assert!(matches!(
        two.fill(&slot, &returns(1)),
        Err(Error::Argument(_))
    ));
    two.reserve(&Request::new(10)).unwrap();
    assert!(matches!(
        two.fill(&slot, &returns(1)),
        Err(Error::Argument(_))
    ));
    assert_eq!(one.stats().reserved, 10);
    one.abandon(slot);
    let stats = one.stats();
    assert_eq!((stats.reserved, stats.wasted), (0, 16 + 10));
    let failed: Result<_, Error> =
        one.publish_with(&Request::new(4), |_| Err(Error::Argument("no")));
    assert_eq!(failed, Err(Error::Argument("no")));
    assert_eq!(one.stats().reserved, 0);
}

pub fn a_compiler_that_panics_leaves_nothing_reserved(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let emit = || {
        space.publish_with(&Request::new(64), |_| -> Result<_, Error> {
            std::panic::resume_unwind(Box::new("as asked for"))
        })
    };
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(emit));
    assert!(caught.is_err());
    assert_eq!(space.stats().reserved, 0);
    let made = space.publish_with(&Request::new(64), |_| Ok::<_, Error>(returns(3)));
    assert_eq!(
        (run(&space, made.unwrap()), space.stats().functions),
        (3, 1)
    );
}

pub fn it_grows_until_its_bound(backend: Backend) {
    let space = jit(backend)
        .space(SpaceOptions {
            max_capacity: 3 * 4096,
            ..small()
        })
        .unwrap();
    let mut values = Vec::new();
    let error = loop {
        match space.publish("f", &returns(i32::try_from(values.len()).unwrap())) {
            Ok(function) => values.push(function),
            Err(error) => break error,
        }
    };
    let (used, bound) = (3 * 4096, 3 * 4096);
    let needed = 16 + 6;
    let expected = Error::Bound {
        needed,
        used,
        bound,
    };
    assert_eq!(error, expected);
    assert_eq!(
        (error.kind(), error.errno()),
        (Some(Kind::Full), libc::ENOSPC)
    );
    // It names the bound, and no region that could not be created.
    let text = error.to_string();
    assert!(
        text.contains("bound of 0x3000 bytes (max_capacity)"),
        "{text}"
    );
    assert!(!text.contains("create"), "{text}");
    assert_eq!((space.stats().regions, values.len()), (3, 3 * 255));
    for (value, &function) in (0..).zip(&values) {
        assert_eq!(run(&space, function), value);
    }
    let tiny = jit(backend).space(SpaceOptions {
        max_capacity: 100,
        ..small()
    });
    assert_eq!(tiny.unwrap_err().kind(), Some(Kind::Full));
    let odd = jit(backend)
        .space(SpaceOptions {
            max_capacity: 4096 + 100,
            ..small()
        })
        .unwrap();
    assert!(odd.reserve(&Request::new(4000)).is_ok());
    let full = odd.reserve(&Request::new(200)).unwrap_err();
    assert_eq!(full.kind(), Some(Kind::Full));
    for huge in [1 << 30, 1 << 31, usize::MAX] {
        let refused = odd.reserve(&Request::new(huge)).unwrap_err();
        assert!(refused.to_string().contains("1 GiB"), "{refused}");
    }
    let large = jit(backend).space(small()).unwrap();
    let nops = validate(&[0x90; 50_000], &Rules::new()).unwrap();
    large.publish("large", &nops).unwrap();
    let stats = large.stats();
    assert_eq!((stats.regions, stats.published), (2, 50_000));
}

/// Whatever the alignments are: nothing is left empty, and no region is added.
pub fn what_just_fits_is_taken(backend: Backend) {
    let with = |lead| {
        jit(backend)
            .space(SpaceOptions {
                max_capacity: 4096,
                lead,
                ..small()
            })
            .unwrap()
    };
    let whole = Request {
        align: Align::NONE,
        ..Request::new(4096)
    };
    assert_eq!(with(0).reserve(&whole).unwrap().len, 4096);
    let nops = validate(&[0x90; 4080], &Rules::new()).unwrap();
    assert_eq!(
        with(16).publish("behind the lead", &nops).unwrap().len,
        4080
    );
    let data = validate(&[0x90; 1 << 16], &Rules::new().data(0..8)).unwrap();
    // Pages of its own, and one for the lead.
    let options = SpaceOptions {
        max_capacity: 4096 + 4096 + (1 << 16),
        region: RegionOptions {
            capacity: 4096,
            ..Default::default()
        },
        ..large()
    };
    let space = jit(backend).space(options).unwrap();
    space.publish("data", &data).unwrap();
    assert_eq!(space.stats().capacity, 4096 + 4096 + (1 << 16));
    let full = space.publish("data", &data).unwrap_err();
    assert_eq!(full.kind(), Some(Kind::Full));
}

pub fn a_batch_stays_together(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    space
        .publish("", &validate(&[0x90; 4000], &Rules::new()).unwrap())
        .unwrap();
    let chunks: Vec<_> = (0..100).map(returns).collect();
    let batch: Vec<_> = chunks.iter().map(|chunk| ("batch", chunk)).collect();
    let functions = space.publish_all(&batch).unwrap();
    for (value, pair) in (0..).zip(functions.windows(2)) {
        assert_eq!(pair[1].address, pair[0].address + 16);
        assert_eq!(run(&space, pair[0]), value);
    }
    assert_eq!(space.publish_all(&[]), Ok(vec![]));
    let many = vec![batch[0]; 1025];
    let before = space.stats();
    let refused = space.publish_all(&many).unwrap_err();
    assert!(refused.to_string().contains("at most 1024"), "{refused}");
    assert_eq!(space.stats(), before);
}

pub fn regions_reach_each_other_and_what_they_must(backend: Backend) {
    let helper = run as *const () as usize;
    let window = Window::reaching(helper);
    let space = jit(backend)
        .space(SpaceOptions {
            together: true,
            region: RegionOptions {
                window: Some(window),
                ..small().region
            },
            ..small()
        })
        .unwrap();
    let apart = jit(backend)
        .space(SpaceOptions {
            together: true,
            ..small()
        })
        .unwrap();
    for space in [&space, &apart] {
        for value in 0..1000 {
            space.publish("", &returns(value)).unwrap();
        }
        let bases: Vec<_> = space
            .regions()
            .map(|region| region.mapping().address())
            .collect();
        assert!(bases.len() > 3);
        for (one, other) in bases.iter().zip(&bases[1..]) {
            assert!(one.abs_diff(*other) < 1 << 31);
        }
    }
    assert!(
        space
            .regions()
            .all(|region| window.contains(region.mapping().address(), 4096))
    );
}

pub fn branches_leave_for_the_start_of_a_function(backend: Backend) {
    let space = jit(backend)
        .space(SpaceOptions {
            together: true,
            ..small()
        })
        .unwrap();
    let callee = space.publish("callee", &returns(5)).unwrap().address;
    let first = space.regions().next().unwrap().mapping().address();
    while space.regions().count() < 2 {
        space.publish("", &returns(0)).unwrap();
    }
    let rules = Rules::new().leaves_only_to([]);
    let slot = space.reserve(&Request::new(5)).unwrap();
    assert!(slot.address.wrapping_sub(first) >= 4096);
    let into = jump_to(slot.address, callee + 5, &rules);
    let error = space.fill(&slot, &into).unwrap_err();
    assert_eq!(leaves(&error), Some((slot.address, callee + 5)));
    let start = jump_to(slot.address, callee, &rules);
    let function = space.fill(&slot, &start).unwrap();
    assert_eq!(run(&space, function), 5);
    // At the cursor, for the wrong address: functions begin at multiples of 16.
    let beside = jump_to(slot.address, callee + 1, &rules);
    let error = space.publish("", &beside).unwrap_err();
    assert!(leaves(&error).is_some(), "{error}");
}

pub fn one_request_can_ask_for_a_place(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let first = space.publish("far", &returns(1)).unwrap();
    // No mapping of a test is there.
    let there = Window::reaching(1 << 44);
    let slot = space
        .reserve(&Request {
            window: Some(there),
            ..Request::new(6)
        })
        .unwrap();
    assert!(there.contains(slot.address, 6) && !there.contains(first.address, 6));
    let again = space
        .reserve(&Request {
            window: Some(there),
            ..Request::new(6)
        })
        .unwrap();
    assert_eq!(
        (again.address, space.stats().regions),
        (slot.address + 16, 2)
    );
    let nowhere = Request {
        window: Some(Window::reaching_all(0, usize::MAX)),
        ..Request::new(6)
    };
    assert_eq!(
        space.reserve(&nowhere).map(drop),
        Err(Error::NoRoom { len: 4096 })
    );
}

pub fn linked_items_call_each_other_and_what_is_far(backend: Backend) {
    extern "C" fn helper() -> i32 {
        40
    }
    let space = jit(backend)
        .space(SpaceOptions {
            region: RegionOptions {
                window: Some(Window::reaching(1 << 44)),
                ..small().region
            },
            ..small()
        })
        .unwrap();
    let mut image = Vec::new();
    let call = |target| Reloc::new(5, RelocKind::Call32, target, -4);
    // sub rsp, 8; call far; add eax, 2; add rsp, 8; ret
    let code = vec![
        0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x83, 0xc0, 2, 0x48, 0x83, 0xc4, 8, 0xc3,
    ];
    let far = Target::Address(helper as *const () as usize);
    let inner = image.len();
    image.push(Item {
        relocs: vec![call(far)],
        ..Item::new("inner", code.clone())
    });
    let outer = image.len();
    image.push(Item {
        relocs: vec![call(Target::Item(inner))],
        ..Item::new("outer", code)
    });
    // mov rax, [rip + 1]; ret; and an address as data
    let code = vec![0x48, 0x8b, 0x05, 1, 0, 0, 0, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0];
    let pointer = Reloc::new(8, RelocKind::Abs64, Target::Item(outer), 0);
    let load = image.len();
    image.push(Item {
        relocs: vec![pointer],
        ..Item::new("load", code).data(8..16)
    });
    let functions = space.link(&image, None).unwrap();
    assert_eq!(run(&space, functions[inner]), 42);
    assert_eq!(run(&space, functions[outer]), 44);
    // SAFETY: this one returns a pointer.
    let loaded = unsafe {
        space
            .entry::<extern "C" fn() -> usize>(functions[load])
            .unwrap()()
    };
    assert_eq!(loaded, functions[outer].address);
    assert_eq!(space.lookup(loaded).unwrap().name, "outer");
    assert_eq!(space.stats().functions, 3);
}

pub fn what_cannot_be_linked_leaves_no_function(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let mut image = vec![Item::new("good", vec![0xc3])];
    // The field is 256, which makes the code an unfinished instruction.
    let reloc = Reloc::new(1, RelocKind::Rel8, Target::Item(0), -1);
    image.push(Item {
        relocs: vec![reloc],
        ..Item::new("bad", vec![0xeb, 0, 0x06])
    });
    let Err(Error::Code(error)) = space.link(&image, None) else {
        panic!("must be refused");
    };
    assert_eq!(error.reason, Reason::Invalid);
    assert_eq!((error.item, error.offset), (Some((1, "bad".to_owned())), 2));
    let stats = space.stats();
    assert_eq!(
        (stats.functions, stats.reserved, stats.published),
        (0, 0, 0)
    );
    // What no place would make right costs no room.
    for (at, item) in [(0, 1), (1, 0)] {
        let reloc = Reloc::new(at, RelocKind::Rel8, Target::Item(item), 0);
        let image = vec![Item {
            relocs: vec![reloc],
            ..Item::new("wrong", vec![0xc3])
        }];
        assert!(matches!(space.link(&image, None), Err(Error::Code(_))));
    }
    assert_eq!(space.stats(), stats);
    let far = Reloc::new(0, RelocKind::Rel8, Target::Address(1 << 44), 0);
    let image = vec![Item {
        relocs: vec![far],
        ..Item::new("far", vec![0xc3])
    }];
    assert!(matches!(space.link(&image, None), Err(Error::Code(_))));
    assert_eq!((space.stats().reserved, space.symbols().count()), (0, 0));
}

pub fn no_item_decides_what_another_is(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let refused = |first: Item, second: Item| {
        let image = vec![first, second];
        match space.link(&image, None) {
            Err(Error::Code(error)) => (error.item.unwrap().1, error.reason),
            other => panic!("{other:?}"),
        }
    };
    let answer = vec![0xb8, 42, 0, 0, 0, 0xc3];
    let wide = Item::new("wide", answer.clone()).data(6..116);
    let reason = Reason::DataRange {
        range: 6..116,
        len: 6,
    };
    let found = refused(wide, Item::new("bad", vec![0x06; 100]));
    assert_eq!(found, ("wide".to_owned(), reason));
    // What wraps around must not come out in the item before.
    let wrapped = usize::MAX - 15..usize::MAX;
    let second = Item::new("wrapped", answer.clone()).data(wrapped.clone());
    let reason = Reason::DataRange {
        range: wrapped,
        len: 6,
    };
    let found = refused(Item::new("bad", vec![0x06; 16]), second);
    assert_eq!(found, ("wrapped".to_owned(), reason));
    // The last byte would take the first four of the next item.
    let mut cut = vec![0x90; 16];
    cut[15] = 0xb8;
    let found = refused(Item::new("cut", cut), Item::new("next", answer));
    assert_eq!(found, ("cut".to_owned(), Reason::Truncated));
    assert_eq!((space.stats().reserved, space.symbols().count()), (0, 0));
}

#[derive(Default)]
struct Log(Mutex<Vec<(String, usize, Vec<u8>)>>);

fn line(code: &Symbol<'_>) -> (String, usize, Vec<u8>) {
    (code.name.to_owned(), code.address, code.bytes.to_vec())
}

impl Listener for Log {
    fn published(&self, codes: &[Symbol<'_>]) {
        self.0.lock().unwrap().extend(codes.iter().map(line));
    }
}

pub fn listeners_hear_of_all_code(backend: Backend) {
    let log = Arc::new(Log::default());
    let space = jit(backend)
        .space(SpaceOptions {
            listeners: vec![log.clone()],
            ..small()
        })
        .unwrap();
    let a = space.publish("a", &returns(1)).unwrap();
    let slot = space
        .reserve(&Request {
            name: "b",
            ..Request::new(9)
        })
        .unwrap();
    let b = space.fill(&slot, &returns(2)).unwrap();
    let image = vec![
        Item::new("c", returns(3).bytes().to_vec()),
        Item {
            align: Align::NONE,
            ..Item::new("d", returns(4).bytes().to_vec())
        },
    ];
    let linked = space.link(&image, None).unwrap();
    let all = [("a", a), ("b", b), ("c", linked[0]), ("d", linked[1])];
    let heard = log.0.lock().unwrap();
    assert_eq!(heard.len(), 4);
    for (value, ((name, function), line)) in (1..).zip(all.iter().zip(&*heard)) {
        let code = returns(value).bytes().to_vec();
        assert_eq!(*line, ((*name).to_owned(), function.address, code));
    }
    assert!(
        space
            .symbols()
            .map(|symbol| line(&symbol))
            .eq(heard.iter().cloned())
    );
}

pub fn many_threads_compile_at_once(backend: Backend) {
    let space = jit(backend)
        .space(SpaceOptions {
            region: RegionOptions {
                capacity: 1 << 16,
                ..Default::default()
            },
            ..large()
        })
        .unwrap();
    let space = &space;
    // Flips stop all threads for each publication.
    let flips = backend == Backend::ProtectFlips;
    let count = if flips { 100 } else { 1000 };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in 0..count {
                    let value = thread * 10_000 + number;
                    let name = value.to_string();
                    let function = if number % 2 == 0 {
                        space.publish(&name, &returns(value)).unwrap()
                    } else {
                        let request = Request {
                            name: &name,
                            ..Request::new(6)
                        };
                        space
                            .publish_with(&request, |_| Ok::<_, Error>(returns(value)))
                            .unwrap()
                    };
                    assert_eq!(run(space, function), value);
                    assert_eq!(space.lookup(function.address + 5).unwrap().name, name);
                }
            });
        }
    });
    let symbols: Vec<_> = space.symbols().collect();
    let functions = space.stats().functions;
    assert!(i32::try_from(symbols.len()) == Ok(8 * count) && functions == symbols.len());
    for symbol in symbols {
        assert_eq!(space.lookup(symbol.address), Some(symbol));
    }
}

thread_local! {
    static WATCHED: Cell<Option<(&'static CodeSpace, usize)>> = const { Cell::new(None) };
    static LOOKUPS: Cell<usize> = const { Cell::new(0) };
}

extern "C" fn look_up(_: i32) {
    let found = WATCHED
        .get()
        .and_then(|(space, address)| space.lookup(address));
    if found.is_some_and(|symbol| symbol.name == "target") {
        LOOKUPS.set(LOOKUPS.get() + 1);
    }
}

/// A handler may interrupt anything, so also a thread that is publishing.
pub fn signal_handlers_can_look_up(backend: Backend) {
    let space: &'static CodeSpace = Box::leak(Box::new(jit(backend).space(small()).unwrap()));
    let target = space.publish("target", &returns(1)).unwrap();
    WATCHED.set(Some((space, target.address)));
    let handler: extern "C" fn(i32) = look_up;
    // SAFETY: the handler uses two variables of its thread, which need no
    // initialisation, and reads the code space.
    unsafe { libc::signal(libc::SIGUSR2, handler as libc::sighandler_t) };
    // SAFETY: it names the calling thread.
    let publisher = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the publisher waits for this thread, so it exists.
                unsafe { libc::pthread_kill(publisher, libc::SIGUSR2) };
                std::thread::yield_now();
            }
        });
        let mut value = 0;
        while LOOKUPS.get() < 100 {
            space.publish("", &returns(value)).unwrap();
            value += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
}

pub fn code_for_another_address_is_moved(backend: Backend) {
    let space = jit(backend).space(small()).unwrap();
    let helper = pick as *const () as usize;
    // sub rsp, 8; call helper; add eax, 1; add rsp, 8; ret: for 256 bytes
    // before it, so that the target is not in the code itself.
    let from = helper - 9 - 256;
    let code = [
        0x48, 0x83, 0xec, 8, 0xe8, 0, 1, 0, 0, 0x83, 0xc0, 1, 0x48, 0x83, 0xc4, 8, 0xc3,
    ];
    let far = Request {
        name: "far",
        window: Some(Window::reaching(1 << 44)),
        ..Request::new(0)
    };
    let near = Request {
        name: "near",
        window: Some(Window::reaching(helper)),
        ..Request::new(0)
    };
    for request in [far, near] {
        let function = space.publish_moved(&request, &code, from).unwrap();
        assert_eq!(run(&space, function), 42);
    }
    // xor eax, eax; je +1; lock cmpxchg [rdi], edx; ret
    let skip = [0x31, 0xc0, 0x74, 1, 0xf0, 0x0f, 0xb1, 0x17, 0xc3];
    let refused = space.publish_moved(&Request::new(0), &skip, from);
    let Err(Error::Code(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.reason, Reason::SkipsLock { target: 5 });
}

pub fn linked_items_follow_the_rules(backend: Backend) {
    let rules = Rules::new().endbr64().within_lines();
    let space = jit(backend)
        .space(SpaceOptions { rules, ..small() })
        .unwrap();
    let endbr64 = [0xf3, 0x0f, 0x1e, 0xfa];
    let item = |name| Item::new(name, [&endbr64[..], returns(5).bytes()].concat());
    let mut image = vec![item("a"), item("b")];
    let good = space.link(&image, None).unwrap();
    assert!(good.iter().all(|function| function.address % 64 == 0));
    assert_eq!(run(&space, good[1]), 5);
    image.push(Item::new("c", returns(5).bytes().to_vec()));
    let Err(Error::Code(error)) = space.link(&image, None) else {
        panic!("must be refused");
    };
    assert_eq!(error.reason, Reason::NoEndbr64);
    assert_eq!((error.item, error.offset), (Some((2, "c".to_owned())), 0));
    let moved = space.publish_moved(&Request::new(0), &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3], 0);
    assert_eq!(moved.unwrap().address % 64, 0);
    // Where nothing is code, nothing has to be an entry.
    let image = vec![Item::new("data", vec![0; 16]).data(0..16)];
    assert!(space.link(&image, None).is_ok());
}

pub fn linked_code_enters_moved_code(backend: Backend) {
    let rules = Rules::new().entries_only().forbid_mnemonic("jmp").unwrap();
    let space = jit(backend)
        .space(SpaceOptions { rules, ..small() })
        .unwrap();
    let moved = space.publish_moved(&Request::new(0), returns(8).bytes(), 0);
    let enter = |address| {
        let call = Reloc::new(5, RelocKind::Call32, Target::Address(address), -4);
        let mut image = Vec::new();
        // sub rsp, 8; call; add rsp, 8; ret
        let code = vec![
            0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, 0xc3,
        ];
        image.push(Item {
            relocs: vec![call],
            ..Item::new("caller", code)
        });
        space.link(&image, None)
    };
    let moved = moved.unwrap().address;
    // No stub is needed, so none with its jump is there.
    assert_eq!(run(&space, enter(moved).unwrap()[0]), 8);
    assert!(is_no_entry(&enter(moved + 5).unwrap_err()));
    assert!(matches!(enter(1 << 46), Err(Error::Code(_))));
}

/// Chunks know what they need; slots and addresses must fit them.
pub fn code_stays_within_lines(backend: Backend) {
    let lines = Rules::new().within_lines();
    let space = jit(backend).space(small()).unwrap();
    // Crosses a line anywhere but at the start of one, or close to it.
    let mut code = vec![0x90; 58];
    code.extend(returns(4).bytes());
    let chunk = validate(&code, &lines).unwrap();
    let aligned = |address: usize| address % 64 == 0;
    space.publish("odd", &returns(1)).unwrap();
    let published = space.publish("lines", &chunk).unwrap();
    assert!(aligned(published.address) && run(&space, published) == 4);
    let batch = [("a", &returns(2)), ("b", &chunk), ("c", &chunk)];
    let all = space.publish_all(&batch).unwrap();
    assert!(aligned(all[1].address) && aligned(all[2].address));
    let request = Request {
        align: Align::LINE,
        ..Request::new(64)
    };
    let emitted = space.publish_with(&request, |_| Ok::<_, Error>(chunk.clone()));
    assert!(aligned(emitted.unwrap().address));
    // Behind 16 bytes of a line.
    space.publish("odd", &returns(1)).unwrap();
    let slot = space.reserve(&Request::new(64)).unwrap();
    assert!(!aligned(slot.address));
    let refused = space.fill(&slot, &chunk);
    assert!(matches!(refused, Err(Error::Argument(text)) if text.contains("64 bytes")));
    space.fill(&slot, &returns(6)).unwrap();
}

/// Two regions of the largest size can't reach each other from end to end.
pub fn the_largest_regions_reach_each_other(backend: Backend) {
    // A reservation there takes memory.
    if backend == Backend::DualMapping {
        return;
    }
    let options = SpaceOptions {
        together: true,
        region: RegionOptions {
            capacity: 1 << 30,
            ..Default::default()
        },
        ..large()
    };
    let space = jit(backend).space(options).unwrap();
    let whole = Request::new((1 << 30) - 4096);
    space.reserve(&whole).unwrap();
    let code = space.publish("first", &returns(1)).unwrap();
    assert_eq!((run(&space, code), space.stats().regions), (1, 1));
    // So the second one is smaller.
    let second = space.reserve(&Request::new(1 << 20)).unwrap();
    assert!(second.address.abs_diff(code.address) < 1 << 31);
    let capacities: Vec<_> = space
        .regions()
        .map(|region| region.mapping().len())
        .collect();
    // By how much depends on what else the process has mapped there.
    assert_eq!(capacities[0], 1 << 30);
    assert!(
        (1 << 20..1 << 30).contains(&capacities[1]),
        "{capacities:?}"
    );
    let bases: Vec<_> = space
        .regions()
        .map(|region| region.mapping().address())
        .collect();
    let (low, high) = (
        bases[0].min(bases[1]),
        (bases[0] + capacities[0]).max(bases[1] + capacities[1]),
    );
    assert!(high - low < 1 << 31);
}

pub fn regions_for_perf_maps_work_like_others(backend: Backend) {
    let there = Window::reaching(1 << 44);
    for window in [None, Some(there)] {
        let region = RegionOptions {
            perf_map: true,
            window,
            ..small().region
        };
        let options = SpaceOptions { region, ..small() };
        match jit(backend).space(options) {
            Ok(space) => {
                let function = space.publish("", &returns(7)).unwrap();
                assert_eq!(run(&space, function), 7);
                assert_eq!(window.is_some(), there.contains(function.address, 6));
            }
            Err(Error::Unsupported { .. }) => assert_eq!(backend, Backend::ProtectFlips),
            Err(error) => panic!("{error}"),
        }
    }
}

extern "C" fn pick() -> i32 {
    41
}
