// SPDX-License-Identifier: MIT OR Apache-2.0

//! Return trampolines: all registers, seen and changed.

use super::closure::jit;
use super::process::{End, child};
use jitfd::{Backend, Error, Register};
use jitfd_trampoline::{Closure, SaveAllTrampoline, SavedRegisters, Table, TableOptions};
use std::arch::asm;
use std::collections::HashSet;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

fn create<'f>(
    backend: Backend,
    handler: impl Fn(&mut SavedRegisters) + Send + Sync + 'f,
) -> SaveAllTrampoline<'f> {
    SaveAllTrampoline::new(&jit(backend), handler).unwrap()
}

/// What a CPU has that a function could change, and a function to call.
#[repr(C, align(64))]
#[derive(Clone, Debug, PartialEq)]
struct Machine {
    vectors: [[u64; 2]; 16],
    /// In the order of their numbers, without rsp.
    general: [u64; 15],
    flags: u64,
    target: usize,
}

/// The flags that arithmetic sets, and the direction flag.
const FLAGS: u64 = 0xcd5;

impl Machine {
    /// Something different in every register.
    fn new(target: usize) -> Self {
        let value = |number: usize| 0x0101_0101_0101_0101 * (number as u64 + 1);
        let pair = |number: usize| [value(2 * number), value(2 * number + 1)];
        Self {
            vectors: std::array::from_fn(pair),
            general: std::array::from_fn(|number| value(number + 100)),
            flags: FLAGS | 0x202,
            target,
        }
    }

    fn place(register: Register) -> usize {
        assert_ne!(register, Register::Rsp);
        let number = register as usize;
        number - usize::from(number > Register::Rsp as usize)
    }

    fn general(&mut self, register: Register) -> &mut u64 {
        &mut self.general[Self::place(register)]
    }

    /// What is in the registers after the target was called with these.
    fn call(&self) -> Self {
        let mut after = self.clone();
        // SAFETY: what Rust does not let us name is pushed, the rest is named; the
        // targets of the tests return.
        unsafe {
            asm!(
                "push rbx",
                "push rbp",
                "push rdi",
                "push qword ptr [rdi + 384]",
                "push qword ptr [rdi + 376]",
                "popfq",
                "movaps xmm0, [rdi]",
                "movaps xmm1, [rdi + 16]",
                "movaps xmm2, [rdi + 32]",
                "movaps xmm3, [rdi + 48]",
                "movaps xmm4, [rdi + 64]",
                "movaps xmm5, [rdi + 80]",
                "movaps xmm6, [rdi + 96]",
                "movaps xmm7, [rdi + 112]",
                "movaps xmm8, [rdi + 128]",
                "movaps xmm9, [rdi + 144]",
                "movaps xmm10, [rdi + 160]",
                "movaps xmm11, [rdi + 176]",
                "movaps xmm12, [rdi + 192]",
                "movaps xmm13, [rdi + 208]",
                "movaps xmm14, [rdi + 224]",
                "movaps xmm15, [rdi + 240]",
                "mov rax, [rdi + 256]",
                "mov rcx, [rdi + 264]",
                "mov rdx, [rdi + 272]",
                "mov rbx, [rdi + 280]",
                "mov rbp, [rdi + 288]",
                "mov rsi, [rdi + 296]",
                "mov r8, [rdi + 312]",
                "mov r9, [rdi + 320]",
                "mov r10, [rdi + 328]",
                "mov r11, [rdi + 336]",
                "mov r12, [rdi + 344]",
                "mov r13, [rdi + 352]",
                "mov r14, [rdi + 360]",
                "mov r15, [rdi + 368]",
                "mov rdi, [rdi + 304]",
                "call [rsp]",
                "xchg rdi, [rsp + 8]",
                "mov [rdi + 256], rax",
                "mov [rdi + 264], rcx",
                "mov [rdi + 272], rdx",
                "mov [rdi + 280], rbx",
                "mov [rdi + 288], rbp",
                "mov [rdi + 296], rsi",
                "mov [rdi + 312], r8",
                "mov [rdi + 320], r9",
                "mov [rdi + 328], r10",
                "mov [rdi + 336], r11",
                "mov [rdi + 344], r12",
                "mov [rdi + 352], r13",
                "mov [rdi + 360], r14",
                "mov [rdi + 368], r15",
                "pushfq",
                "pop qword ptr [rdi + 376]",
                "cld",
                "pop rax",
                "pop rax",
                "mov [rdi + 304], rax",
                "movaps [rdi], xmm0",
                "movaps [rdi + 16], xmm1",
                "movaps [rdi + 32], xmm2",
                "movaps [rdi + 48], xmm3",
                "movaps [rdi + 64], xmm4",
                "movaps [rdi + 80], xmm5",
                "movaps [rdi + 96], xmm6",
                "movaps [rdi + 112], xmm7",
                "movaps [rdi + 128], xmm8",
                "movaps [rdi + 144], xmm9",
                "movaps [rdi + 160], xmm10",
                "movaps [rdi + 176], xmm11",
                "movaps [rdi + 192], xmm12",
                "movaps [rdi + 208], xmm13",
                "movaps [rdi + 224], xmm14",
                "movaps [rdi + 240], xmm15",
                "pop rbp",
                "pop rbx",
                inout("rdi") &raw mut after => _,
                out("r12") _,
                out("r13") _,
                out("r14") _,
                out("r15") _,
                clobber_abi("C"),
            );
        }
        after.flags &= FLAGS;
        after
    }
}

