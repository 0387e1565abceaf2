// SPDX-License-Identifier: GPL-2.0
//! The module can't be unloaded while anything uses it, and can be unloaded and
//! loaded again once nothing does.

use std::fs;
use std::os::fd::AsRawFd;

use jitfd_plan::abi::CreateCode;

use super::asm;
use super::calls;
use super::contended;
use super::harness::{Test, tests};
use super::kmod;
use super::memory::Mapping;
use super::outcome::{Checked, OrFail, Outcome, holds, refused};
use super::process::Child;
use super::region::Region;
use super::sys::PAGE;

pub fn tests() -> Vec<Test> {
    tests![
        stays_while_a_device_handle_is_open,
        stays_while_an_append_handle_is_open,
        stays_while_a_region_is_mapped,
        stays_while_created_code_is_mapped,
        stays_while_a_child_has_a_mapping,
        goes_and_comes_back,
        goes_with_replaced_pages_pending,
        goes_after_traps_that_were_put_off,
        goes_many_times,
        one_user_may_have_a_quarter_of_all,
    ]
}

/// Fails unless the module stays as long as `user` lives, and no longer.
fn stays_with<T>(user: T) -> Outcome {
    let result = kmod::unload();
    refused("delete_module", result, libc::EAGAIN)?;
    drop(user);
    kmod::unload_soon().or_fail("delete_module after the last use")?;
    kmod::load_as_before().or_fail("load it again")?;
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)
}

fn stays_while_a_device_handle_is_open() -> Outcome {
    stays_with(calls::open_device()?)
}

fn stays_while_an_append_handle_is_open() -> Outcome {
    let Region {
        device,
        append,
        map,
    } = Region::new(1)?;
    drop((device, map));
    stays_with(append)
}

fn stays_while_a_region_is_mapped() -> Outcome {
    let Region {
        device,
        append,
        map,
    } = Region::new(1)?;
    drop((device, append));
    stays_with(map)
}

fn stays_while_created_code_is_mapped() -> Outcome {
    let code = asm::answer(1);
    let device = calls::open_device()?;
    let mut argument = CreateCode {
        source: code.as_ptr().addr() as u64,
        len: code.len() as u64,
        ..Default::default()
    };
    calls::create_code(device.as_raw_fd(), &mut argument).or_fail("JIT_CREATE_CODE")?;
    drop(device);
    stays_with(Mapping::adopt(argument.addr as usize, PAGE))
}

/// A child that ends when this is dropped.
struct Ends(Option<Child>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            let _ = child.end();
        }
    }
}

fn stays_while_a_child_has_a_mapping() -> Outcome {
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    let child = Child::start(|| {
        loop {
            std::thread::park();
        }
    })?;
    drop(region);
    stays_with(Ends(Some(child)))
}

fn goes_and_comes_back() -> Outcome {
    kmod::unload_soon().or_fail("delete_module")?;
    holds(!kmod::is_loaded(), "the module is gone")?;
    let device = super::sys::open(c"/dev/jit", libc::O_RDWR);
    holds(device.is_err(), "/dev/jit is gone")?;
    kmod::load_as_before().or_fail("load it again")?;
    let region = Region::new(1)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)
}

/// Unloading waits for no tick: it flushes and frees what is left.
fn goes_with_replaced_pages_pending() -> Outcome {
    for _ in 0..10 {
        let region = Region::new(4)?;
        for value in 0..300 {
            let offset = region.append(&asm::answer(value))?;
            region.answers(offset, value)?;
        }
        drop(region);
        kmod::unload_soon().or_fail("delete_module")?;
        kmod::load_as_before().or_fail("load it again")?;
    }
    Ok(())
}

/// The thread that waited has just left the module's code.
fn goes_after_traps_that_were_put_off() -> Outcome {
    for _ in 0..5 {
        let child = Child::start(contended::trap_for_ever)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        child.end()?;
        kmod::unload_soon().or_fail("delete_module")?;
        kmod::load_as_before().or_fail("load it again")?;
    }
    Ok(())
}

fn goes_many_times() -> Outcome {
    for _ in 0..20 {
        kmod::unload_soon().or_fail("delete_module")?;
        kmod::load_as_before().or_fail("load it again")?;
    }
    Ok(())
}

/// A bound, as the module was loaded.
fn bound(name: &str) -> Checked<u64> {
    let path = format!("/sys/module/jit/parameters/{name}");
    let text = fs::read_to_string(path).or_fail("read a parameter")?;
    text.trim().parse().ok().or_fail("a number")
}

/// Users who take all that they may leave something to the next one, unless there are
/// four of them.
fn one_user_may_have_a_quarter_of_all() -> Outcome {
    kmod::with_parameters("", || {
        ["pages", "regions", "mappings"]
            .iter()
            .try_for_each(|what| {
                let user = bound(&format!("user_{what}"))?;
                let total = bound(&format!("total_{what}"))?;
                let is_fair = user > 0 && user * 4 <= total;
                holds(is_fair, format!("{what}: {user} of {total}"))
            })
    })
}
