// SPDX-License-Identifier: GPL-2.0
//! Who pays: a user and all ids of the user namespaces that he owns are one, others
//! are others; and the default is a part of the machine's memory.

use std::fs;
use std::os::fd::AsRawFd;

use jitfd_plan::abi::Create;

use crate::suite::calls;
use crate::suite::harness::{Test, tests};
use crate::suite::kmod::{parameters, with_parameters};
use crate::suite::memory::Mapping;
use crate::suite::outcome::{Checked, OrFail, Outcome, equal, failed, holds, refused, skipped};
use crate::suite::process::{Child, Gate, become_user, in_child};
use crate::suite::region::Region;
use crate::suite::sys::{self, PAGE};

use super::bounds::{
    ATTACKER, LARGEST_SHARE, MIB, SMALLEST_SHARE, TOTAL_MAPPINGS, TOTAL_REGIONS, USER_PAGES,
    USER_REGIONS, VICTIM,
};

pub fn tests() -> Vec<Test> {
    tests![
        the_default_is_a_part_of_the_memory,
        users_are_apart,
        ids_of_a_namespace_are_one,
        ids_and_the_owner_are_one,
        ids_of_a_namespace_within_are_one,
        pages_of_a_namespace_are_one,
        forks_take_nothing_of_all_users_bound,
        the_administrator_goes_beyond_all_users_bound,
    ]
}

/// The memory of the machine, in bytes.
fn memory() -> Checked<u64> {
    let text = fs::read_to_string("/proc/meminfo").or_fail("read meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).or_fail("MemTotal in meminfo")
}

fn the_default_is_a_part_of_the_memory() -> Outcome {
    if parameters().contains(USER_PAGES) {
        return skipped("the module was loaded with a bound");
    }
    in_child(|| {
        become_user(ATTACKER)?;
        let memory = memory()?;
        let most = memory / LARGEST_SHARE;
        let step = MIB as usize;
        let region = Region::new((most as usize + 2 * step).next_multiple_of(step) / PAGE)?;
        let zeros = Mapping::sparse(step)?;
        while region.stats()?.cursor <= most {
            match calls::append(region.fd(), zeros.bytes()) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EDQUOT) => {
                    let had = region.stats()?.cursor;
                    let what = format!("{} MiB of {} were had", had >> 20, memory >> 20);
                    return holds(had >= memory / SMALLEST_SHARE, what);
                }
                Err(error) => return Err(error).or_fail("JIT_APPEND"),
            }
        }
        failed(format!(
            "more than {} MiB of {} were had",
            most >> 20,
            memory >> 20
        ))
    })
}

fn has_region(what: &str) -> Outcome {
    Region::new(1)
        .map(std::mem::forget)
        .or_else(|stop| failed(format!("{what}: {stop:?}")))
}

fn has_none(what: &str) -> Outcome {
    let device = calls::open_device()?;
    let argument = Create {
        size: PAGE as u64,
        ..Default::default()
    };
    refused(
        what,
        calls::create(device.as_raw_fd(), &argument),
        libc::EDQUOT,
    )
}

fn with_one_region(test: impl FnOnce() -> Outcome) -> Outcome {
    with_parameters(&format!("{USER_REGIONS}=1"), test)
}

fn users_are_apart() -> Outcome {
    with_one_region(|| {
        has_region_while(ATTACKER, || {
            in_child(|| {
                become_user(VICTIM)?;
                has_region("another user")?;
                has_none("a second one of that user")
            })
        })
    })
}

/// Runs `test` while a process of `user` has a region.
fn has_region_while(user: u32, test: impl FnOnce() -> Outcome) -> Outcome {
    let (ready, end) = (Gate::new()?, Gate::new()?);
    let child = Child::of_user(user, || {
        has_region("a user")?;
        ready.open()?;
        end.wait()
    })?;
    ready.wait_for(&child)?;
    let outcome = test();
    end.open()?;
    outcome.and(child.join())
}

/// A fork can't be refused: the copies of mappings count for its user, and not among
/// what all users have, of which it would leave nothing.
fn forks_take_nothing_of_all_users_bound() -> Outcome {
    with_parameters(&format!("{TOTAL_MAPPINGS}=4"), || {
        let (ready, end) = (Gate::new()?, Gate::new()?);
        let attacker = Child::of_user(ATTACKER, || {
            has_region("the attacker")?;
            for _ in 0..8 {
                std::mem::forget(Child::start(|| end.wait())?);
            }
            ready.open()?;
            end.wait()
        })?;
        ready.wait_for(&attacker)?;
        let outcome = in_child(|| {
            become_user(VICTIM)?;
            (0..3).try_for_each(|_| has_region("the victim"))?;
            let device = calls::open_device()?;
            let size = PAGE as u64;
            let argument = Create {
                size,
                ..Default::default()
            };
            let _append = calls::create(device.as_raw_fd(), &argument).or_fail("JIT_CREATE")?;
            let map = Mapping::of_file(device.as_raw_fd(), PAGE, sys::RX, 0);
            refused("a mapping more than all may have", map, libc::EDQUOT)
        });
        // Each waits for one byte.
        (0..9).try_for_each(|_| end.open())?;
        outcome.and(attacker.join())
    })
}

