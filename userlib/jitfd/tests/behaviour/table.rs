// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables of trampolines: each entry goes to its own target with its own context.

use super::closure::{CONTEXT_REGISTERS, jit};
use super::process::{End, accesses, child};
use jitfd::{Backend, Kind, Mapping, Register, Rules, validate};
use jitfd_trampoline::{Table, TableOptions, Trampoline};
use std::collections::HashSet;
use std::ffi::c_void;
use std::ptr::without_provenance_mut;
use std::sync::{Mutex, mpsc};
use std::thread;

fn create(context_register: Register, backend: Backend) -> Table {
    let options = TableOptions {
        context_register,
        copy_capacity: 256,
        ..Default::default()
    };
    Table::create(&jit(backend), options).unwrap()
}

type Six = extern "C" fn(u64, u64, u64, u64, u64, u64) -> u64;

/// A function that returns what it finds in a register:
/// endbr64; mov rax, register; ret
fn returns_register(backend: Backend, register: Register) -> Mapping {
    let number = u8::try_from(register as usize).unwrap();
    let (rex, modrm) = (0x48 | number >> 3 << 2, 0xc0 | (number & 7) << 3);
    let bytes = [0xf3, 0x0f, 0x1e, 0xfa, rex, 0x89, modrm, 0xc3];
    let chunk = validate(&bytes, &Rules::new().endbr64()).unwrap();
    jit(backend).code(&chunk).unwrap()
}

fn bind<'t>(table: &'t Table, target: *const c_void, context: usize) -> Trampoline<'t> {
    // SAFETY: the targets of these tests take any context.
    unsafe { table.bind(target, without_provenance_mut(context)) }.unwrap()
}

pub fn the_carrier_has_the_context_and_all_else_is_as_it_was(backend: Backend) {
    let readers = CONTEXT_REGISTERS.map(|register| returns_register(backend, register));
    for context_register in CONTEXT_REGISTERS {
        let table = create(context_register, backend);
        for (seen, reader) in readers.iter().enumerate() {
            let reader = std::ptr::with_exposed_provenance(reader.address());
            let trampoline = bind(&table, reader, 0x1234_5678_9abc);
            // SAFETY: the reader takes any arguments.
            let call = unsafe { trampoline.entry::<Six>() };
            let got = call(10, 11, 12, 13, 14, 15);
            let seen = CONTEXT_REGISTERS[seen];
            if seen == context_register {
                assert_eq!(got, 0x1234_5678_9abc, "{context_register:?}");
            } else if seen != Register::R10 {
                let argument = CONTEXT_REGISTERS
                    .iter()
                    .position(|&one| one == seen)
                    .unwrap();
                assert_eq!(
                    got,
                    10 + argument as u64,
                    "{seen:?} with {context_register:?}"
                );
            }
        }
    }
}

/// Called with one argument.
extern "C" fn add(number: usize, context: *mut c_void) -> usize {
    number + context.addr()
}

fn adder(table: &Table, context: usize) -> Trampoline<'_> {
    bind(table, add as *const c_void, context)
}

fn call(trampoline: &Trampoline<'_>, number: usize) -> usize {
    // SAFETY: the tests that use this bind `add`.
    let function = unsafe { trampoline.entry::<extern "C" fn(usize) -> usize>() };
    function(number)
}

/// What a thread keeps at most.
const KEPT: usize = 64;

pub fn many_trampolines_use_few_mappings(backend: Backend) {
    const MANY: usize = 10_000;
    let table = create(Register::Rsi, backend);
    assert_eq!(table.stats().copies, 1);
    let entries: Vec<_> = (0..MANY).map(|context| adder(&table, context)).collect();
    let addresses: HashSet<_> = entries.iter().map(|entry| entry.address()).collect();
    assert_eq!(addresses.len(), MANY);
    for (context, entry) in entries.iter().enumerate() {
        assert_eq!(call(entry, 7), context + 7);
    }
    let full = table.stats();
    assert_eq!(full.copies, MANY.div_ceil(255));
    assert!((MANY..=MANY + KEPT).contains(&full.taken), "{full:?}");
    // Half of them go, and come back at the same places: nothing grows.
    let mut entries = entries;
    for round in 0..3 {
        entries.truncate(MANY / 2);
        entries.extend((MANY / 2..MANY).map(|context| adder(&table, context + round)));
        assert_eq!(table.stats().copies, full.copies);
    }
    assert_eq!(call(&entries[MANY - 1], 0), MANY + 1);
    drop(entries);
    assert!(table.stats().taken <= KEPT);
    table.trim();
    let empty = table.stats();
    assert_eq!((empty.taken, empty.copies, empty.data_bytes), (0, 1, 4096));
}

pub fn one_after_the_other_needs_one_copy(backend: Backend) {
    let table = create(Register::Rsi, backend);
    for context in 0..100_000 {
        let trampoline = adder(&table, context);
        assert_eq!(call(&trampoline, 1), context + 1);
    }
    assert_eq!(table.stats().copies, 1);
}

