// SPDX-License-Identifier: GPL-2.0
//! The system's side of SELinux: loads the policy that lies in the working directory,
//! labels the device, and switches domains. The runner's PID 1 stays `kernel_t`.

use crate::suite::outcome::{OrFail, Outcome};
use crate::suite::sys;
use std::fs;
use std::io;

/// Compiled from tests/selinux/policy.cil.
const POLICY: &str = "policy";
const SELINUXFS: &str = "/sys/fs/selinux";

/// Makes all of it true for every process of the guest.
pub fn enforce() -> io::Result<()> {
    mount()?;
    load(&fs::read(POLICY)?)?;
    label_device()?;
    set_enforcing(true)
}

fn mount() -> io::Result<()> {
    let (kind, place) = (c"selinuxfs".as_ptr(), c"/sys/fs/selinux".as_ptr());
    let [kind, place] = [kind, place].map(|text| text.expose_provenance());
    sys::syscall(libc::SYS_mount, [kind, place, kind, 0, 0, 0]).map(drop)
}

fn load(policy: &[u8]) -> io::Result<()> {
    fs::write(format!("{SELINUXFS}/load"), policy)
}

/// udev's task, on a system that has one.
fn label_device() -> io::Result<()> {
    let label = "user:object_r:jit_device_t";
    let [path, name] =
        [c"/dev/jit", c"security.selinux"].map(|text| text.as_ptr().expose_provenance());
    let value = label.as_ptr().expose_provenance();
    let arguments = [path, name, value, label.len(), 0, 0];
    sys::syscall(libc::SYS_setxattr, arguments).map(drop)
}

/// Whether what the policy does not allow is refused.
pub fn set_enforcing(yes: bool) -> io::Result<()> {
    fs::write(format!("{SELINUXFS}/enforce"), if yes { "1" } else { "0" })
}

/// The calling process is of this domain from now on.
pub fn enter(domain: &str) -> Outcome {
    let label = format!("user:role:{domain}");
    fs::write("/proc/self/attr/current", &label).or_fail(&label)
}

/// Where a policy's capabilities lie: behind the magic number, the length and text of
/// its name, four numbers, and those that introduce the only word of a bitmap
/// (`policydb_read()`, `ebitmap_read()`).
const CAPABILITIES: usize = 4 + 4 + 8 + 4 * 4 + 4 * 4;
/// `POLICYDB_CAP_MEMFD_CLASS`, which compilers of policies learn only now.
const MEMFD_CLASS: u64 = 1 << 13;

/// The policy, in which memory files have a class of their own or not.
pub fn set_memfd_class(yes: bool) -> Outcome {
    let mut policy = fs::read(POLICY).or_fail(POLICY)?;
    let bits = policy.get_mut(CAPABILITIES..CAPABILITIES + 8);
    let bits: &mut [u8; 8] = bits
        .and_then(|bits| bits.try_into().ok())
        .or_fail("a policy with capabilities")?;
    let without = u64::from_le_bytes(*bits);
    *bits = (without | if yes { MEMFD_CLASS } else { 0 }).to_le_bytes();
    load(&policy).or_fail("the policy")
}
