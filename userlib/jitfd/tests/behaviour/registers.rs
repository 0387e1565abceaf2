// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions that see the registers they are called with.

use super::closure::jit;
use jitfd::{Backend, CodePointer};
use jitfd_trampoline::{Closure, Registers};
use std::ffi::c_char;
use std::mem::transmute;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

fn create<'f, P: CodePointer>(
    backend: Backend,
    function: impl Fn(&mut Registers) + Send + Sync + 'f,
) -> Closure<'f, P> {
    // SAFETY: the tests pass such functions.
    unsafe { Closure::with_registers(&jit(backend), function) }.unwrap()
}

/// A function of a type that is known where it is called.
type Any = unsafe extern "C" fn();

type Fourteen =
    unsafe extern "C" fn(i8, f32, u64, f64, i32, f64, f64, u8, i64, f64, i16, f64, f64, u32) -> i64;

pub fn fourteen_mixed_arguments_are_read_in_order(backend: Backend) {
    let closure = create::<Fourteen>(backend, |arguments| {
        // SAFETY: it is called with these.
        unsafe {
            assert_eq!(arguments.argument::<i8>(), -1);
            assert_eq!(arguments.argument::<f32>(), 2.0);
            assert_eq!(arguments.argument::<u64>(), 3);
            assert_eq!(arguments.argument::<f64>(), 4.0);
            assert_eq!(arguments.argument::<i32>(), -5);
            assert_eq!(arguments.argument::<f64>(), 6.0);
            assert_eq!(arguments.argument::<f64>(), 7.0);
            assert_eq!(arguments.argument::<u8>(), 8);
            assert_eq!(arguments.argument::<i64>(), -9);
            assert_eq!(arguments.argument::<f64>(), 10.0);
            assert_eq!(arguments.argument::<i16>(), -11);
            assert_eq!(arguments.argument::<f64>(), 12.0);
            assert_eq!(arguments.argument::<f64>(), 13.0);
            assert_eq!(arguments.argument::<u32>(), 14);
        }
        arguments.set_result(-42_i64);
    });
    // SAFETY: the closure is there.
    let returned = unsafe {
        closure.entry()(
            -1, 2.0, 3, 4.0, -5, 6.0, 7.0, 8, -9, 10.0, -11, 12.0, 13.0, 14,
        )
    };
    assert_eq!(returned, -42);
}

type Twelve =
    unsafe extern "C" fn(f64, f64, f64, f64, f64, f64, f64, f64, f64, f64, u64, u64) -> f64;

pub fn registers_and_stack_are_those_of_the_call(backend: Backend) {
    let closure = create::<Twelve>(backend, |registers| {
        let seen = registers.vectors.map(|halves| f64::from_bits(halves[0]));
        assert_eq!(seen, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(registers.integers[..2], [11, 12]);
        // SAFETY: two more numbers are passed there.
        let stack = unsafe { std::slice::from_raw_parts(registers.stack, 2) };
        assert_eq!(
            stack.iter().map(|&bits| f64::from_bits(bits)).sum::<f64>(),
            19.0
        );
        assert_ne!(registers.chain, 0);
        registers.set_result(-1.0);
    });
    // SAFETY: the closure is there.
    let returned =
        unsafe { closure.entry()(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11, 12) };
    assert_eq!(returned, -1.0);
}

pub fn a_variadic_function_knows_how_many_vector_registers_are_used(backend: Backend) {
    type Variadic = unsafe extern "C" fn(*const c_char, ...) -> i32;
    let closure = create::<Any>(backend, |registers| {
        // SAFETY: the format says what comes.
        let sum: f64 = unsafe {
            let format = std::ffi::CStr::from_ptr(registers.argument::<*const c_char>());
            let next = |letter: &u8| match letter {
                b'd' => registers.argument::<i32>().into(),
                _ => registers.argument::<f64>(),
            };
            format.to_bytes().iter().map(next).sum()
        };
        let vectors = i32::from(registers.vector_count);
        registers.set_result(vectors * 1000 + sum as i32);
    });
    // SAFETY: a function pointer; what is above is such a function.
    let call: Variadic = unsafe { transmute(*closure.entry()) };
    // SAFETY: the closure is there, and the formats tell the arguments.
    unsafe {
        assert_eq!(call(c"".as_ptr()), 0);
        assert_eq!(call(c"ddd".as_ptr(), 1, 2, 3), 6);
        assert_eq!(call(c"dgdg".as_ptr(), 1, 2.0, 3, 4.0), 2010);
        let many = call(
            c"gdgdgdgdgdgdgdgdgd".as_ptr(),
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            1.0,
            1,
            100.0,
            200,
        );
        assert_eq!(many, 8316);
    }
}

#[repr(C)]
#[derive(Debug, PartialEq)]
struct Two<A, B>(A, B);

pub fn two_registers_are_returned(backend: Backend) {
    let closure = create::<Any>(backend, |registers| {
        *registers.returned = [1, 2];
        *registers.returned_vectors = [[3.0_f64.to_bits(), 0], [4.0_f64.to_bits(), 0]];
    });
    // SAFETY: the closure sets all of these, and is there.
    unsafe {
        let integers: unsafe extern "C" fn() -> Two<u64, u64> = transmute(*closure.entry());
        assert_eq!(integers(), Two(1, 2));
        let floats: unsafe extern "C" fn() -> Two<f64, f64> = transmute(*closure.entry());
        assert_eq!(floats(), Two(3.0, 4.0));
        let mixed: unsafe extern "C" fn() -> Two<f64, u64> = transmute(*closure.entry());
        assert_eq!(mixed(), Two(3.0, 1));
    }
}

/// Leaves something other than zero on the stack below its caller.
#[inline(never)]
fn litter() {
    std::hint::black_box([u64::MAX; 1000]);
}

pub fn what_is_not_set_is_zero(backend: Backend) {
    let closure = create::<unsafe extern "C" fn(u64) -> u64>(backend, |_| {});
    litter();
    // SAFETY: zero is a value of both, and the closure is there.
    unsafe {
        assert_eq!(closure.entry()(7), 0);
        let float: unsafe extern "C" fn(f64) -> f64 = transmute(*closure.entry());
        assert_eq!(float(7.0), 0.0);
    }
}

pub fn panics_pass_through_saved_registers(backend: Backend) {
    let throw = |registers: &mut Registers| {
        resume_unwind(Box::new(registers.integers[0]));
    };
    let closure = create::<unsafe extern "C" fn(u64)>(backend, throw).unwinding();
    // SAFETY: the closure takes anything, and is there.
    let call = || unsafe { closure.entry()(42) };
    let caught = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&42_u64));
}
