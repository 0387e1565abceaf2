// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rust closures that are called as C functions are.

use super::process::{End, child};
use jitfd::{Backend, Error, Fallback};
use jitfd_trampoline::{Closure, ClosureOptions, ContextRegister, Signature, Table, TableOptions};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{null_mut, without_provenance, without_provenance_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub fn options(backend: Backend) -> ClosureOptions<'static> {
    ClosureOptions::new().fallback(Fallback::Only(backend))
}

/// Calls a closure whose arguments are all of one type, and says what it saw.
macro_rules! arity {
    ($backend:expr, $type:ty, $returns:ty: $($name:ident = $value:expr),*) => {{
        let captured: u64 = 0x1_0000_0001;
        let closure = options($backend)
            .create(move |$($name: $type),*| -> $returns {
                let seen: &[$type] = &[$($name),*];
                let expected: &[$type] = &[$($value as $type),*];
                assert_eq!((captured, seen), (0x1_0000_0001, expected));
                (41.0 + 1.0) as $returns
            })
            .unwrap();
        // SAFETY: the closure is there, and these are its arguments.
        let returned = unsafe { closure.as_fn()($($value as $type),*) };
        assert_eq!(returned, 42.0 as $returns);
    }};
}

macro_rules! arities {
    ($backend:expr, $type:ty, $returns:ty) => {
        arity!($backend, $type, $returns:);
        arity!($backend, $type, $returns: a = 1);
        arity!($backend, $type, $returns: a = 1, b = 2);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10, k = 11);
        arity!($backend, $type, $returns: a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8,
            i = 9, j = 10, k = 11, l = 12);
    };
}

pub fn up_to_twelve_arguments_arrive(backend: Backend) {
    arities!(backend, i64, i64);
    arities!(backend, u8, u8);
    arities!(backend, f64, f64);
    arities!(backend, f32, f32);
}

extern "C" fn three() -> i32 {
    3
}

