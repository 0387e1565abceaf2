// SPDX-License-Identifier: GPL-2.0

//! Holds nothing itself: the properties are in `tests/`, one file for each file
//! of `module/plan`.
