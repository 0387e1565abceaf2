// SPDX-License-Identifier: GPL-2.0

//! The scenarios. Each is as small as the hazard that it is about allows, so
//! that all of its states can be visited. Page 0 has cells 0 to 3, page 1 has
//! cells 4 to 7.

use crate::scenario::{Accessed, Freedom, Instr, Publication, Scenario};

/// May be executed at any time.
fn any_time(at: usize, bytes: &[u8]) -> Instr {
    Instr {
        at,
        bytes: bytes.to_vec(),
        after_return: false,
    }
}

/// Is executed when its publication has returned.
fn returned(at: usize, bytes: &[u8]) -> Instr {
    Instr {
        after_return: true,
        ..any_time(at, bytes)
    }
}

fn publication(spans: &[(usize, usize)]) -> Publication {
    Publication {
        spans: spans.to_vec(),
        sync: false,
    }
}

fn sync(spans: &[(usize, usize)]) -> Publication {
    Publication {
        sync: true,
        ..publication(spans)
    }
}

/// Appends; the second crosses into a page without code.
pub fn append() -> Scenario {
    Scenario {
        name: "append",
        cpus: 2,
        mappings: vec![0],
        others: 0,
        accessed: Accessed::default(),
        bound: usize::MAX,
        code: vec![
            any_time(0, &[0x11]),
            any_time(1, &[0x21, 0x22]),
            any_time(3, &[0x23, 0x24]),
            any_time(5, &[0x31]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 2), (3, 2)]),
            publication(&[(5, 1)]),
        ],
        freedom: Freedom::default(),
    }
}

/// Fills: an instruction across the boundary of two live pages, the second of
/// which was replaced before.
pub fn straddle() -> Scenario {
    Scenario {
        name: "straddle",
        code: vec![
            any_time(0, &[0x11]),
            any_time(5, &[0x12]),
            any_time(6, &[0x21]),
            any_time(3, &[0x31, 0x32]),
        ],
        publications: vec![
            publication(&[(0, 1), (5, 1)]),
            publication(&[(6, 1)]),
            publication(&[(3, 2)]),
        ],
        ..append()
    }
}

/// Two live pages, of which the first was replaced and waits, when an instruction
/// is published across both.
pub fn first_page_waits() -> Scenario {
    Scenario {
        name: "first page waits",
        code: vec![
            any_time(0, &[0x11]),
            any_time(5, &[0x12]),
            any_time(1, &[0x21]),
            any_time(3, &[0x31, 0x32]),
        ],
        publications: vec![
            publication(&[(0, 1), (5, 1)]),
            publication(&[(1, 1)]),
            publication(&[(3, 2)]),
        ],
        ..append()
    }
}

/// The same, and both wait, under one ticket; another instruction is published
/// across both before.
pub fn both_pages_wait() -> Scenario {
    Scenario {
        name: "both pages wait",
        code: vec![
            any_time(0, &[0x11]),
            any_time(6, &[0x12]),
            any_time(1, &[0x21]),
            any_time(5, &[0x22]),
            any_time(3, &[0x31, 0x32]),
        ],
        publications: vec![
            publication(&[(0, 1), (6, 1)]),
            publication(&[(1, 1), (5, 1)]),
            publication(&[(3, 2)]),
        ],
        ..append()
    }
}

/// A publication with `PUBLISH_SYNC` on one page while the other waits.
pub fn other_page_waits() -> Scenario {
    Scenario {
        name: "other page waits",
        code: vec![
            any_time(0, &[0x11]),
            any_time(5, &[0x12]),
            any_time(1, &[0x21]),
            returned(6, &[0x31]),
        ],
        publications: vec![
            publication(&[(0, 1), (5, 1)]),
            publication(&[(1, 1)]),
            sync(&[(6, 1)]),
        ],
        ..append()
    }
}

/// As [`straddle`], with one version more of the second page, which no CPU may
/// have used: the one before is what a TLB holds.
pub fn unused_version() -> Scenario {
    Scenario {
        name: "unused version",
        code: vec![
            any_time(0, &[0x11]),
            any_time(5, &[0x12]),
            any_time(6, &[0x21]),
            any_time(7, &[0x31]),
            any_time(3, &[0x41, 0x42]),
        ],
        publications: vec![
            publication(&[(0, 1), (5, 1)]),
            publication(&[(6, 1)]),
            publication(&[(7, 1)]),
            publication(&[(3, 2)]),
        ],
        ..append()
    }
}