pub fn a_stale_call_is_a_trap(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let trampoline = adder(&table, 1);
    // SAFETY: that the call after the end is a trap is what is tested.
    let stale = unsafe { *trampoline.entry::<extern "C" fn(usize) -> usize>() };
    assert_eq!(stale(1), 2);
    drop(trampoline);
    let end = child(|| i32::from(stale(1) == 2));
    assert_eq!(end, End::Signal(libc::SIGTRAP));
    // The next one is at the same place.
    let trampoline = adder(&table, 2);
    assert_eq!((stale(1), call(&trampoline, 1)), (3, 3));
}

/// The context and the target of an entry of a copy with 256 of them.
fn slot(trampoline: usize) -> [usize; 2] {
    let in_copy = trampoline & 0x3fff;
    let slot = trampoline - in_copy + 0x2000 + in_copy / 2;
    let slot = std::ptr::with_exposed_provenance::<[usize; 2]>(slot);
    // SAFETY: a slot of a copy that is mapped.
    unsafe { slot.read_volatile() }
}

pub fn a_free_slot_holds_nothing_of_its_owner(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let trampoline = adder(&table, 77);
    let at = trampoline.address();
    assert_eq!(slot(at), [77, add as *const () as usize]);
    drop(trampoline);
    let [context, target] = slot(at);
    assert_eq!(context, 0);
    assert!((at..at + 32).contains(&target), "{target:#x}");
}

pub fn raw_entries_stay_until_they_are_released(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let raw = adder(&table, 5).into_raw();
    let given = adder(&table, 6).into_raw();
    // SAFETY: both are in use.
    let contexts = unsafe { [raw, given].map(|entry| table.context(entry).addr()) };
    assert_eq!(contexts, [5, 6]);
    // SAFETY: nobody calls them any more.
    unsafe {
        table.release(raw);
        table.release(given);
    }
    let again = [adder(&table, 0), adder(&table, 0)].map(|entry| entry.address());
    assert!(again.contains(&raw.addr()) || again.contains(&given.addr()));
}

pub fn a_trampoline_released_twice_has_one_owner(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let trampoline = adder(&table, 5).into_raw();
    // SAFETY: nobody calls it any more. That a second time does no harm as long as
    // nothing else is bound there is what is tested.
    unsafe {
        table.release(trampoline);
        table.release(trampoline);
    }
    let (first, second) = (adder(&table, 6), adder(&table, 7));
    assert_ne!(first.address(), second.address());
    assert_eq!((call(&first, 1), call(&second, 1)), (7, 8));
    drop((first, second));
    table.trim();
    assert_eq!(table.stats().taken, 0);
}

/// Whatever their numbers are: of nine, two have the same remainder by eight.
pub fn a_thread_keeps_slots_of_several_tables(backend: Backend) {
    let tables: Vec<Table> = (0..9).map(|_| create(Register::Rsi, backend)).collect();
    for (first, last) in (0..9).flat_map(|a| (0..a).map(move |b| (a, b))) {
        // Each pair with a thread of its own, which keeps nothing yet.
        let (first, last) = (&tables[first], &tables[last]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    drop(adder(first, 1));
                    drop(adder(last, 2));
                    assert!(first.stats().taken > 0 && last.stats().taken > 0);
                }
            });
        });
    }
}

fn moves_between_threads<T: Send + Sync>(_: &T) {}

pub fn threads_never_share_a_slot(backend: Backend) {
    const THREADS: usize = 4;
    const ROUNDS: usize = 60;
    let table = create(Register::Rsi, backend);
    moves_between_threads(&adder(&table, 0));
    let live = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        let work = |thread| {
            let (table, live) = (&table, &live);
            move || {
                for round in 0..ROUNDS {
                    let first = (thread * ROUNDS + round) * 1000;
                    // Other numbers each time: halves of lines, and whole copies.
                    let contexts = first..first + 1 + round * 13 % 600;
                    let entries: Vec<_> = contexts
                        .clone()
                        .map(|context| adder(table, context))
                        .collect();
                    let mine = || entries.iter().map(|entry| entry.address());
                    let mut all = live.lock().unwrap();
                    assert!(mine().all(|entry| all.insert(entry)), "a slot twice");
                    drop(all);
                    for (entry, context) in entries.iter().zip(contexts) {
                        assert_eq!(call(entry, 3), context + 3);
                    }
                    let mut all = live.lock().unwrap();
                    assert!(mine().all(|entry| all.remove(&entry)));
                    drop(all);
                }
            }
        };
        let threads = Vec::from_iter((0..THREADS).map(|thread| scope.spawn(work(thread))));
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    // The others have given back what they kept.
    table.trim();
    let stats = table.stats();
    assert_eq!((stats.taken, stats.copies), (0, 1));
}