/// Changes every register that a function may change, and says what it likes.
fn disturb() {
    let text: String = (0..100)
        .map(|number| format!("{}", f64::from(number) / 7.0))
        .collect();
    assert!(text.len() > 100);
    // SAFETY: all that is changed is named.
    unsafe {
        asm!(
            "pcmpeqd xmm8, xmm8", "movaps xmm9, xmm8", "movaps xmm15, xmm8",
            "xor eax, eax", "not rax", "mov r10, rax", "mov r11, rax",
            out("r10") _, out("r11") _, out("rax") _,
            clobber_abi("C"),
        );
    }
}

pub fn all_registers_are_seen_and_come_back(backend: Backend) {
    let seen = Mutex::new(None);
    let trampoline = create(backend, |saved| {
        disturb();
        let general = Register::ALL.map(|register| saved.get(register));
        let vectors: Vec<_> = (0..16).map(|number| saved.vector(number)).collect();
        let top = usize::try_from(saved.get(Register::Rsp)).unwrap();
        // SAFETY: the stack of the caller, which is there.
        let top = unsafe { *std::ptr::with_exposed_provenance::<usize>(top) };
        assert_eq!(top, saved.return_address.addr());
        let itself = (saved.trampoline.addr(), top);
        *seen.lock().unwrap() = Some((general, vectors, saved.flags(), itself));
    });
    let mut before = Machine::new(trampoline.address());
    let after = before.call();
    let (general, vectors, flags, itself) = seen.lock().unwrap().take().unwrap();
    assert_eq!(vectors, before.vectors);
    assert_eq!(flags & FLAGS, FLAGS);
    for register in Register::ALL {
        if register != Register::Rsp {
            let expected = *before.general(register);
            assert_eq!(general[register as usize], expected, "{register:?}");
        }
    }
    let (trampoline, return_address) = itself;
    assert_eq!(trampoline, before.target);
    // SAFETY: it is inside the code of `call`.
    let calls: [u8; 3] = unsafe { *std::ptr::with_exposed_provenance(return_address - 3) };
    assert_eq!(calls, [0xff, 0x14, 0x24], "call [rsp]");
    before.flags = FLAGS;
    assert_eq!(after, before);
}

pub fn every_register_can_be_changed(backend: Backend) {
    let trampoline = create(backend, |saved| {
        // SAFETY: the caller expects anything.
        unsafe {
            for register in Register::ALL {
                if register != Register::Rsp {
                    saved.set(register, !saved.get(register));
                }
            }
            for number in 0..16 {
                saved.set_vector(number, saved.vector(number).map(|half| !half));
            }
            saved.set_flags(saved.flags() & !FLAGS);
        }
    });
    let mut before = Machine::new(trampoline.address());
    let after = before.call();
    before.general = before.general.map(|value| !value);
    before.vectors = before.vectors.map(|halves| halves.map(|half| !half));
    before.flags = 0;
    assert_eq!(after, before);
    // SAFETY: never called; that rsp is refused is what is tested.
    let refused = create(backend, |saved| unsafe { saved.set(Register::Rsp, 0) });
    let refused = refused.unwinding();
    // SAFETY: the trampoline is there, and returns nothing.
    let call = unsafe { refused.entry::<extern "C-unwind" fn()>() };
    super::closure::silently(|| {
        catch_unwind(AssertUnwindSafe(|| call())).unwrap_err();
    });
}

pub fn wide_vectors_come_back(backend: Backend) {
    if !is_x86_feature_detected!("avx") {
        return;
    }
    let trampoline = create(backend, |_| {
        // SAFETY: the CPU has it, and what is changed is named.
        unsafe { asm!("vzeroall", clobber_abi("C")) };
    });
    let (mut bytes, target) = ([0_u8; 64], trampoline.address());
    bytes
        .iter_mut()
        .zip(1..)
        .for_each(|(byte, value)| *byte = value);
    let before = bytes;
    // SAFETY: the CPU has it; the trampoline returns, and what is changed is named.
    unsafe {
        asm!(
            "vmovdqu ymm3, [r12]",
            "vmovdqu ymm12, [r12 + 32]",
            "call r13",
            "vmovdqu [r12], ymm12",
            "vmovdqu [r12 + 32], ymm3",
            "vzeroupper",
            in("r12") &raw mut bytes,
            in("r13") target,
            clobber_abi("C"),
        );
    }
    assert_eq!(bytes[..32], before[32..]);
    assert_eq!(bytes[32..], before[..32]);
}

