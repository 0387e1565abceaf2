// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library's functions about signals, where they are in the way of this library's
//! handler of `SIGSEGV`: the program's own action is kept beside, and no thread blocks
//! that signal, for a thread that faults and blocks it is ended by the kernel.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicPtr};

use libc::{sigaction as Action, sighandler_t, sigset_t};

use crate::shared::{self, Held};

/// A function of the C library, or of another preloaded one, that has the name of one
/// here.
pub struct Next {
    name: &'static CStr,
    place: AtomicPtr<c_void>,
}

impl Next {
    /// Of this name; looked up later.
    pub const fn new(name: &'static CStr) -> Next {
        Next {
            name,
            place: AtomicPtr::new(null_mut()),
        }
    }

    /// Looks it up, which is not for signal handlers.
    pub fn find(&self) -> *mut c_void {
        let mut place = self.place.load(Relaxed);
        if place.is_null() {
            // SAFETY: the name ends with a NUL.
            place = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.place.store(place, Relaxed);
        }
        place
    }
}

static SIGACTION: Next = Next::new(c"sigaction");
static SIGNAL: Next = Next::new(c"signal");
static SIGPROCMASK: Next = Next::new(c"sigprocmask");
static PTHREAD_SIGMASK: Next = Next::new(c"pthread_sigmask");

/// Looks all of them up, before there are signals.
pub fn find_all() {
    for next in [&SIGACTION, &SIGNAL, &SIGPROCMASK, &PTHREAD_SIGMASK] {
        next.find();
    }
}

/// # Safety
/// As `sigaction()`.
unsafe fn next_sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    type Function = unsafe extern "C" fn(c_int, *const Action, *mut Action) -> c_int;
    // SAFETY: null, or the function of this name and type.
    let function: Option<Function> = unsafe { core::mem::transmute(SIGACTION.find()) };
    // SAFETY: as promised by the caller.
    function.map_or(-1, |function| unsafe { function(signal, new, old) })
}

/// The program's own action for `SIGSEGV`, once this library has one.
struct Own {
    installed: AtomicBool,
    action: UnsafeCell<MaybeUninit<Action>>,
}

// SAFETY: `action` is for who holds the lock.
unsafe impl Sync for Own {}

static OWN: Own = Own {
    installed: AtomicBool::new(false),
    action: UnsafeCell::new(MaybeUninit::zeroed()),
};

/// A handler as the kernel calls it.
pub type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Makes `handler` that of `SIGSEGV`, once.
pub fn install(_held: &Held, handler: Handler) {
    if OWN.installed.load(Relaxed) {
        return;
    }
    // SAFETY: zeros are an action; sets are filled by their function; the lock is held.
    unsafe {
        let mut action: Action = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as *const () as sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        let old = OWN.action.get().cast();
        OWN.installed.store(
            next_sigaction(libc::SIGSEGV, &raw const action, old) == 0,
            Relaxed,
        );
    }
}

/// The program's own action; one that is for one signal only is gone then.
pub fn take_own(_held: &Held) -> Action {
    // SAFETY: the lock is held; zeros are an action.
    unsafe {
        let own = OWN.action.get().cast::<Action>();
        let action = own.read();
        if action.sa_flags & libc::SA_RESETHAND != 0 {
            (*own).sa_sigaction = libc::SIG_DFL;
        }
        action
    }
}

/// Ends this library's part: the kernel's default action.
pub fn give_up(_held: &Held) {
    // SAFETY: zeros are the default action.
    unsafe {
        let action: Action = MaybeUninit::zeroed().assume_init();
        next_sigaction(libc::SIGSEGV, &raw const action, null_mut());
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    let mut copy = MaybeUninit::<Action>::uninit();
    let mut given = null();
    if !new.is_null() {
        // SAFETY: as promised by the caller.
        unsafe {
            let copy = copy.as_mut_ptr();
            copy.write(new.read());
            libc::sigdelset(&raw mut (*copy).sa_mask, libc::SIGSEGV);
            given = copy;
        }
    }
    if signal != libc::SIGSEGV {
        // SAFETY: as promised by the caller.
        return unsafe { next_sigaction(signal, given, old) };
    }
    let _held = shared::lock();
    if !OWN.installed.load(Relaxed) {
        // SAFETY: as promised by the caller.
        return unsafe { next_sigaction(signal, given, old) };
    }
    // SAFETY: the lock is held; pointers as promised by the caller.
    unsafe {
        let own = OWN.action.get().cast::<Action>();
        if !old.is_null() {
            old.write(own.read());
        }
        if !given.is_null() {
            own.write(given.read());
        }
    }
    0
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn signal(number: c_int, handler: sighandler_t) -> sighandler_t {
    if number != libc::SIGSEGV {
        type Function = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
        // SAFETY: null, or the function of this name and type.
        let function: Option<Function> = unsafe { core::mem::transmute(SIGNAL.find()) };
        // SAFETY: as promised by the caller.
        return function.map_or(libc::SIG_ERR, |function| unsafe {
            function(number, handler)
        });
    }
    // SAFETY: zeros are an action.
    unsafe {
        let mut new: Action = MaybeUninit::zeroed().assume_init();
        let mut old: Action = MaybeUninit::zeroed().assume_init();
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        match sigaction(number, &raw const new, &raw mut old) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}

/// # Safety
/// As `sigprocmask()`.
unsafe fn mask(next: &Next, how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int {
    type Function = unsafe extern "C" fn(c_int, *const sigset_t, *mut sigset_t) -> c_int;
    // SAFETY: null, or the function of this name and type.
    let function: Option<Function> = unsafe { core::mem::transmute(next.find()) };
    let Some(function) = function else {
        return libc::EINVAL;
    };
    if set.is_null() || how == libc::SIG_UNBLOCK {
        // SAFETY: as promised by the caller.
        return unsafe { function(how, set, old) };
    }
    // SAFETY: as promised by the caller; the copy is there during the call.
    unsafe {
        let mut copy = set.read();
        libc::sigdelset(&raw mut copy, libc::SIGSEGV);
        function(how, &raw const copy, old)
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { mask(&SIGPROCMASK, how, set, old) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    set: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { mask(&PTHREAD_SIGMASK, how, set, old) }
}
