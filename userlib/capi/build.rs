// SPDX-License-Identifier: MIT OR Apache-2.0

//! Gives the shared library its name for the run-time linker. The number is that
//! of the binary interface: it changes when old programs would break.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libjitfd.so.0");
}