extern "C" fn weigh(a: u64, b: f64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> f64 {
    assert_eq!((a, b, c, d, e, f, g, h), (100, 2.0, 3, 4, 5, 6, 7, 8));
    a as f64 * b
}

pub fn a_trampoline_jumps_elsewhere_with_changed_registers(backend: Backend) {
    // SAFETY: it is called as its target is.
    let trampoline = create(backend, |saved| unsafe {
        disturb();
        saved.set(Register::Rdi, 100 * saved.get(Register::Rdi));
        saved.jump(std::ptr::null());
        saved.jump(weigh as *const c_void);
    });
    type Weigh = unsafe extern "C" fn(u64, f64, u64, u64, u64, u64, u64, u64) -> f64;
    // SAFETY: it goes to such a function.
    let call = unsafe { trampoline.entry::<Weigh>() };
    for _ in 0..3 {
        // SAFETY: the trampoline is there.
        assert_eq!(unsafe { call(1, 2.0, 3, 4, 5, 6, 7, 8) }, 200.0);
    }
    // Into the middle of nowhere and back: what `jump` said is taken back.
    // SAFETY: it does not go there.
    let trampoline = create(backend, |saved| unsafe {
        saved.jump(std::ptr::without_provenance(1));
        saved.set(Register::Rax, 7);
        saved.jump(std::ptr::null());
    });
    // SAFETY: what is above is such a function.
    let call = unsafe { trampoline.entry::<extern "C" fn() -> u64>() };
    assert_eq!(call(), 7);
}

/// A handler as C would have it.
unsafe extern "C-unwind" fn in_c(saved: *mut SavedRegisters<'_>, context: *mut c_void) {
    // SAFETY: the trampoline passes its registers, and the test a counter.
    unsafe {
        *context.cast::<u64>() += (*saved).get(Register::Rdi);
        (*saved).set(Register::Rax, *context.cast::<u64>());
    }
}

/// A pointer that C passes along.
struct Context(*mut c_void);

// SAFETY: the handler that gets it may be called by every thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

pub fn a_handler_may_be_a_function(backend: Backend) {
    let mut sum = 2_u64;
    let context = Context((&raw mut sum).cast());
    let trampoline = create(backend, move |saved| {
        let Context(context) = &context;
        // SAFETY: the counter outlives the trampoline.
        unsafe { in_c(saved, *context) };
    });
    // SAFETY: what is above is such a function.
    let call = unsafe { trampoline.entry::<extern "C" fn(u64) -> u64>() };
    assert_eq!((call(20), call(20)), (22, 42));
}

pub fn many_copies_know_which_trampoline_was_entered(backend: Backend) {
    const MANY: usize = 10_000;
    let options = TableOptions {
        save_all: true,
        ..Default::default()
    };
    let table = Arc::new(Table::create(&jit(backend), options).unwrap());
    assert_eq!(table.stats().copies, 1);
    // Nothing else is made in there, and these are made nowhere else.
    // SAFETY: nobody calls it.
    let other = unsafe { table.bind(weigh as *const c_void, std::ptr::null_mut()) };
    assert!(matches!(other, Err(Error::Argument(_))));
    let other = Closure::new(&table, || {});
    assert!(matches!(other, Err(Error::Argument(_))));
    let plain = Arc::new(Table::create(&jit(backend), Register::R10).unwrap());
    let other = SaveAllTrampoline::new(&plain, |_| {});
    assert!(matches!(other, Err(Error::Argument(_))));
    let make = |number: usize| {
        // SAFETY: the caller expects an integer.
        SaveAllTrampoline::new(&table, move |saved| unsafe {
            saved.set(Register::Rdx, saved.trampoline.addr() as u64);
            saved.set(Register::Rax, number as u64);
        })
    };
    let all: Result<Vec<_>, _> = (0..MANY).map(make).collect();
    let mut all = all.unwrap();
    assert!(table.stats().copies >= 3);
    let mut addresses = HashSet::new();
    for (number, trampoline) in all.iter().enumerate() {
        let mut machine = Machine::new(trampoline.address()).call();
        assert_eq!(*machine.general(Register::Rax), number as u64);
        assert_eq!(*machine.general(Register::Rdx), trampoline.address() as u64);
        addresses.insert(trampoline.address());
    }
    assert_eq!(addresses.len(), MANY);
    let last = all.pop().unwrap();
    // SAFETY: that a call after the end is a trap is what is tested.
    let stale = unsafe { *last.entry::<extern "C" fn()>() };
    drop(last);
    let late = child(|| {
        stale();
        0
    });
    assert_eq!(late, End::Signal(libc::SIGTRAP));
    drop(all);
    // What this thread keeps for itself is not given back yet.
    assert!(table.stats().taken <= 64);
}

pub fn panics_pass_through_a_return_trampoline(backend: Backend) {
    let throw = |saved: &mut SavedRegisters| resume_unwind(Box::new(saved.get(Register::Rdi)));
    let trampoline = create(backend, throw).unwinding();
    // SAFETY: the handler takes anything.
    let call = unsafe { trampoline.entry::<extern "C-unwind" fn(u64)>() };
    let caught = catch_unwind(AssertUnwindSafe(|| call(42))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&42_u64));
}
