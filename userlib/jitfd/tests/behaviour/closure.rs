// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rust closures that are called as C functions are.

use super::process::{End, child};
use jitfd::{Backend, Error, Fallback, Jit, Register};
use jitfd_trampoline::{Closure, Table};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{null_mut, without_provenance, without_provenance_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub fn jit(backend: Backend) -> Jit {
    Jit::open(Fallback::Only(backend)).unwrap()
}

/// Calls a closure whose arguments are all of one type, and says what it saw.
macro_rules! arity {
    ($jit:expr, $type:ty, $returns:ty: $($name:ident = $value:expr),*) => {{
        let captured: u64 = 0x1_0000_0001;
        let closure = move |$($name: $type),*| -> $returns {
            let seen: &[$type] = &[$($name),*];
            let expected: &[$type] = &[$($value as $type),*];
            assert_eq!((captured, seen), (0x1_0000_0001, expected));
            (41.0 + 1.0) as $returns
        };
        let closure = Closure::new($jit, closure).unwrap();
        // SAFETY: the closure is there, and these are its arguments.
        let returned = unsafe { closure.entry()($($value as $type),*) };
        assert_eq!(returned, 42.0 as $returns);
    }};
}

macro_rules! arities {
    ($jit:expr, $type:ty, $returns:ty) => {
        arity!($jit, $type, $returns:);
        arity!($jit, $type, $returns: a = 1);
        arity!($jit, $type, $returns: a = 1, b = 2);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10, k = 11);
        arity!($jit, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10, k = 11, l = 12);
    };
}

pub fn up_to_twelve_arguments_arrive(backend: Backend) {
    let jit = &jit(backend);
    arities!(jit, i64, i64);
    arities!(jit, u8, u8);
    arities!(jit, f64, f64);
    arities!(jit, f32, f32);
}

extern "C" fn three() -> i32 {
    3
}

pub fn arguments_of_all_types_arrive(backend: Backend) {
    type Three = extern "C" fn() -> i32;
    let jit = &jit(backend);
    let small = |a: i8, b: u8, c: i16, d: f32, e: u16, f: f64, g: bool| {
        assert_eq!((a, b, c, e, g), (-1, 255, -2, 65535, true));
        assert_eq!((d, f), (1.5, -2.5));
        -3_i8
    };
    let small = Closure::new(jit, small).unwrap();
    // SAFETY: the closure is there, and these are its arguments.
    let returned = unsafe { small.entry()(-1, 255, -2, 1.5, 65535, -2.5, true) };
    assert_eq!(returned, -3);
    // More than six integers and more than eight floats, in between each other.
    let mixed = |a: i32,
                 b: f64,
                 c: *const c_void,
                 d: f32,
                 e: Option<Three>,
                 f: isize,
                 g: usize,
                 h: u32,
                 i: bool,
                 j: i16,
                 k: f64,
                 l: *mut u8| {
        assert_eq!((a, b, c.addr(), d), (-1, 2.0, 3, 4.0));
        assert_eq!((e.unwrap()(), f, g, h, i), (3, -6, 7, 8, false));
        assert_eq!((j, k, l.addr()), (-10, 11.0, 12));
        f64::from(a) + k
    };
    let mixed = Closure::new(jit, mixed).unwrap();
    let (third, twelfth) = (without_provenance(3), without_provenance_mut(12));
    // SAFETY: as above.
    let returned = unsafe {
        mixed.entry()(
            -1,
            2.0,
            third,
            4.0,
            Some(three),
            -6,
            7,
            8,
            false,
            -10,
            11.0,
            twelfth,
        )
    };
    assert_eq!(returned, 10.0);
    let pointers = |e: Option<Three>| -> Option<Three> { e.xor(Some(three)) };
    let pointers = Closure::new(jit, pointers).unwrap();
    // SAFETY: as above.
    let (none, some) = unsafe { (pointers.entry()(Some(three)), pointers.entry()(None)) };
    assert!(none.is_none() && some.unwrap()() == 3);
}

