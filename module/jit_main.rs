// SPDX-License-Identifier: GPL-2.0

//! jit: a sane way for JIT compilers to materialise code.
//!
//! A program hands bytes to the kernel and gets code: it never has a writable
//! view of it, nor flips a mapping between writable and executable. New code
//! appears in a region by the swap of page-table entries, with no TLB
//! shootdown; see Documentation/mm/jit.rst for why that is right, and
//! Documentation/userspace-api/jit.rst for the calls.
//!
//! The groups below stand in the order in which data flows: from userspace to a
//! CPU that executes the code, and on to the page that is freed.

use kernel::prelude::*;

#[path = "plan/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "a crate of its own on the host")]
mod plan;

// What userspace calls, and what it is told.
mod append;
mod code;
mod debugfs;
mod device;
mod error;
mod parameters;
mod uaccess;

// One region, whom it is charged to, and where its code goes.
mod counters;
mod kept;
mod publish_state;
mod region;
mod reserved;
mod user;

// A publication: what was copied in, private pages, the authoritative copy.
mod page;
mod pages;
mod pool;
mod publish;
mod source;
mod staging;
mod supply;

// Every mapping of the region, in every process.
mod file_mapping;
mod holder;
mod mapping;
mod pte;
mod vma;

// A CPU that is behind, and the page that it may still hold.
mod fixup;
mod later;
mod percpu;
mod reclaim;
mod retire;
mod tlb;
mod trap;
mod waiting;
mod wake;
mod watch;

// What the kernel crate does not bind.
mod ffi;

#[cfg(CONFIG_KUNIT)]
mod selftest;

module! {
    type: Jit,
    name: "jit",
    authors: ["The jitfd developers"],
    description: "Executable memory for JIT compilers, without writable code",
    license: "GPL",
}

/// The loaded module. Dropped from the first field to the last: no new files
/// (there are none, or the module would be in use), no more #BP, then whatever
/// still waits is freed.
struct Jit {
    _device: Pin<KBox<device::Device>>,
    _fixup: Fixup,
    _reclaim: reclaim::Reclaim,
    _shrinker: pool::Shrinker,
    _folder: debugfs::Folder,
}

struct Fixup;

impl Drop for Fixup {
    fn drop(&mut self) {
        fixup::unregister();
    }
}

impl kernel::Module for Jit {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        if let Some(reason) = ffi::unsupported() {
            pr_err!("not loaded: {}\n", reason.to_str().unwrap_or("unsupported"));
            return Err(ENODEV);
        }
        parameters::init();
        pte::init();
        user::init();
        retire::init();
        let shrinker = pool::Shrinker::register()?;
        let reclaim = reclaim::Reclaim::start()?;
        fixup::register()?;
        let fixup = Fixup;
        // Last: from here on userspace calls.
        let device = KBox::pin_init(device::Device::register(), GFP_KERNEL)?;
        Ok(Jit {
            _device: device,
            _fixup: fixup,
            _reclaim: reclaim,
            _shrinker: shrinker,
            _folder: debugfs::Folder::create(),
        })
    }
}