pub fn arguments_of_all_types_arrive(backend: Backend) {
    type Three = extern "C" fn() -> i32;
    let small = |a: i8, b: u8, c: i16, d: f32, e: u16, f: f64, g: bool| {
        assert_eq!((a, b, c, e, g), (-1, 255, -2, 65535, true));
        assert_eq!((d, f), (1.5, -2.5));
        -3_i8
    };
    let small = options(backend).create(small).unwrap();
    // SAFETY: the closure is there, and these are its arguments.
    let returned = unsafe { small.as_fn()(-1, 255, -2, 1.5, 65535, -2.5, true) };
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
    let mixed = options(backend).create(mixed).unwrap();
    let (third, twelfth) = (without_provenance(3), without_provenance_mut(12));
    // SAFETY: as above.
    let returned = unsafe {
        mixed.as_fn()(
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
    let pointers = options(backend);
    let pointers = pointers.create(|e: Option<Three>| -> Option<Three> { e.xor(Some(three)) });
    let pointers = pointers.unwrap();
    // SAFETY: as above.
    let (none, some) = unsafe { (pointers.as_fn()(Some(three)), pointers.as_fn()(None)) };
    assert!(none.is_none() && some.unwrap()() == 3);
}

pub fn a_result_is_extended_as_its_type_says(backend: Backend) {
    // Six arguments go by way of saved registers, five do not.
    let five = |a: i64, b: i64, c: i64, d: i64, e: i64| (a + b + c + d + e) as i8;
    let six = |a: i64, b: i64, c: i64, d: i64, e: i64, f: i64| (a + b + c + d + e + f) as i8;
    let five = options(backend).create(five).unwrap();
    let six = options(backend).create(six).unwrap();
    // SAFETY: the closures are there, and these are their arguments.
    let returned = unsafe { (five.as_fn()(-1, 0, 0, 0, 0), six.as_fn()(-1, 0, 0, 0, 0, 0)) };
    assert_eq!(returned, (-1, -1));
    let truth = options(backend);
    let truth = truth.create(|_: i64, _: i64, _: i64, _: i64, _: i64, f: i64| f == 1);
    let truth = truth.unwrap();
    // SAFETY: as above.
    let returned = unsafe { [1, 2].map(|f| truth.as_fn()(0, 0, 0, 0, 0, f)) };
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
    let compare = options(backend).create_local(compare).unwrap();
    let mut numbers: Vec<i32> = (0..1000).map(|n| n * 7919 % 1000).collect();
    let (start, compare) = (numbers.as_mut_ptr().cast(), compare.as_fn());
    // SAFETY: so many elements of four bytes, and the closure is there.
    unsafe { libc::qsort(start, numbers.len(), 4, Some(compare)) };
    assert!(numbers.is_sorted() && calls.get() > 1000);

    let (base, sum) = (40, AtomicUsize::new(0));
    let run = |argument: *mut c_void| -> *mut c_void {
        sum.fetch_add(argument.addr(), Ordering::Relaxed);
        without_provenance_mut(base + argument.addr())
    };
    let run = options(backend).create(run).unwrap();
    let (mut thread, mut result) = (0, null_mut());
    let argument = without_provenance_mut(2);
    // SAFETY: the closure outlives the thread, which is joined.
    let errors = unsafe {
        let run = run.as_safe_fn();
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
        let at_exit = options(backend).create(move || {
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
    let closure = options(backend).create(move || {
        let captured = &captured;
        captured.0.load(Ordering::Relaxed) as u64
    });
    let closure = closure.unwrap();
    let moved = thread::scope(|scope| scope.spawn(move || closure).join().unwrap());
    // SAFETY: the closure is there.
    assert_eq!(unsafe { moved.as_fn()() }, 0);
    assert_eq!(dropped(), 0);
    drop(moved);
    assert_eq!(dropped(), 1);
    let captured = Dropped(&count);
    let once = options(backend)
        .create_once(move || drop(captured))
        .unwrap();
    // SAFETY: the closure is there.
    unsafe { once.as_fn()() };
    assert_eq!(dropped(), 2);
    drop(once);
    assert_eq!(dropped(), 2);
    let captured = Dropped(&count);
    drop(options(backend).create_once(move || drop(captured)));
    assert_eq!(dropped(), 3);
}

pub fn a_call_after_the_drop_is_a_trap(backend: Backend) {
    let table = own_table(ContextRegister::Rdi, backend);
    let closure = ClosureOptions::new().in_table(&table).create(|| 1).unwrap();
    let pointer = closure.as_fn();
    // SAFETY: the closure is there.
    assert_eq!(unsafe { pointer() }, 1);
    drop(closure);
    // SAFETY: the table is there, so it is a trap; that is what is tested.
    let late = child(|| unsafe { pointer() });
    assert_eq!(late, End::Signal(libc::SIGTRAP));
}

pub fn a_closure_that_changes_is_called_by_one_at_a_time(backend: Backend) {
    let mut calls = Vec::new();
    let push = options(backend)
        .create_mut(|number: i32| calls.push(number))
        .unwrap();
    for number in 0..3 {
        // SAFETY: the closure is there, and called by nobody else.
        unsafe { push.as_fn()(number) };
    }
    drop(push);
    assert_eq!(calls, [0, 1, 2]);
    // Called by itself.
    let itself = Cell::new(None::<unsafe extern "C-unwind" fn(i32)>);
    struct Shown<'c>(&'c Cell<Option<unsafe extern "C-unwind" fn(i32)>>);
    // SAFETY: only this thread uses it.
    unsafe impl Send for Shown<'_> {}
    let shown = Shown(&itself);
    let again = options(backend).unwinding().create_mut(move |down: i32| {
        let shown = &shown;
        if down > 0 {
            // SAFETY: the closure is there.
            unsafe { shown.0.get().unwrap()(down - 1) };
        }
    });
    let again = again.unwrap();
    itself.set(Some(again.as_fn()));
    // SAFETY: the closure is there.
    let call = |down| catch_unwind(AssertUnwindSafe(|| unsafe { again.as_fn()(down) }));
    silently(|| {
        call(0).unwrap();
        call(1).unwrap_err();
        call(0).unwrap();
    });
}

pub fn a_closure_that_is_used_up_is_called_once(backend: Backend) {
    let text = String::from("once");
    let once = options(backend).unwinding().create_once(move || text.len());
    let once = once.unwrap();
    silently(|| {
        // SAFETY: the closure is there.
        let call = || catch_unwind(AssertUnwindSafe(|| unsafe { once.as_fn()() }));
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
    let through = options(backend).unwinding();
    let few = through.create(|a: i64| resume_unwind(Box::new(a))).unwrap();
    let many = |a: i64, _: i64, _: i64, _: i64, _: i64, _: i64, _: i64| resume_unwind(Box::new(a));
    let many = through.create(many).unwrap();
    // SAFETY: the closures are there, and these are their arguments.
    let calls: [&dyn Fn(); 2] =
        unsafe { [&|| few.as_fn()(42), &|| many.as_fn()(42, 0, 0, 0, 0, 0, 0)] };
    for call in calls {
        let caught = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(caught.downcast_ref(), Some(&42_i64));
    }
    let few = options(backend)
        .create(|a: i64| resume_unwind(Box::new(a)))
        .unwrap();
    let many = |a: i64, _: i64, _: i64, _: i64, _: i64, _: i64| resume_unwind(Box::new(a));
    let many = options(backend).create(many).unwrap();
    // SAFETY: as above.
    let calls: [&dyn Fn(); 2] =
        unsafe { [&|| few.as_fn()(42), &|| many.as_fn()(42, 0, 0, 0, 0, 0)] };
    for call in calls {
        silently(|| {
            let ended = child(|| catch_unwind(AssertUnwindSafe(call)).is_err().into());
            assert_eq!(ended, End::Signal(libc::SIGABRT));
        });
    }
}

fn own_table(context_register: ContextRegister, backend: Backend) -> Arc<Table> {
    let options = TableOptions::new(context_register).fallback(Fallback::Only(backend));
    Arc::new(options.create().unwrap())
}

pub fn a_table_serves_the_types_that_leave_its_carrier_free(backend: Backend) {
    for context_register in ContextRegister::ALL {
        let table = own_table(context_register, backend);
        let options = ClosureOptions::new().in_table(&table);
        let two = options.create(|a: i32, b: f64, c: i32| f64::from(a - c) * b);
        let fits = matches!(
            context_register,
            ContextRegister::Rdx | ContextRegister::R10
        );
        match two {
            // SAFETY: the closure is there.
            Ok(two) => assert!(fits && unsafe { two.as_fn()(44, 0.5, 2) } == 21.0),
            Err(error) => assert!(!fits && matches!(error, Error::Argument(_))),
        }
        let registers = options.create_registers(|_| {});
        assert_eq!(registers.is_ok(), context_register == ContextRegister::R10);
        drop(registers);
    }
    assert_eq!(
        <extern "C" fn(u8, f32, u8, u8, u8, u8)>::CONTEXT_REGISTER,
        ContextRegister::R9
    );
    assert_eq!(
        <extern "C" fn(u8, u8, u8, u8, u8, u8)>::CONTEXT_REGISTER,
        ContextRegister::R10
    );
}

pub fn a_closure_keeps_its_table(backend: Backend) {
    let table = own_table(ContextRegister::Rdi, backend);
    let closure = ClosureOptions::new()
        .in_table(&table)
        .create(|| 42)
        .unwrap();
    drop(table);
    // SAFETY: the closure is there.
    assert_eq!(unsafe { closure.as_fn()() }, 42);
}

pub fn many_closures_are_called_by_many_threads(backend: Backend) {
    const CLOSURES: usize = 10_000;
    let calls = AtomicUsize::new(0);
    let calls = &calls;
    let make = |number: usize| {
        options(backend).create(move |by: usize| {
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
                    assert_eq!(unsafe { closure.as_fn()(by) }, number * by);
                }
            });
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 4 * CLOSURES);
}