pub fn a_result_is_extended_as_its_type_says(backend: Backend) {
    // Six arguments go by way of saved registers, five do not.
    let five = |a: i64, b: i64, c: i64, d: i64, e: i64| (a + b + c + d + e) as i8;
    let six = |a: i64, b: i64, c: i64, d: i64, e: i64, f: i64| (a + b + c + d + e + f) as i8;
    let jit = &jit(backend);
    let five = Closure::new(jit, five).unwrap();
    let six = Closure::new(jit, six).unwrap();
    // SAFETY: the closures are there, and these are their arguments.
    let returned = unsafe { (five.entry()(-1, 0, 0, 0, 0), six.entry()(-1, 0, 0, 0, 0, 0)) };
    assert_eq!(returned, (-1, -1));
    let truth = |_: i64, _: i64, _: i64, _: i64, _: i64, f: i64| f == 1;
    let truth = Closure::new(jit, truth).unwrap();
    // SAFETY: as above.
    let returned = unsafe { [1, 2].map(|f| truth.entry()(0, 0, 0, 0, 0, f)) };
    assert_eq!(returned, [true, false]);
}

pub fn the_c_library_calls_closures(backend: Backend) {
    let calls = Cell::new(0);
    let compare = |a: *const c_void, b: *const c_void| -> c_int {
        calls.set(calls.get() + 1);
        // SAFETY: qsort passes the addresses of two elements.
        let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
        a.cmp(&b) as c_int
    };
    let jit = &jit(backend);
    let compare = Closure::new_local(jit, compare).unwrap();
    let mut numbers: Vec<i32> = (0..1000).map(|n| n * 7919 % 1000).collect();
    let start = numbers.as_mut_ptr().cast();
    // SAFETY: so many elements of four bytes, and the closure is there.
    unsafe { libc::qsort(start, numbers.len(), 4, Some(*compare.entry())) };
    assert!(numbers.is_sorted() && calls.get() > 1000);

    let (base, sum) = (40, AtomicUsize::new(0));
    let run = |argument: *mut c_void| -> *mut c_void {
        sum.fetch_add(argument.addr(), Ordering::Relaxed);
        without_provenance_mut(base + argument.addr())
    };
    let run = Closure::new(jit, run).unwrap();
    let (mut thread, mut result) = (0, null_mut());
    let argument = without_provenance_mut(2);
    // SAFETY: the closure outlives the thread, which is joined.
    let errors = unsafe {
        let run = *run.entry();
        let created = libc::pthread_create(&raw mut thread, std::ptr::null(), run, argument);
        (created, libc::pthread_join(thread, &raw mut result))
    };
    assert_eq!(
        (errors, result.addr(), sum.load(Ordering::Relaxed)),
        ((0, 0), 42, 2)
    );
}

pub fn a_leaked_closure_runs_when_the_process_ends(backend: Backend) {
    let ended = child(|| {
        let status = Box::new(42);
        let at_exit = Closure::new(&jit(backend), move || {
            // SAFETY: ends this process.
            unsafe { libc::_exit(*status) }
        });
        let Ok(at_exit) = at_exit else { return 1 };
        let at_exit: extern "C" fn() = at_exit.leak();
        // SAFETY: the function lives for ever; this ends the process.
        unsafe {
            libc::atexit(at_exit);
            libc::exit(2)
        }
    });
    assert_eq!(ended, End::Status(42));
}

struct Dropped<'c>(&'c AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn what_is_captured_is_dropped_once(backend: Backend) {
    let count = AtomicUsize::new(0);
    let dropped = || count.load(Ordering::Relaxed);
    let captured = Dropped(&count);
    let jit = &jit(backend);
    let closure = Closure::new(jit, move || {
        let captured = &captured;
        captured.0.load(Ordering::Relaxed) as u64
    });
    let closure = closure.unwrap();
    let moved = thread::scope(|scope| scope.spawn(move || closure).join().unwrap());
    // SAFETY: the closure is there.
    assert_eq!(unsafe { moved.entry()() }, 0);
    assert_eq!(dropped(), 0);
    drop(moved);
    assert_eq!(dropped(), 1);
    let captured = Dropped(&count);
    let once = Closure::new_once(jit, move || drop(captured)).unwrap();
    // SAFETY: the closure is there.
    unsafe { once.entry()() };
    assert_eq!(dropped(), 2);
    drop(once);
    assert_eq!(dropped(), 2);
    let captured = Dropped(&count);
    drop(Closure::new_once(jit, move || drop(captured)));
    assert_eq!(dropped(), 3);
}

