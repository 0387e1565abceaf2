// SPDX-License-Identifier: GPL-2.0

//! `/dev/jit`: open, mmap, and the decoding and dispatch of ioctls. No policy.
//!
//! An open file can map. It becomes a region by `JIT_CREATE` or `JIT_CLONE`,
//! which return the handle that can append (`append.rs`).
//!
//! File operations of our own, not the kernel crate's `miscdevice`: that has no
//! `flush`, and hands out no raw file, whose `f_mapping` is replaced here.
//!
//! Lock order: mmap_lock → [`Handle::region`] (held for a pointer copy).

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    seq_file::SeqFile,
    sync::{new_spinlock, Arc, SpinLock},
    types::Opaque,
};

use crate::{
    append,
    code::{self, Codes},
    error::{errno, not_a_region},
    ffi,
    file_mapping::FileMapping,
    mapping,
    plan::{abi, request},
    region::{Publishers, Region},
    uaccess::{ioctl_result, read_arg, write_arg, Fops},
    vma,
};

/// What an open `/dev/jit` file has.
#[pin_data]
struct Handle {
    space: Arc<FileMapping>,
    #[pin]
    region: SpinLock<Option<Arc<Region>>>,
    #[pin]
    codes: Codes,
}

impl Handle {
    fn region(&self) -> Result<Arc<Region>> {
        self.region.lock().clone().ok_or_else(not_a_region)
    }

    fn check_no_region(&self) -> Result {
        match &*self.region.lock() {
            None => Ok(()),
            Some(_) => Err(EBUSY),
        }
    }

    /// Makes the file a region and returns the append handle's descriptor.
    /// Nothing has happened if it fails.
    fn become_region(&self, region: Arc<Region>) -> Result<u64> {
        let append = append::Handle::new(region.clone())?;
        let mut slot = self.region.lock();
        if slot.is_some() {
            drop(slot);
            return Err(EBUSY);
        }
        *slot = Some(region);
        drop(slot);
        Ok(u64::from(append.install()))
    }

    fn create(&self, arg: &abi::Create) -> Result<u64> {
        request::create(arg).map_err(errno)?;
        self.check_no_region()?;
        let publishers = Publishers::from_flags(arg.flags)?;
        let region = Region::new(Some(self.space.clone()), 0, arg.size, publishers)?;
        self.become_region(region.into())
    }

    fn clone_from(&self, arg: &abi::CloneFrom) -> Result<u64> {
        request::clone_from(arg).map_err(errno)?;
        self.check_no_region()?;
        let publishers = Publishers::from_flags(arg.flags)?;
        let source = source_region(arg.source_fd)?;
        self.become_region(source.try_clone(self.space.clone(), publishers)?)
    }

    /// A region's file is a right to map the region, and to nothing else.
    fn create_code(&self, file: *mut bindings::file, user: usize) -> Result<u64> {
        self.check_no_region()?;
        let mut arg: abi::CreateCode = read_arg(user)?;
        let asked = arg.addr;
        let addr = self.codes.create(file, self.space.clone(), &arg)?;
        if asked != 0 {
            return Ok(0);
        }
        arg.addr = addr as u64;
        write_arg(user, &arg).inspect_err(|_| code::undo(addr, arg.len))?;
        Ok(0)
    }

    /// # Safety
    ///
    /// `vma` is being set up for this file.
    unsafe fn mmap(&self, vma: *mut bindings::vm_area_struct) -> Result {
        // SAFETY: The VMA is being set up: nobody else changes it.
        let (first, count) = unsafe { vma::check_new(vma)? };
        let region = match self.codes.take(first, count) {
            Some(region) => region,
            None => self.region()?,
        };
        if !region.covers(first, count) {
            return Err(EINVAL);
        }
        // SAFETY: The VMA is being set up for this file, and was checked.
        unsafe { vma::set_up(vma, region) }
    }

    fn dispatch(&self, file: *mut bindings::file, cmd: u32, arg: usize) -> Result<u64> {
        match cmd {
            abi::JIT_CREATE_CODE => self.create_code(file, arg),
            abi::JIT_CREATE => self.create(&read_arg(arg)?),
            abi::JIT_CLONE => self.clone_from(&read_arg(arg)?),
            abi::JIT_STATS => write_arg(arg, &self.region()?.stats()).map(|()| 0),
            _ => Err(ENOTTY),
        }
    }
}

