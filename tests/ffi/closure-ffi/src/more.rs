// SPDX-License-Identifier: GPL-2.0
//! What closure-ffi's own tests do not ask: many functions, threads, children, and
//! arguments of all classes.

use crate::common::place;
use crate::slab_alloc::SlabAlloc;
use crate::suite::sys;
use closure_ffi::{BareFn, BareFnMut, BareFnSync, cc};
use jitfd::{Fallback, Jit};
use jitfd_closure_ffi::JitFdAlloc;
use std::fs;
use std::sync::LazyLock;
use std::thread;

/// Their names and functions.
pub const TESTS: &[(&str, fn())] = &[
    ("code_is_in_jitfd", code_is_in_jitfd),
    ("every_class_of_arguments", every_class_of_arguments),
    ("regions_come_and_go", regions_come_and_go),
    ("threads_make_them_at_once", threads_make_them_at_once),
    ("a_child_has_its_own", a_child_has_its_own),
    ("without_memory_there_is_none", without_memory_there_is_none),
];

static JIT: LazyLock<SlabAlloc> = LazyLock::new(|| SlabAlloc::new(JitFdAlloc::REGION_CAPACITY));

fn code_is_in_jitfd() {
    let number = 40;
    let add = BareFn::new_c_in(move |other: u64| number + other, &*JIT);
    let entry: unsafe extern "C" fn(u64) -> u64 = add.bare();
    place::is_in_jitfd(entry as usize).unwrap();
    // SAFETY: `add` lives.
    assert_eq!(unsafe { entry(2) }, 42);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Large([u64; 5]);

#[repr(C)]
#[derive(Clone, Copy)]
struct Mixed(f64, i32);

fn every_class_of_arguments() {
    let more = Box::new(0.5);
    let sum = BareFn::with_cc_in(
        cc::C,
        |a: i8, b: f32, c: Mixed, d: Large, e: u64, f: u64, g: u64, h: u64, i: u64, j: f64| {
            let integers =
                u64::from(a.unsigned_abs()) + d.0.iter().sum::<u64>() + e + f + g + h + i;
            let reals = f64::from(b) + c.0 + f64::from(c.1) + j + *more;
            Mixed(integers as f64 + reals, 7)
        },
        &*JIT,
    );
    let entry = sum.bare();
    // SAFETY: `sum` lives.
    let Mixed(total, seven) =
        unsafe { entry(-1, 2.0, Mixed(3.0, 4), Large([5; 5]), 6, 7, 8, 9, 10, 11.25) };
    assert_eq!((total, seven), (1. + 25. + 40. + 2. + 7. + 11.25 + 0.5, 7));
}

/// How many mappings of `/dev/jit` the process has.
fn regions() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.ends_with("/dev/jit"))
        .count()
}

fn regions_come_and_go() {
    let jit = SlabAlloc::new(4096);
    for number in 0..2000_u64 {
        let function = BareFn::new_c_in(move || number, &jit);
        // SAFETY: `function` lives.
        assert_eq!(unsafe { (function.bare())() }, number);
    }
    assert_eq!(regions(), 1);
    let kept: Vec<_> = (0..200_u64)
        .map(|number| BareFn::new_c_in(move || number, &jit))
        .collect();
    assert!(regions() > 2);
    for (function, number) in kept.iter().zip(0..) {
        // SAFETY: they live.
        assert_eq!(unsafe { (function.bare())() }, number);
    }
    drop(kept);
    assert_eq!(regions(), 1);
    drop(jit);
    assert_eq!(regions(), 0);
}

fn threads_make_them_at_once() {
    let work = |thread: u64| {
        for turn in 0..50 {
            let mut calls = 0;
            let function = BareFnMut::new_c_in(
                |number: u64| {
                    calls += 1;
                    thread * 1000 + turn + number
                },
                &*JIT,
            );
            let entry = function.bare();
            // SAFETY: `function` lives, and is called by this thread only.
            let sum = unsafe { entry(0) + entry(1) };
            assert_eq!(sum, 2 * (thread * 1000 + turn) + 1);
            drop(function);
            assert_eq!(calls, 2);
        }
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || work(thread));
        }
    });
}

fn a_child_has_its_own() {
    let shared = 5;
    let before = BareFnSync::new_c_in(move |number: i32| number + shared, &*JIT);
    let child = sys::fork().unwrap();
    if child == 0 {
        let mine = BareFn::new_c_in(move |number: i32| number * shared, &*JIT);
        // SAFETY: both live.
        let (sum, product) = unsafe { ((before.bare())(6), (mine.bare())(6)) };
        sys::exit(i32::from((sum, product) != (11, 30)));
    }
    assert_eq!(sys::wait(child).unwrap(), 0);
    // SAFETY: it lives.
    assert_eq!(unsafe { (before.bare())(1) }, 6);
}

fn without_memory_there_is_none() {
    let jit = Jit::open(Fallback::Never).unwrap();
    let number = 1;
    let none = JitFdAlloc::new(&jit, 0);
    assert!(BareFn::try_with_cc_in(cc::C, move || number, &none).is_err());
    let some = JitFdAlloc::for_static(Fallback::Never);
    assert!(BareFn::try_with_cc_in(cc::C, move || number, &some).is_ok());
}