/// More pages wait than may: they are flushed for.
pub fn full_queue() -> Scenario {
    Scenario {
        name: "full queue",
        bound: 1,
        ..versions()
    }
}

/// The same where each version may have been used in another address space.
pub fn full_queue_of_two() -> Scenario {
    Scenario {
        name: "full queue of two processes",
        mappings: vec![0, 1],
        bound: 2,
        code: vec![
            any_time(0, &[0x11]),
            any_time(1, &[0x21]),
            any_time(2, &[0x31]),
            any_time(3, &[0x41]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 1)]),
            publication(&[(2, 1)]),
            publication(&[(3, 1)]),
        ],
        ..append()
    }
}

/// Epochs that other regions ask for begin and end at any time.
pub fn other_regions() -> Scenario {
    Scenario {
        name: "other regions",
        freedom: Freedom {
            epochs: 2,
            ..Freedom::default()
        },
        ..straddle()
    }
}

/// An instruction that is fetched by two translations inside one page, of a
/// publication with `PUBLISH_SYNC`, after two others on the page.
pub fn synchronous() -> Scenario {
    Scenario {
        name: "synchronous",
        code: vec![
            any_time(0, &[0x11]),
            any_time(1, &[0x21]),
            returned(2, &[0x31, 0x32]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 1)]),
            sync(&[(2, 2)]),
        ],
        freedom: Freedom {
            switch: true,
            lazy: true,
            split_fetch: true,
            ..Freedom::default()
        },
        ..append()
    }
}

/// The same instruction in a page of its own (`PUBLISH_FRESH`), executed at any
/// time.
pub fn fresh() -> Scenario {
    Scenario {
        name: "fresh",
        code: vec![
            any_time(0, &[0x11]),
            any_time(1, &[0x21]),
            any_time(4, &[0x31, 0x32]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 1)]),
            publication(&[(4, 2)]),
        ],
        ..synchronous()
    }
}

/// The same instruction with neither: the hazard that is documented.
pub fn unprotected() -> Scenario {
    Scenario {
        name: "unprotected",
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 1)]),
            publication(&[(2, 2)]),
        ],
        ..synchronous()
    }
}

/// Every int3 there is, and code that only looks like one.
pub fn int3() -> Scenario {
    Scenario {
        name: "int3",
        code: vec![
            any_time(0, &[0xcc]),
            any_time(1, &[0xcd, 0x03]),
            any_time(4, &[0x11, 0xcd]),
            returned(6, &[0x03]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 2), (4, 2)]),
            publication(&[(6, 1)]),
        ],
        ..append()
    }
}

/// A `CD` in front of a `03` that was published before, and of which a TLB may
/// hold the 0xCC.
pub fn int3_of_two() -> Scenario {
    Scenario {
        name: "int3 of two",
        code: vec![
            any_time(3, &[0x11]),
            any_time(2, &[0x03]),
            any_time(0, &[0x31, 0xcd]),
        ],
        publications: vec![
            publication(&[(3, 1)]),
            publication(&[(2, 1)]),
            publication(&[(0, 2)]),
        ],
        ..append()
    }
}

/// Three versions of one page.
pub fn versions() -> Scenario {
    Scenario {
        name: "versions",
        code: vec![
            any_time(0, &[0x11]),
            any_time(1, &[0x21]),
            any_time(2, &[0x31]),
        ],
        publications: vec![
            publication(&[(0, 1)]),
            publication(&[(1, 1)]),
            publication(&[(2, 1)]),
        ],
        ..append()
    }
}

/// CPUs that go lazy, switch, go offline and come back. One page.
pub fn switches() -> Scenario {
    Scenario {
        name: "switches",
        code: versions().code,
        publications: vec![publication(&[(0, 1)]), publication(&[(1, 1)])],
        freedom: Freedom {
            switch: true,
            lazy: true,
            kernel: true,
            hotplug: true,
            ..Freedom::default()
        },
        ..append()
    }
}

