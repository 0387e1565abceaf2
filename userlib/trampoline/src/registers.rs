// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a function was called with, whatever its type: all registers that the System
//! V ABI passes arguments in, where the others are on the stack, and what it returns.

use crate::argument::{Argument, Return, Returned};
use std::marker::PhantomData;

/// The registers that a function was called with, and those that it returns.
///
/// A vector register is here with its lower 128 bits, as two halves, the lower one
/// first. (Of `__m256` and larger types the rest is lost; so is a `long double`
/// result.)
///
/// ```
/// # use jitfd::Fallback;
/// # use jitfd_trampoline::ClosureOptions;
/// use jitfd_trampoline::Registers;
///
/// # fn main() -> Result<(), jitfd::Error> {
/// /// What came in a register or on the stack, and something for every result.
/// fn look(registers: &mut Registers) {
///     let [first, ..] = *registers.integers();
///     let [[low, _high], ..] = *registers.vectors();
///     println!("{first} {} of {}", f64::from_bits(low), registers.vector_count());
///     println!("{:?} {:x}", registers.scratch(), registers.chain());
///     // SAFETY: the seventh integer argument is there.
///     let seventh = unsafe { *registers.stack() };
///     registers.set_vectors([[0; 2]; 2]);
///     registers.set_f32(0.5);
///     registers.set_f64(1.5);
///     registers.set_integers([first, seventh]);
///     registers.set_integer(first + seventh);
///     registers.set_result(true); // or as the type of a value says
///     registers.set_result(first + seventh);
/// }
///
/// type Seven = extern "C" fn(u64, u64, u64, u64, u64, u64, u64) -> u64;
/// # let options = ClosureOptions::new().fallback(Fallback::Any);
/// let closure = options.create_registers(look)?;
/// // SAFETY: `look` reads and returns what such a function does; `closure` is there.
/// let function = unsafe { closure.function::<Seven>()? };
/// assert_eq!(function(40, 0, 0, 0, 0, 0, 2), 42);
/// # Ok(())
/// # }
/// ```
///
/// The registers of two calls cannot be exchanged, even by a closure that gets
/// hold of both: reading arguments relies on which call they are of.
///
/// ```compile_fail
/// # use jitfd_trampoline::Registers;
/// fn exchange(inner: &mut Registers, outer: &mut Registers) {
///     std::mem::swap(inner, outer);
/// }
/// ```
pub struct Registers<'call> {
    call: &'call mut Call,
    /// Every call has a type of its own, as it has a lifetime.
    of: PhantomData<fn(&'call ()) -> &'call ()>,
}

/// # Invariants
/// `stack` is where the caller put what it passes on the stack, and nobody else
/// accesses that meanwhile.
#[repr(C, align(16))]
pub(crate) struct Call {
    integers: [u64; 6],
    rax: u64,
    r10: u64,
    r11: u64,
    stack: *const u64,
    returned: [u64; 2],
    vectors: [[u64; 2]; 8],
    returned_vectors: [[u64; 2]; 2],
}

/// Where the body of `marshal.rs` puts them.
pub(crate) mod layout {
    use super::Call;
    use std::mem::offset_of;

    pub const SIZE: usize = size_of::<Call>();
    pub const INTEGERS: usize = offset_of!(Call, integers);
    pub const RAX: usize = offset_of!(Call, rax);
    pub const R10: usize = offset_of!(Call, r10);
    pub const R11: usize = offset_of!(Call, r11);
    pub const STACK: usize = offset_of!(Call, stack);
    pub const RETURNED: usize = offset_of!(Call, returned);
    pub const VECTORS: usize = offset_of!(Call, vectors);
    pub const RETURNED_VECTORS: usize = offset_of!(Call, returned_vectors);
}

impl<'call> Registers<'call> {
    /// What a closure gets. Its type must hold for a call with every `'call`.
    pub(crate) const fn of(call: &'call mut Call) -> Self {
        let of = PhantomData;
        Self { call, of }
    }

    /// `rdi`, `rsi`, `rdx`, `rcx`, `r8` and `r9`: the first integers and pointers.
    #[must_use]
    pub const fn integers(&self) -> &[u64; 6] {
        &self.call.integers
    }

