// SPDX-License-Identifier: GPL-2.0

//! Properties of `module/plan` are in `tests/`, one file for each file there. Here are
//! the programs that the READMEs show: they are built and run as examples of a
//! reference are.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Project;

#[cfg(doctest)]
#[doc = include_str!("../../../userlib/code/README.md")]
pub struct Code;

#[cfg(doctest)]
#[doc = include_str!("../../../userlib/jitfd/README.md")]
pub struct Library;

#[cfg(doctest)]
#[doc = include_str!("../../../userlib/trampoline/README.md")]
pub struct Trampolines;

#[cfg(doctest)]
#[doc = include_str!("../../../userlib/closure-ffi/README.md")]
pub struct ClosureFfi;
