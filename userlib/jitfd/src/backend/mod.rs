// SPDX-License-Identifier: MIT OR Apache-2.0

//! What makes code executable: `/dev/jit`, or the process itself.
//!
//! | file | has |
//! |---|---|
//! | `choice.rs` | which backends a program accepts, and which is taken |
//! | `dispatch.rs` | what a handle can be asked to do, and who does it |
//! | `segment.rs` | bytes, and where they go |
//! | `kernel/` | the ioctls |
//! | `process/` | regions in the process's own memory |

pub(crate) mod choice;
pub(crate) mod dispatch;
mod kernel;
pub(crate) mod process;
pub(crate) mod segment;
