// SPDX-License-Identifier: MIT OR Apache-2.0

//! Executable code for JIT compilers, from a kernel that never maps it
//! writable.
//!
//! With this crate a compiler has no writable view of its code and never flips
//! a page between writable and executable. It hands finished bytes to
//! `/dev/jit`; the kernel builds private pages from them and puts those into
//! the address space, read-only and executable. Already running code is not
//! disturbed: publishing more of it needs no TLB shootdown.
//!
//! # From bytes to code
//!
//! 1. The compiler emits bytes into ordinary memory.
//! 2. [`validate`] copies them and checks the copy: every byte belongs to a
//!    complete instruction or to a declared data range, and every direct branch
//!    inside the chunk lands on an instruction. [`Rules`] tightens that. The
//!    result is a [`Chunk`].
//! 3. A `Chunk` is the only thing that can be published. [`Jit::open`] chooses what
//!    makes code executable here; [`Jit::code`] publishes a chunk as finished code,
//!    [`Jit::region`] and [`Jit::space`] make what chunks are published into one by
//!    one.
//! 4. The kernel's copy is executed. The caller vouches for the signature of
//!    the function, so getting a function pointer is `unsafe`.
//!
//! ```
//! use jitfd::{Fallback, Jit, Rules, validate};
//!
//! # fn main() -> Result<(), jitfd::Error> {
//! // mov eax, 42; ret
//! let bytes = [0xb8, 42, 0, 0, 0, 0xc3];
//! let chunk = validate(&bytes, &Rules::new())?;
//! let code = Jit::open(Fallback::Any)?.code(&chunk)?;
//! // SAFETY: the bytes above are a function of this signature.
//! let answer = unsafe { code.entry::<extern "C" fn() -> i32>(0)? };
//! assert_eq!(answer(), 42);
//! # Ok(())
//! # }
//! ```
//!
//! # Which call for what
//!
//! | need | call |
//! |---|---|
//! | one finished image (ahead-of-time code, a trampoline) | [`Jit::code`], [`jit_create_code`] |
//! | the same, at pages the engine already has | [`Jit::code_at`] |
//! | names, lookup by address, linking, growth | [`Jit::space`]: [`CodeSpace`] |
//! | a region that grows | [`Region::publish`], [`Region::publish_all`] |
//! | the address before the code is emitted | [`Region::reserve`] and [`Region::fill`], or [`Region::publish_with`] |
//! | a process that may run code but not add any | [`Region::split`] |
//! | a forked child that goes on compiling on its own | [`Region::adopt`] |
//! | a function pointer that carries a pointer | the crate `jitfd-trampoline` |
//! | to know what a system allows, and why not | [`probe`](fn@probe) |
//! | to work where there is no `/dev/jit`, too | [`Jit::open`] with a [`Fallback`] |
//!
//! # Where there is no `/dev/jit`
//!
//! Without asking for it, a program gets `/dev/jit` or an error. One that accepts
//! a [`Fallback`] goes on by dual mapping of a memory file, or else by mprotect
//! flips, through the same types and with the same results; [`Backend`] compares
//! the three. The fallback is reported once per process, on standard error or to
//! a hook ([`set_fallback_hook`]), and [`Jit::backend`] tells which it is. What
//! only the kernel can do is refused with [`Error::Unsupported`].
//!
//! ```
//! use jitfd::{Backend, Fallback, Jit, Rules, validate};
//!
//! # fn main() -> Result<(), jitfd::Error> {
//! let jit = Jit::open(Fallback::Any)?;
//! if jit.backend() != Backend::Kernel {
//!     eprintln!("the code of this program could be written to");
//! }
//! // mov eax, 42; ret
//! let chunk = validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new())?;
//! let region = jit.region(1 << 20)?;
//! let published = region.publish(&chunk)?;
//! // SAFETY: the chunk is such a function.
//! let answer = unsafe { region.entry::<extern "C" fn() -> i32>(published)? };
//! assert_eq!(answer(), 42);
//! # Ok(())
//! # }
//! ```
//!
//! What a fallback gives up: a program that is taken over can write to code, by
//! the second view or by `mprotect`. With dual mapping, a branch to the *middle*
//! of a chunk that is executed before the publishing call has returned can meet
//! half an instruction; the start of a chunk traps or is whole, as everywhere.
//! Each publication there makes every CPU that runs the process serialize
//! (`membarrier`), which costs interrupts. [`probe`](fn@probe), and the command
//! `jitctl probe`, say which backends a system allows and what refuses the rest.
//!
//! # Safety
//!
//! Nothing here lets safe Rust execute anything. What validation promises, and
//! what it does not, is said at [`validate`]. The kernel is safe whatever is
//! submitted; validation protects a program from its own compiler's mistakes.
//!
//! # Units
//!
//! Offsets, lengths, alignments and capacities are in bytes. An offset counts
//! from the start of the chunk or of the region, as its text says. An address
//! is an absolute virtual address in the calling process.
//!
//! Only x86-64 Linux is supported.

#![deny(missing_docs, unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#![deny(unsafe_op_in_unsafe_fn, rustdoc::broken_intra_doc_links)]
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("jitfd supports Linux on x86-64 only");

// In the order in which code passes through them, after `jitfd_code`.
pub mod space;
pub mod tools;

mod region;

mod backend;

mod os;

mod probe;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the file is fixed, and shared with the module"
)]
mod abi;
#[cfg(test)]
mod abi_pinned;
mod backend_name;
mod entry;
mod error;
mod jit;
mod register;

use jitfd_code::internal::num;

/// What the other crates of this project use of this one. Not for others: it
/// changes without notice.
#[doc(hidden)]
pub mod internal {
    pub use crate::abi::FILL;
    pub use crate::error::{Call, NO_ENTRY};
    pub use crate::os::fork::PerProcess;
    pub use crate::os::fork_lock::{First, FirstUse, ForkLock};
    pub use crate::os::sys::Span;
    pub use crate::region::fixed::{fill_at, next_offset, publish_all_at, publish_at, slot};
    pub use crate::region::shared_code::SharedCode;
    pub use jitfd_code::internal::check_len;
}

pub use backend::choice::Fallback;
pub use backend_name::Backend;
pub use entry::{CodePointer, Entry};
pub use error::{Error, Kind};
pub use jit::{Jit, set_fallback_hook};
pub use jitfd_code::{
    Align, Chunk, Class, CodeError, LineWriter, Reason, Rules, validate, validate_owned,
    validate_shared,
};
pub use os::window::Window;
pub use probe::{Finding, Probe, Trial, probe};
pub use region::Region;
pub use region::handle::{AppendHandle, MapHandle};
pub use region::image::jit_create_code;
pub use region::mapping::Mapping;
pub use region::options::RegionOptions;
pub use region::slot::{Published, Slot};
pub use region::stats::Stats;
pub use register::Register;
pub use space::CodeSpace;