pub fn a_call_after_the_drop_is_a_trap(backend: Backend) {
    let table = own_table(Register::Rdi, backend);
    let closure = Closure::new(&table, || 1).unwrap();
    // SAFETY: the table is there, so a call after the end is a trap; that is what is
    // tested.
    let pointer = unsafe { *closure.entry() };
    assert_eq!(pointer(), 1);
    drop(closure);
    let late = child(|| pointer());
    assert_eq!(late, End::Signal(libc::SIGTRAP));
}

pub fn a_closure_that_changes_is_called_by_one_at_a_time(backend: Backend) {
    let mut calls = Vec::new();
    let jit = &jit(backend);
    let push = Closure::new_mut(jit, |number: i32| calls.push(number)).unwrap();
    for number in 0..3 {
        // SAFETY: the closure is there, and called by nobody else.
        unsafe { push.entry()(number) };
    }
    drop(push);
    assert_eq!(calls, [0, 1, 2]);
    // Called by itself.
    let itself = Cell::new(None::<extern "C-unwind" fn(i32)>);
    struct Shown<'c>(&'c Cell<Option<extern "C-unwind" fn(i32)>>);
    // SAFETY: only this thread uses it.
    unsafe impl Send for Shown<'_> {}
    let shown = Shown(&itself);
    let again = Closure::new_mut(jit, move |down: i32| {
        let shown = &shown;
        if down > 0 {
            shown.0.get().unwrap()(down - 1);
        }
    });
    let again = again.unwrap().unwinding();
    // SAFETY: the closure is there when it is called.
    itself.set(Some(unsafe { *again.entry() }));
    // SAFETY: the closure is there.
    let call = |down| catch_unwind(AssertUnwindSafe(|| unsafe { again.entry()(down) }));
    silently(|| {
        call(0).unwrap();
        call(1).unwrap_err();
        call(0).unwrap();
    });
}

pub fn a_closure_that_is_used_up_is_called_once(backend: Backend) {
    let text = String::from("once");
    let once = Closure::new_once(&jit(backend), move || text.len());
    let once = once.unwrap().unwinding();
    silently(|| {
        // SAFETY: the closure is there.
        let call = || catch_unwind(AssertUnwindSafe(|| unsafe { once.entry()() }));
        assert_eq!(call().unwrap(), 4);
        call().unwrap_err();
    });
}

/// With panics that write nothing: those of this thread are expected.
pub fn silently(work: impl FnOnce()) {
    // The hook is the process's; what others of its threads write meanwhile is lost.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    work();
    std::panic::set_hook(hook);
}

pub fn panics_pass_or_end_the_process(backend: Backend) {
    let jit = &jit(backend);
    let few = |a: i64| resume_unwind(Box::new(a));
    let few = Closure::new(jit, few).unwrap().unwinding();
    let many = |a: i64, _: i64, _: i64, _: i64, _: i64, _: i64, _: i64| resume_unwind(Box::new(a));
    let many = Closure::new(jit, many).unwrap().unwinding();
    let local = Closure::new_local(jit, |a: i64| resume_unwind(Box::new(a)));
    let local = local.unwrap().unwinding();
    // SAFETY: the closures are there, and these are their arguments.
    let calls: [&dyn Fn(); 3] = unsafe {
        [
            &|| few.entry()(42),
            &|| many.entry()(42, 0, 0, 0, 0, 0, 0),
            &|| local.entry()(42),
        ]
    };
    for call in calls {
        let caught = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&42_i64));
    }
    let few = Closure::new(jit, |a: i64| resume_unwind(Box::new(a))).unwrap();
    let many = |a: i64, _: i64, _: i64, _: i64, _: i64, _: i64| resume_unwind(Box::new(a));
    let many = Closure::new(jit, many).unwrap();
    // SAFETY: as above.
    let calls: [&dyn Fn(); 2] =
        unsafe { [&|| few.entry()(42), &|| many.entry()(42, 0, 0, 0, 0, 0)] };
    for call in calls {
        silently(|| {
            let ended = child(|| catch_unwind(AssertUnwindSafe(call)).is_err().into());
            assert_eq!(ended, End::Signal(libc::SIGABRT));
        });
    }
}

