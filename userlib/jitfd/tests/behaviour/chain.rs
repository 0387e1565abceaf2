// SPDX-License-Identifier: MIT OR Apache-2.0

//! The code that unwinders and tools are shown. None of it keeps a frame pointer, so the
//! way to its callers is in the unwind tables only.

use jitfd::Published;
use jitfd::space::{Item, Reloc, RelocKind, Target};
use jitfd::tools::{EhFrame, Frame};
use jitfd::{CodeSpace, Register};

/// A function that calls another one, by way of a third.
pub struct Chain {
    pub space: CodeSpace,
    pub outer: Published,
    pub inner: Published,
}

/// `jitfd_outer` calls `jitfd_inner`, which does `work`, of 5 bytes.
pub fn chain(space: CodeSpace, work: [u8; 5], relocs: &[Reloc]) -> Chain {
    let mut image = Vec::new();
    // sub rsp, 40; work; add rsp, 40; ret
    let mut code = vec![0x48, 0x83, 0xec, 40];
    code.extend(work);
    code.extend([0x48, 0x83, 0xc4, 40, 0xc3]);
    let inner = image.len();
    image.push(Item {
        relocs: relocs.to_vec(),
        ..Item::new("jitfd_inner", code)
    });
    // sub rsp, 24; call inner; add rsp, 24; ret
    let code = vec![
        0x48, 0x83, 0xec, 24, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 24, 0xc3,
    ];
    let call = Reloc::new(5, RelocKind::Call32, Target::Item(inner), -4);
    let outer = image.len();
    image.push(Item {
        relocs: vec![call],
        ..Item::new("jitfd_outer", code)
    });
    let functions = space.link(&image, None).unwrap();
    Chain {
        space,
        outer: functions[outer],
        inner: functions[inner],
    }
}

impl Chain {
    /// The unwind tables of both.
    pub fn eh_frame(&self) -> EhFrame {
        let mut table = EhFrame::default();
        for (function, size) in [(self.inner, 48), (self.outer, 32)] {
            let frame = Frame::leaf()
                .cfa(4, Register::Rsp, size)
                .cfa(13, Register::Rsp, 8);
            table.add(function.address, function.len, &frame).unwrap();
        }
        table
    }

    pub fn call(&self) {
        // SAFETY: it takes and returns nothing; what it calls may unwind.
        unsafe {
            self.space
                .entry::<extern "C-unwind" fn()>(self.outer)
                .unwrap()()
        }
    }
}
