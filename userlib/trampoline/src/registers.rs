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
/// Arguments are read in order by [`argument`](Self::argument), or where they came in.
///
/// ```
/// # use jitfd::{Fallback, Jit};
/// use jitfd_trampoline::{Closure, Registers};
///
/// # fn main() -> Result<(), jitfd::Error> {
/// /// What came in a register or on the stack, and something for every result.
/// fn look(registers: &mut Registers) {
///     let [first, ..] = *registers.integers;
///     let [[low, _high], ..] = *registers.vectors;
///     println!("{first} {} of {}", f64::from_bits(low), registers.vector_count);
///     // SAFETY: the seventh integer argument is there.
///     let seventh = unsafe { *registers.stack };
///     *registers.returned_vectors = [[1.5_f64.to_bits(), 0], [0; 2]];
///     *registers.returned = [first + seventh, 0];
///     registers.set_result(1.5); // the same, as the type of a value says
///     registers.set_result(first + seventh);
/// }
///
/// type Seven = extern "C" fn(u64, u64, u64, u64, u64, u64, u64) -> u64;
/// let jit = Jit::open(Fallback::Any)?;
/// // SAFETY: `look` reads and returns what such a function does.
/// let closure = unsafe { Closure::<Seven>::with_registers(&jit, look)? };
/// // SAFETY: the arguments are those that `look` reads.
/// let function = unsafe { closure.entry() };
/// assert_eq!(function(40, 0, 0, 0, 0, 0, 2), 42);
/// # Ok(())
/// # }
/// ```
///
/// The registers of two calls cannot be exchanged, even by a closure that gets hold of
/// both: reading arguments relies on which call they are of.
#[non_exhaustive]
pub struct Registers<'call> {
    /// `rdi`, `rsi`, `rdx`, `rcx`, `r8` and `r9`: the first integers and pointers.
    pub integers: &'call [u64; 6],
    /// `xmm0` to `xmm7`: the first floating point numbers.
    pub vectors: &'call [[u64; 2]; 8],
    /// `al`: a caller of a variadic function says here how many vector registers it
    /// uses at most. Other callers leave anything in it.
    pub vector_count: u8,
    /// `rax` and `r11`, which carry no argument.
    pub scratch: [u64; 2],
    /// `r10`, which carried the context here.
    pub chain: u64,
    /// The address of the first argument that is passed on the stack, if any is. Each
    /// has 8 bytes or a multiple of that.
    pub stack: *const u64,
    /// What is returned in `rax` and `rdx`: an integer, a pointer, or a struct of two.
    /// At first 0.
    pub returned: &'call mut [u64; 2],
    /// What is returned in `xmm0` and `xmm1`. At first 0.
    pub returned_vectors: &'call mut [[u64; 2]; 2],
    next: Next<'call>,
    /// Every call has a type of its own, as it has a lifetime.
    of: PhantomData<fn(&'call ()) -> &'call ()>,
}

/// The arguments that were not read yet.
struct Next<'call> {
    integers: &'call [u64],
    vectors: &'call [[u64; 2]],
    stack: *const u64,
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
        let next = Next {
            integers: &call.integers,
            vectors: &call.vectors,
            stack: call.stack,
        };
        Self {
            integers: &call.integers,
            vectors: &call.vectors,
            vector_count: call.rax.to_le_bytes()[0],
            scratch: [call.rax, call.r11],
            chain: call.r10,
            stack: call.stack,
            returned: &mut call.returned,
            returned_vectors: &mut call.returned_vectors,
            next,
            of: PhantomData,
        }
    }

    /// The next argument, as the System V ABI passes them. Those before it have been
    /// read by this, each as its type.
    ///
    /// ```
    /// # use jitfd_trampoline::Registers;
    /// /// What `printf("%d %g", ...)` does with its arguments.
    /// fn shown(registers: &mut Registers) -> String {
    ///     // SAFETY: the caller has passed these, in this order.
    ///     let (_format, number, fraction) = unsafe {
    ///         (
    ///             registers.argument::<*const i8>(),
    ///             registers.argument::<i32>(),
    ///             registers.argument::<f64>(),
    ///         )
    ///     };
    ///     format!("{number} {fraction}")
    /// }
    /// ```
    ///
    /// # Safety
    /// The function was called with an argument of this type here, after those that
    /// were read before.
    #[expect(unsafe_code, reason = "the caller vouches for the function's type")]
    pub unsafe fn argument<A: Argument>(&mut self) -> A {
        let next = &mut self.next;
        let from_register = if A::INTEGER {
            first(&mut next.integers)
        } else {
            first(&mut next.vectors).map(|halves| halves[0])
        };
        let bits = from_register.unwrap_or_else(|| {
            let at = next.stack;
            next.stack = at.wrapping_add(1);
            // SAFETY: as promised by the caller, it is the next one on the stack.
            unsafe { at.read() }
        });
        // SAFETY: as promised by the caller.
        unsafe { A::from_bits(bits) }
    }

    /// Returns a value as a function of that result does.
    pub fn set_result<R: Return>(&mut self, value: R) {
        match value.returned() {
            Returned::Nothing => {}
            Returned::Integer(value) => self.returned[0] = value,
            Returned::F32(value) => self.returned_vectors[0] = [value.to_bits().into(), 0],
            Returned::F64(value) => self.returned_vectors[0] = [value.to_bits(), 0],
        }
    }
}

impl std::fmt::Debug for Registers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registers")
            .field("integers", self.integers)
            .field("vectors", self.vectors)
            .field("vector_count", &self.vector_count)
            .field("stack", &self.stack)
            .finish_non_exhaustive()
    }
}

/// Takes the first element off a slice.
fn first<T: Copy>(from: &mut &[T]) -> Option<T> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}