pub fn entries_may_be_dropped_by_other_threads(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let (give, take) = mpsc::sync_channel(100);
    thread::scope(|scope| {
        let table = &table;
        let binder = scope.spawn(move || {
            for context in 0..20_000 {
                give.send((context, adder(table, context))).unwrap();
            }
        });
        for (context, entry) in take {
            assert_eq!(call(&entry, 1), context + 1);
        }
        // With what it kept.
        binder.join().unwrap();
    });
    let stats = table.stats();
    assert!(stats.copies <= 3 && stats.taken <= KEPT, "{stats:?}");
}

/// More tables than a thread has lines for.
pub fn tables_do_not_mix(backend: Backend) {
    let tables = Vec::from_iter((0..20).map(|_| create(Register::Rsi, backend)));
    for round in 0..50 {
        let entries = Vec::from_iter(tables.iter().map(|table| adder(table, round)));
        for entry in &entries {
            assert_eq!(call(entry, 1), round + 1);
        }
    }
    drop(tables);
    let table = create(Register::Rsi, backend);
    assert_eq!(call(&adder(&table, 4), 1), 5);
}

pub fn a_thread_outlives_its_tables(backend: Backend) {
    let mut seen = 0;
    for context in 0..10 {
        let table = create(Register::Rsi, backend);
        let trampoline = adder(&table, context);
        assert_eq!(call(&trampoline, 1), context + 1);
        let start = trampoline.address();
        drop(trampoline);
        // In a child, because other threads may map something there. If one of them held
        // the unwinder's lock at the fork, the child waits for that until it is ended.
        let end = child(|| {
            drop(table);
            i32::from(accesses(start, 1).is_empty())
        });
        if end != End::Signal(libc::SIGALRM) {
            assert_eq!(end, End::Status(1));
            seen += 1;
        }
    }
    assert!(seen > 0, "no child could drop its table");
}

pub fn a_forked_child_has_entries_of_its_own(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let first = adder(&table, 1);
    let second = adder(&table, 2);
    let address = first.address();
    let mut first = Some(first);
    let end = child(|| {
        let inherited = first.as_ref().map_or(0, |entry| call(entry, 1));
        first = None;
        // In the place of the first, and in further copies.
        let context = |context| without_provenance_mut(context);
        // SAFETY: as in `bind`, which could panic.
        let own: Vec<_> = (0..1000)
            .filter_map(|number| unsafe { table.bind(add as *const c_void, context(number)) }.ok())
            .collect();
        let right = own
            .iter()
            .enumerate()
            .all(|(number, entry)| call(entry, 1) == number + 1);
        let reused = own.iter().any(|entry| entry.address() == address);
        i32::from(inherited == 2 && own.len() == 1000 && right && reused && call(&second, 1) == 3)
    });
    assert_eq!(end, End::Status(1));
    assert_eq!(call(&first.unwrap(), 1), 2);
    assert_eq!((call(&second, 1), table.stats().copies), (3, 1));
}

pub fn a_call_that_fails_changes_nothing(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let mut entries = Vec::from_iter((0..255).map(|context| adder(&table, context)));
    entries.reserve(10);
    let before = table.stats();
    let end = child(|| {
        let limit = |soft| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: `limit` is valid for reads and writes.
            unsafe {
                libc::getrlimit(libc::RLIMIT_AS, &raw mut limit);
                limit.rlim_cur = if soft { 0 } else { limit.rlim_max };
                libc::setrlimit(libc::RLIMIT_AS, &raw const limit);
            }
        };
        // SAFETY: as in `bind`, which could panic.
        let bind = || unsafe { table.bind(add as *const c_void, without_provenance_mut(9)) };
        limit(true);
        let refused = bind();
        let full = matches!(&refused, Err(error) if error.kind() == Some(Kind::NoMemory));
        let same = table.stats() == before;
        limit(false);
        let works = bind().is_ok_and(|bound| call(&bound, 1) == 10);
        i32::from(full) + 2 * i32::from(same) + 4 * i32::from(works)
    });
    assert_eq!(end, End::Status(7));
    assert_eq!(call(&entries[254], 1), 255);
}

pub fn no_page_of_a_copy_is_writable_and_executable(backend: Backend) {
    let table = create(Register::Rsi, backend);
    let trampoline = adder(&table, 1);
    let start = trampoline.address() & !0x3fff;
    let both = [accesses(start, 0x2000), accesses(start + 0x2000, 0x1000)];
    let [code, data] = both;
    assert!(code.len() == 1 && code[0].starts_with("r-x"), "{code:?}");
    assert!(data.len() == 1 && data[0] == "rw-p", "{data:?}");
    let at = std::ptr::with_exposed_provenance_mut::<u8>(trampoline.address());
    // SAFETY: the store does not happen: the page is not writable.
    let stored = child(|| unsafe {
        at.write_volatile(0);
        0
    });
    assert_eq!(stored, End::Signal(libc::SIGSEGV));
}
