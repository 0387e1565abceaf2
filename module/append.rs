// SPDX-License-Identifier: GPL-2.0

//! The append handle: the right to publish into a region, and nothing else. An
//! anonymous inode of its own (an LSM labels it `[jit-append]`) that can't be
//! mapped.
//!
//! Context: process. Owner: each handle holds one reference to its region.

use kernel::{
    bindings,
    fs::file::FileDescriptorReservation,
    fs::File,
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, Arc, ArcBorrow},
};

use crate::{
    ffi, mapping,
    plan::{abi, request::Kind},
    publish,
    region::Region,
    uaccess::{ioctl_result, read_arg, write_arg, Fops},
};

static FOPS: Fops = Fops(bindings::file_operations {
    owner: kernel::module::this_module::<crate::LocalModule>().as_ptr(),
    release: Some(release),
    flush: Some(flush),
    unlocked_ioctl: Some(ioctl),
    compat_ioctl: bindings::compat_ptr_ioctl,
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// A new append handle that is not installed yet.
pub(crate) struct Handle {
    file: ARef<File>,
    fd: FileDescriptorReservation,
}

impl Handle {
    /// Makes a handle for `region`. Fails with `EMFILE`, `ENFILE`, `ENOMEM`, or
    /// what an LSM says.
    pub(crate) fn new(region: Arc<Region>) -> Result<Self> {
        let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
        let private = Arc::into_raw(region).cast_mut();
        // SAFETY: The operations are static; the private data is a reference
        // that `release` drops.
        let file = kernel::error::from_err_ptr(unsafe {
            ffi::anon_inode_create_getfile(
                c"[jit-append]".as_char_ptr(),
                &FOPS.0,
                private.cast(),
                (bindings::O_RDWR | bindings::O_CLOEXEC) as c_int,
                core::ptr::null(),
            )
        });
        let file = file.inspect_err(|_| {
            // SAFETY: The file was not made, so the reference is still ours.
            drop(unsafe { Arc::from_raw(private.cast_const()) });
        })?;
        let file = core::ptr::NonNull::new(file.cast::<File>()).ok_or(ENOMEM)?;
        // SAFETY: We own the one reference to a file that no task has.
        let file = unsafe { ARef::from_raw(file) };
        Ok(Handle { file, fd })
    }

    /// Gives it to the caller. Can't fail.
    pub(crate) fn install(self) -> u32 {
        let fd = self.fd.reserved_fd();
        self.fd.fd_install(self.file);
        fd
    }
}

/// # Safety
///
/// `file` has [`FOPS`].
unsafe fn region<'a>(file: *mut bindings::file) -> ArcBorrow<'a, Region> {
    // SAFETY: The private data of such a file is a reference to its region.
    unsafe { ArcBorrow::from_raw((*file).private_data.cast_const().cast::<Region>()) }
}

/// # Safety
///
/// Called by the kernel once for a file with [`FOPS`].
unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The reference that the file holds ends here.
    drop(unsafe { Arc::<Region>::from_raw((*file).private_data.cast_const().cast()) });
    0
}

/// As for `/dev/jit` itself.
///
/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn flush(file: *mut bindings::file, _: *mut c_void) -> c_int {
    // SAFETY: By this function's contract.
    mapping::find_home(unsafe { &region(file) });
    0
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: By this function's contract.
    let region = unsafe { region(file) };
    ioctl_result(dispatch(&region.into(), cmd, arg))
}

fn dispatch(region: &Arc<Region>, cmd: u32, arg: usize) -> Result<u64> {
    match cmd {
        abi::JIT_APPEND => publish::publish(region, &read_arg(arg)?, Kind::Append),
        abi::JIT_FILL => publish::publish(region, &read_arg(arg)?, Kind::Fill).map(|_| 0),
        abi::JIT_RESERVE => region.reserve(&read_arg(arg)?),
        abi::JIT_SEAL => region.seal().map(|()| 0),
        abi::JIT_STATS => write_arg(arg, &region.stats()).map(|()| 0),
        _ => Err(ENOTTY),
    }
}

/// # Safety
///
/// Called by the kernel for a file with [`FOPS`].
unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: By this function's contract.
    let (region, m) = unsafe { (region(file), SeqFile::from_raw(m)) };
    region.show(m);
}