fn the_administrator_goes_beyond_all_users_bound() -> Outcome {
    with_parameters(&format!("{TOTAL_REGIONS}=1"), || {
        has_region_while(ATTACKER, || {
            in_child(|| {
                become_user(VICTIM)?;
                has_none("another user")
            })?;
            in_child(|| has_region("the administrator"))
        })
    })
}

/// The ids of a namespace: as the kernel counts them, from this one on.
const FIRST: u32 = 100_000;
const COUNT: u32 = 1000;

/// Runs `run` in a user namespace that `owner` owns. There, he is 0, and 1 to
/// [`COUNT`] are mapped too, as newuidmap(1) does for whom `/etc/subuid` allows it.
fn in_namespace(owner: u32, run: impl FnOnce() -> Outcome) -> Outcome {
    let (made, mapped) = (Gate::new()?, Gate::new()?);
    let child = Child::of_user(owner, || {
        unshare_users()?;
        made.open()?;
        mapped.wait()?;
        run()
    })?;
    if made.wait_for(&child).is_err() {
        return child.join();
    }
    let map = format!("0 {owner} 1\n1 {FIRST} {COUNT}\n");
    let folder = format!("/proc/{}", child.pid());
    let result = fs::write(format!("{folder}/uid_map"), map)
        .and_then(|()| fs::write(format!("{folder}/gid_map"), "0 0 1\n"));
    mapped.open()?;
    child.join()?;
    result.or_fail("map the ids")
}

fn unshare_users() -> Outcome {
    let arguments = [libc::CLONE_NEWUSER as usize, 0, 0, 0, 0, 0];
    match sys::syscall(libc::SYS_unshare, arguments) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            skipped("this kernel has no user namespaces")
        }
        other => other.or_fail("unshare the users").map(|_| ()),
    }
}

fn needs_namespaces() -> Outcome {
    match fs::exists("/proc/self/ns/user") {
        Ok(true) => Ok(()),
        _ => skipped("this kernel has no user namespaces"),
    }
}

fn ids_of_a_namespace_are_one() -> Outcome {
    needs_namespaces()?;
    with_one_region(|| {
        in_namespace(ATTACKER, || {
            has_region_while(1, || {
                in_child(|| {
                    become_user(2)?;
                    has_none("another id of the namespace")
                })
            })
        })
    })
}

fn ids_and_the_owner_are_one() -> Outcome {
    needs_namespaces()?;
    with_one_region(|| {
        has_region_while(ATTACKER, || {
            in_namespace(ATTACKER, || {
                in_child(|| has_none("the owner in the namespace"))?;
                become_user(1)?;
                has_none("an id of the namespace")
            })
        })?;
        has_region_while(VICTIM, || {
            in_namespace(ATTACKER, || {
                become_user(1)?;
                has_region("an id of the namespace, while another user has one")
            })
        })
    })
}

/// A namespace in a namespace: its direct owner is an id of the outer one.
fn ids_of_a_namespace_within_are_one() -> Outcome {
    needs_namespaces()?;
    with_one_region(|| {
        has_region_while(ATTACKER, || {
            in_namespace(ATTACKER, || {
                become_user(1)?;
                // Its files in /proc are its own only then.
                sys::prctl(libc::PR_SET_DUMPABLE, 1).or_fail("prctl")?;
                unshare_users()?;
                fs::write("/proc/self/uid_map", "0 1 1\n").or_fail("write uid_map")?;
                has_none("an id of the namespace within")
            })
        })
    })
}

fn pages_of_a_namespace_are_one() -> Outcome {
    needs_namespaces()?;
    with_parameters(&format!("{USER_PAGES}=16"), || {
        in_namespace(ATTACKER, || {
            let region = Region::new(12)?;
            region.append(&[0x90; 10 * PAGE])?;
            in_child(|| {
                become_user(7)?;
                let region = Region::new(12)?;
                let result = calls::append(region.fd(), &[0x90; 10 * PAGE]);
                refused("JIT_APPEND", result, libc::EDQUOT)?;
                equal("the cursor", region.stats()?.cursor, 0)
            })
        })
    })
}