fn own_table(context_register: Register, backend: Backend) -> Arc<Table> {
    Arc::new(Table::create(&jit(backend), context_register).unwrap())
}

/// Whether the text of an error names the registers that there may be.
fn refused<T>(made: Result<T, Error>, wanted: &str) -> bool {
    match made {
        Err(Error::Argument(text)) => text.contains(wanted),
        _ => false,
    }
}

/// Those that tables carry contexts in.
pub const CONTEXT_REGISTERS: [Register; 7] = [
    Register::Rdi,
    Register::Rsi,
    Register::Rdx,
    Register::Rcx,
    Register::R8,
    Register::R9,
    Register::R10,
];

pub fn a_table_serves_the_types_that_leave_its_carrier_free(backend: Backend) {
    for context_register in Register::ALL {
        if !CONTEXT_REGISTERS.contains(&context_register) {
            let table = Table::create(&jit(backend), context_register);
            assert!(refused(table.map(drop), "r10"), "{context_register:?}");
            continue;
        }
        let table = own_table(context_register, backend);
        let two = Closure::new(&table, |a: i32, b: f64, c: i32| f64::from(a - c) * b);
        let fits = matches!(context_register, Register::Rdx | Register::R10);
        match two {
            // SAFETY: the closure is there.
            Ok(two) => assert!(fits && unsafe { two.entry()(44, 0.5, 2) } == 21.0),
            error => assert!(!fits && refused(error.map(drop), "rdx or r10")),
        }
        // SAFETY: it takes anything, and is not called.
        let registers = unsafe { Closure::<extern "C" fn()>::with_registers(&table, |_| {}) };
        assert_eq!(registers.is_ok(), context_register == Register::R10);
        drop(registers);
    }
    let table = own_table(Register::Rdi, backend);
    let five = Closure::new(&table, |_: u8, _: f32, _: u8, _: u8, _: u8, _: u8| {});
    assert!(refused(five.map(drop), "r9 or r10"));
    let six = Closure::new(&table, |_: u8, _: u8, _: u8, _: u8, _: u8, _: u8| {});
    assert!(refused(six.map(drop), "is r10"));
}

pub fn a_closure_keeps_its_table(backend: Backend) {
    let table = own_table(Register::Rdi, backend);
    let closure = Closure::new(&table, || 42).unwrap();
    drop(table);
    // SAFETY: the closure is there.
    assert_eq!(unsafe { closure.entry()() }, 42);
}

pub fn many_closures_are_called_by_many_threads(backend: Backend) {
    const CLOSURES: usize = 10_000;
    let calls = AtomicUsize::new(0);
    let calls = &calls;
    let jit = &jit(backend);
    let make = |number: usize| {
        Closure::new(jit, move |by: usize| {
            calls.fetch_add(1, Ordering::Relaxed);
            number * by
        })
    };
    let closures: Result<Vec<Closure<'_, extern "C" fn(usize) -> usize>>, _> =
        (0..CLOSURES).map(make).collect();
    let closures = closures.unwrap();
    thread::scope(|scope| {
        for by in 1..=4 {
            let closures = &closures;
            scope.spawn(move || {
                for (number, closure) in closures.iter().enumerate() {
                    // SAFETY: the closure is there.
                    assert_eq!(unsafe { closure.entry()(by) }, number * by);
                }
            });
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 4 * CLOSURES);
}