/// The region is mapped in two address spaces, as after fork.
pub fn processes() -> Scenario {
    Scenario {
        name: "processes",
        mappings: vec![0, 1],
        publications: vec![publication(&[(0, 1)]), publication(&[(1, 1), (2, 1)])],
        freedom: Freedom {
            switch: true,
            ..Freedom::default()
        },
        ..versions()
    }
}

/// CPUs that go to an address space without the region, where they are spared,
/// and come back; lazily, too.
pub fn spared() -> Scenario {
    Scenario {
        name: "spared",
        others: 1,
        freedom: Freedom {
            switch: true,
            lazy: true,
            ..Freedom::default()
        },
        ..versions()
    }
}

/// The same by exec, which is spared a moment before it has left.
pub fn spared_by_exec() -> Scenario {
    Scenario {
        name: "spared by exec",
        freedom: Freedom {
            switch: true,
            exec: true,
            ..Freedom::default()
        },
        ..spared()
    }
}

/// The same, when an instruction is published across live pages.
pub fn spared_straddle() -> Scenario {
    Scenario {
        name: "spared, straddle",
        others: 1,
        freedom: Freedom {
            switch: true,
            ..Freedom::default()
        },
        ..straddle()
    }
}

/// The same, lazily too.
pub fn spared_lazy_straddle() -> Scenario {
    Scenario {
        name: "spared lazily, straddle",
        freedom: spared().freedom,
        ..spared_straddle()
    }
}

/// The same with `PUBLISH_SYNC`.
pub fn spared_synchronous() -> Scenario {
    Scenario {
        name: "spared, synchronous",
        others: 1,
        ..synchronous()
    }
}

/// The same, and the kernel takes CPUs that are away out of the mask.
pub fn spared_and_forgotten() -> Scenario {
    Scenario {
        name: "spared and forgotten",
        others: 1,
        ..switches()
    }
}

/// Two mappings in one address space, whose entries appear at any time.
pub fn mappings() -> Scenario {
    Scenario {
        name: "mappings",
        mappings: vec![0, 0],
        ..versions()
    }
}

/// A mapping is removed and made again meanwhile.
pub fn remap() -> Scenario {
    Scenario {
        name: "remap",
        freedom: Freedom {
            remaps: 1,
            ..Freedom::default()
        },
        ..append()
    }
}

/// A fill across live pages that two address spaces map. CPUs stay where they are:
/// if they switch, the states are more than six gigabytes hold.
pub fn straddle_processes() -> Scenario {
    Scenario {
        name: "straddle in two processes",
        mappings: vec![0, 1],
        ..straddle()
    }
}

/// A fill across live pages while their mapping goes and comes back.
pub fn straddle_remap() -> Scenario {
    Scenario {
        name: "straddle and remap",
        freedom: remap().freedom,
        ..straddle()
    }
}

/// As [`switches`], with one version more.
pub fn switches_and_versions() -> Scenario {
    Scenario {
        name: "switches and versions",
        freedom: switches().freedom,
        ..versions()
    }
}

/// As [`processes`], and CPUs go lazy.
pub fn lazy_processes() -> Scenario {
    Scenario {
        name: "lazy processes",
        freedom: Freedom {
            switch: true,
            lazy: true,
            ..Freedom::default()
        },
        ..processes()
    }
}

/// A mapping is removed and made again while CPUs switch.
pub fn remap_switches() -> Scenario {
    Scenario {
        name: "remap and switches",
        freedom: Freedom {
            remaps: 2,
            ..switches().freedom
        },
        ..switches()
    }
}

/// Any scenario with one CPU more.
pub fn with_one_more_cpu(scenario: Scenario) -> Scenario {
    Scenario {
        cpus: scenario.cpus + 1,
        ..scenario
    }
}

/// Any scenario in which each CPU caches what it likes and has its number.
pub fn reluctant(scenario: Scenario) -> Scenario {
    Scenario {
        freedom: Freedom {
            reluctant: true,
            ..scenario.freedom
        },
        ..scenario
    }
}

/// Any scenario on a processor that sets the Accessed bit late or never, with
/// `accessed_bit` as it says.
pub fn sets_accessed_late(scenario: Scenario, is_trusted: bool) -> Scenario {
    Scenario {
        accessed: Accessed {
            is_set_first: false,
            is_trusted,
        },
        ..scenario
    }
}