/// The region of another `/dev/jit` descriptor of the caller. Fails with
/// `EBADF` or `ENODATA`.
fn source_region(fd: i32) -> Result<Arc<Region>> {
    let fd = u32::try_from(fd).map_err(|_| EBADF)?;
    let file = kernel::fs::file::LocalFile::fget(fd)?;
    // SAFETY: The file is referenced.
    let (fops, private) = unsafe { ((*file.as_ptr()).f_op, (*file.as_ptr()).private_data) };
    if !core::ptr::eq(fops, &FOPS.0) {
        return Err(EBADF);
    }
    // SAFETY: The file is one of ours, and referenced.
    unsafe { &*private.cast::<Handle>() }.region()
}

static FOPS: Fops = Fops(bindings::file_operations {
    owner: kernel::module::this_module::<crate::LocalModule>().as_ptr(),
    open: Some(open),
    release: Some(release),
    flush: Some(flush),
    mmap: Some(mmap),
    unlocked_ioctl: Some(ioctl),
    compat_ioctl: bindings::compat_ptr_ioctl,
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// The registered device.
///
/// # Invariants
///
/// `misc` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Device {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
}

// SAFETY: The kernel guards a registered device.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    /// Registers `/dev/jit`. From now on userspace may call.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Device {
            // INVARIANT: Registered here, or this fails.
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let misc = bindings::miscdevice {
                    minor: bindings::MISC_DYNAMIC_MINOR as c_int,
                    name: c"jit".as_char_ptr(),
                    fops: &FOPS.0,
                    mode: 0o666,
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is memory for a device, and pinned.
                to_result(unsafe {
                    slot.write(misc);
                    bindings::misc_register(slot)
                })
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Device {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type invariants.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// # Safety
///
/// `file` has [`FOPS`] and is open.
unsafe fn handle<'a>(file: *mut bindings::file) -> &'a Handle {
    // SAFETY: The private data of such a file is a `Handle`.
    unsafe { &*(*file).private_data.cast::<Handle>() }
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn open(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The file is being opened.
    let handle = unsafe { FileMapping::new(file) }.and_then(|space| {
        KBox::pin_init(
            pin_init!(Handle {
                space,
                region <- new_spinlock!(None, "jit_handle"),
                codes <- Codes::new(),
            }),
            ffi::CHARGED,
        )
    });
    match handle {
        Ok(handle) => {
            // SAFETY: The box is not moved out of its place until `release`.
            let raw = KBox::into_raw(unsafe { Pin::into_inner_unchecked(handle) });
            // SAFETY: The file is being opened, and the box is valid; it keeps
            // the space until `release`.
            unsafe {
                (*file).private_data = raw.cast();
                (*raw).space.install(file);
            }
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// Called by the kernel once for a file with [`FOPS`].
unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The file is being released.
    unsafe { FileMapping::remove(file) };
    // SAFETY: `open` has put the box there.
    drop(unsafe { KBox::from_raw((*file).private_data.cast::<Handle>()) });
    0
}

/// A descriptor was closed: maybe the last one of the process in which the
/// region's pages are counted.
///
/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn flush(file: *mut bindings::file, _: *mut c_void) -> c_int {
    // SAFETY: By this function's contract.
    if let Ok(region) = unsafe { handle(file) }.region() {
        mapping::find_home(&region);
    }
    0
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`] and a VMA that is being set
/// up for it.
unsafe extern "C" fn mmap(file: *mut bindings::file, vma: *mut bindings::vm_area_struct) -> c_int {
    // SAFETY: By this function's contract.
    match unsafe { handle(file).mmap(vma) } {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: By this function's contract.
    ioctl_result(unsafe { handle(file) }.dispatch(file, cmd, arg))
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: By this function's contract.
    let (handle, m) = unsafe { (handle(file), SeqFile::from_raw(m)) };
    if let Ok(region) = handle.region() {
        region.show(m);
    }
}
