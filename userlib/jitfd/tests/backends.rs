// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every behaviour, over every backend that this system has.

mod behaviour;
#[path = "tools/llvm.rs"]
mod llvm;

use jitfd::{Backend, Fallback, Jit};

/// Whether a backend works here; says why not.
fn has(backend: Backend) -> bool {
    let region = Jit::open(Fallback::Only(backend)).and_then(|jit| jit.region(4096));
    if let Err(error) = &region {
        eprintln!("SKIP: no {backend} on this system: {error}");
    }
    region.is_ok()
}

macro_rules! on_each_backend {
    ($($file:ident::$name:ident),* $(,)?) => {
        on_each_backend!(@ kernel Backend::Kernel, $($file::$name)*);
        on_each_backend!(@ dual Backend::DualMapping, $($file::$name)*);
        on_each_backend!(@ flips Backend::ProtectFlips, $($file::$name)*);
    };
    (@ $module:ident $backend:expr, $($file:ident::$name:ident)*) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $name() {
                if has($backend) {
                    behaviour::$file::$name($backend);
                }
            })*
        }
    };
}

each_behaviour!(on_each_backend);

/// Where these tests run, these two are there: else all of the above would pass
/// without having tested anything.
#[test]
fn this_host_has_the_fallbacks() {
    assert!(has(Backend::DualMapping) && has(Backend::ProtectFlips));
}
