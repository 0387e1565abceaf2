// SPDX-License-Identifier: MIT OR Apache-2.0

//! The backend of `/dev/jit`.

pub(super) mod ioctl;