    /// `xmm0` to `xmm7`: the first floating point numbers.
    #[must_use]
    pub const fn vectors(&self) -> &[[u64; 2]; 8] {
        &self.call.vectors
    }

    /// `al`: a caller of a variadic function says here how many vector registers it
    /// uses at most. Other callers leave anything in it.
    #[must_use]
    pub const fn vector_count(&self) -> u8 {
        self.call.rax.to_le_bytes()[0]
    }

    /// `rax` and `r11`, which carry no argument.
    #[must_use]
    pub const fn scratch(&self) -> [u64; 2] {
        [self.call.rax, self.call.r11]
    }

    /// `r10`, which carried the context here.
    #[must_use]
    pub const fn chain(&self) -> u64 {
        self.call.r10
    }

    /// The address of the first argument that is passed on the stack, if any is.
    /// Each has 8 bytes or a multiple of that.
    #[must_use]
    pub const fn stack(&self) -> *const u64 {
        self.call.stack
    }

    /// The arguments one after the other. See the example of [`Arguments`].
    #[must_use]
    pub const fn arguments(&self) -> Arguments<'_> {
        Arguments {
            integers: &self.call.integers,
            vectors: &self.call.vectors,
            stack: self.call.stack,
            of: PhantomData,
        }
    }

    /// Returns an integer or a pointer, in `rax`.
    pub const fn set_integer(&mut self, value: u64) {
        self.call.returned[0] = value;
    }

    /// Returns two integers or a struct of them, in `rax` and `rdx`.
    pub const fn set_integers(&mut self, values: [u64; 2]) {
        self.call.returned = values;
    }

    /// Returns an `f32`, in `xmm0`.
    pub const fn set_f32(&mut self, value: f32) {
        self.call.returned_vectors[0] = [value.to_bits() as u64, 0];
    }

    /// Returns an `f64`, in `xmm0`.
    pub const fn set_f64(&mut self, value: f64) {
        self.call.returned_vectors[0] = [value.to_bits(), 0];
    }

    /// Returns up to two vectors, in `xmm0` and `xmm1`.
    pub const fn set_vectors(&mut self, values: [[u64; 2]; 2]) {
        self.call.returned_vectors = values;
    }

    /// Returns a value as a function of that result does.
    pub fn set_result<R: Return>(&mut self, value: R) {
        match value.returned() {
            Returned::Nothing => {}
            Returned::Integer(value) => self.set_integer(value),
            Returned::F32(value) => self.set_f32(value),
            Returned::F64(value) => self.set_f64(value),
        }
    }
}

impl std::fmt::Debug for Registers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registers")
            .field("integers", &self.call.integers)
            .field("vectors", &self.call.vectors)
            .field("vector_count", &self.vector_count())
            .field("stack", &self.call.stack)
            .finish_non_exhaustive()
    }
}

/// Reads arguments in order, as the System V ABI passes them.
///
/// ```
/// # use jitfd_trampoline::Registers;
/// /// What `printf("%d %g", ...)` does with its arguments.
/// fn shown(registers: &Registers) -> String {
///     let mut arguments = registers.arguments();
///     // SAFETY: the caller has passed these, in this order.
///     let (_format, number, fraction) = unsafe {
///         (
///             arguments.next::<*const i8>(),
///             arguments.next::<i32>(),
///             arguments.next::<f64>(),
///         )
///     };
///     format!("{number} {fraction}")
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Arguments<'r> {
    integers: &'r [u64],
    vectors: &'r [[u64; 2]],
    stack: *const u64,
    of: PhantomData<&'r Call>,
}

impl Arguments<'_> {
    /// The next argument.
    ///
    /// # Safety
    /// The function was called with an argument of this type here, after those that
    /// were read before.
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn next<A: Argument>(&mut self) -> A {
        let from_register = if A::INTEGER {
            first(&mut self.integers)
        } else {
            first(&mut self.vectors).map(|halves| halves[0])
        };
        let bits = from_register.unwrap_or_else(|| {
            let at = self.stack;
            self.stack = at.wrapping_add(1);
            // SAFETY: as promised by the caller, it is the next one on the stack.
            unsafe { at.read() }
        });
        // SAFETY: as promised by the caller.
        unsafe { A::from_bits(bits) }
    }
}

/// Takes the first element off a slice.
fn first<T: Copy>(from: &mut &[T]) -> Option<T> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}
