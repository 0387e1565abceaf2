// SPDX-License-Identifier: MIT OR Apache-2.0

//! What real tools see of generated code. The tools run this very program again,
//! with one of the tests that are ignored otherwise.
//!
//! A tool that is not installed, or not allowed to do its work here, is said and
//! skipped. With `JITFD_TOOLS=required` a tool that is not installed is a failure;
//! `tests/tools.sh`, which `make test` calls, installs them. With `JITFD_TOOLS=all`,
//! in a guest, nothing may be skipped.

#[path = "behaviour/chain.rs"]
mod chain;
#[path = "tools/debugger.rs"]
mod debugger;
#[path = "tools/profiler.rs"]
mod profiler;
#[path = "tools/run.rs"]
mod run;
#[path = "tools/stepping.rs"]
mod stepping;
