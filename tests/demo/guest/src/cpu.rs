// SPDX-License-Identifier: MIT OR Apache-2.0

//! What executes this guest.

use std::arch::x86_64::{__cpuid, CpuidResult};

/// Whether QEMU translates the guest's instructions (TCG), by the name that
/// hypervisors give in CPUID.
pub fn emulated() -> bool {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    const HYPERVISOR_NAME: u32 = 0x4000_0000;
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let CpuidResult { ebx, ecx, edx, .. } = __cpuid(HYPERVISOR_NAME);
    [ebx, ecx, edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}
