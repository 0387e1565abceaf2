// SPDX-License-Identifier: GPL-2.0
//! One region in several processes: by fork, and by a descriptor that is passed
//! on; and `JIT_CLONE`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};

use jitfd_plan::abi::{self, CloneFrom};

use super::asm;
use super::calls;
use super::execute::{answers, faults};
use super::harness::{Test, tests};
use super::memory::{Mapping, load};
use super::outcome::{Checked, OrFail, Outcome, equal, refused};
use super::passing::Socket;
use super::process::{Child, Gate, in_child};
use super::region::Region;
use super::sys::{self, PAGE, RX};

pub fn tests() -> Vec<Test> {
    tests![
        child_runs_old_code,
        child_runs_new_code,
        grandchild_runs_new_code,
        child_ends_first,
        parent_ends_first,
        many_children_at_once,
        child_unmaps_its_own_only,
        parent_unmaps_its_own_only,
        child_may_not_append,
        thread_may_append,
        exec_loses_the_right,
        descriptor_passed_to_another_process,
        append_handle_passed_without_the_right,
        append_handle_passed_with_the_right,
        not_copied_into_the_child,
        clone_has_the_same_code,
        clone_diverges,
        clone_in_the_child_at_the_same_address,
        clone_keeps_reservations,
        clone_of_a_sealed_region_is_open,
        clone_outlives_the_source,
        clone_of_a_clone,
        clone_belongs_to_its_maker,
    ]
}

fn child_runs_old_code() -> Outcome {
    let region = Region::new(2)?;
    for value in 0..100 {
        region.append(&asm::answer(value))?;
    }
    region.answers(0, 0)?;
    in_child(|| (0..100).try_for_each(|value| region.answers(u64::from(value) * 6, value)))
}

/// Publishes `count` answers, one at a time; `others` run each.
fn publish_for(region: &Region, count: u32, others: &[(&Gate, &Gate)]) -> Outcome {
    for value in 0..count {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
        for (to, _) in others {
            to.send(offset)?;
        }
        for (_, from) in others {
            from.wait()?;
        }
    }
    Ok(())
}

/// Runs what [`publish_for`] publishes.
fn run_each(addr: usize, count: u32, (from, to): (&Gate, &Gate)) -> Outcome {
    for value in 0..count {
        let offset = from.receive()?;
        answers("new code", addr + offset as usize, value)?;
        to.open()?;
    }
    Ok(())
}

fn child_runs_new_code() -> Outcome {
    let region = Region::new(2)?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let addr = region.at(0);
    let child = Child::start(|| run_each(addr, 600, (&there, &back)))?;
    publish_for(&region, 600, &[(&there, &back)])?;
    child.join()
}

fn grandchild_runs_new_code() -> Outcome {
    let region = Region::new(2)?;
    let gates: [(Gate, Gate); 2] = [(Gate::new()?, Gate::new()?), (Gate::new()?, Gate::new()?)];
    let addr = region.at(0);
    let child = Child::start(|| {
        let grandchild = Child::start(|| run_each(addr, 300, (&gates[1].0, &gates[1].1)))?;
        run_each(addr, 300, (&gates[0].0, &gates[0].1))?;
        grandchild.join()
    })?;
    let others = gates.each_ref().map(|(to, from)| (to, from));
    publish_for(&region, 300, &others)?;
    child.join()
}

fn child_ends_first() -> Outcome {
    let region = Region::new(2)?;
    for value in 0..50 {
        let offset = region.append(&asm::answer(value))?;
        in_child(|| region.answers(offset, value))?;
        region.answers(offset, value)?;
    }
    Ok(())
}

/// The process that publishes ends; its child goes on with the mapping.
fn parent_ends_first() -> Outcome {
    let (go, done) = (Gate::new()?, Gate::new()?);
    in_child(|| {
        let region = Region::new(2)?;
        region.append(&asm::answer(1))?;
        region.answers(0, 1)?;
        let second = region.append(&asm::answer(2))?;
        let orphan = || -> Outcome {
            go.wait()?;
            for _ in 0..100 {
                region.answers(0, 1)?;
                region.answers(second, 2)?;
            }
            done.open()
        };
        Child::start(orphan)?;
        let third = region.append(&asm::answer(3))?;
        region.answers(third, 3)
    })?;
    go.open()?;
    done.wait()
}

fn many_children_at_once() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(0))?;
    region.answers(0, 0)?;
    let gates: Vec<(Gate, Gate)> = (0..8)
        .map(|_| Ok((Gate::new()?, Gate::new()?)))
        .collect::<Checked<_>>()?;
    let addr = region.at(0);
    let children: Vec<Child> = gates
        .iter()
        .map(|(there, back)| Child::start(|| run_each(addr, 100, (there, back))))
        .collect::<Checked<_>>()?;
    let others: Vec<(&Gate, &Gate)> = gates.iter().map(|(to, from)| (to, from)).collect();
    publish_for(&region, 100, &others)?;
    children.into_iter().try_for_each(Child::join)
}

fn child_unmaps_its_own_only() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    in_child(|| {
        sys::munmap(region.at(0), 2 * PAGE).or_fail("munmap")?;
        faults("the child's", region.at(0), libc::SIGSEGV)
    })?;
    region.answers(0, 1)?;
    let offset = region.append(&asm::answer(2))?;
    region.answers(offset, 2)
}

fn parent_unmaps_its_own_only() -> Outcome {
    let region = Region::new(2)?;
    let offset = region.append(&asm::answer(1))?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let addr = region.at(0);
    let child = Child::start(|| {
        answers("before", addr, 1)?;
        back.open()?;
        let offset = there.receive()?;
        answers("published since", addr + offset as usize, 2)?;
        answers("before", addr, 1)
    })?;
    region.answers(offset, 1)?;
    back.wait()?;
    sys::munmap(addr, 2 * PAGE).or_fail("munmap")?;
    there.send(region.append(&asm::answer(2))?)?;
    child.join()
}

fn child_may_not_append() -> Outcome {
    let region = Region::new(1)?;
    in_child(|| {
        refused(
            "JIT_APPEND",
            calls::append(region.fd(), &[0xc3]),
            libc::EPERM,
        )
    })?;
    region.append(&[0xc3]).map(|_| ())
}

fn thread_may_append() -> Outcome {
    let region = Region::new(1)?;
    let offset = std::thread::scope(|scope| {
        let thread = scope.spawn(|| region.append(&asm::answer(1)));
        thread.join().ok().or_fail("the thread panicked")?
    })?;
    region.answers(offset, 1)
}

const AFTER_EXEC: &str = "--append-after-exec";

/// What the suite does when it is started by [`exec_loses_the_right`]: it
/// appends through the descriptor it is told, and exits with the errno.
pub fn run_after_exec() -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != AFTER_EXEC {
        return None;
    }
    let fd: RawFd = words.next()?.parse().ok()?;
    let errno = match calls::append(fd, &[0xc3]) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(255),
    };
    Some(ExitCode::from(u8::try_from(errno).unwrap_or(255)))
}

/// After execve() the address space is another one.
fn exec_loses_the_right() -> Outcome {
    for (flags, wanted) in [(0, libc::EPERM), (abi::CREATE_ANY_MM, 0)] {
        let region = Region::with_flags(1, flags)?;
        let fd = region.fd();
        // SAFETY: no memory is concerned.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        let status = Command::new("/proc/self/exe")
            .args([AFTER_EXEC, &fd.to_string()])
            .status()
            .or_fail("start the suite again")?;
        equal("what it got", status.code(), Some(wanted))?;
    }
    Ok(())
}

/// Starts a child that has none of our later descriptors, only a socket.
fn stranger(run: impl FnOnce(Socket) -> Outcome) -> Checked<(Socket, Child)> {
    let (ours, theirs) = Socket::pair().or_fail("socketpair")?;
    let child = Child::start(|| run(theirs))?;
    Ok((ours, child))
}

fn map_received(device: &OwnedFd, pages: usize) -> Checked<Mapping> {
    Mapping::of_file(device.as_raw_fd(), pages * PAGE, RX, 0).or_fail("mmap what was passed")
}

fn descriptor_passed_to_another_process() -> Outcome {
    let (there, back) = (Gate::new()?, Gate::new()?);
    let (socket, child) = stranger(|socket| {
        let device = socket.receive().or_fail("receive")?;
        let map = map_received(&device, 2)?;
        let result = calls::append(device.as_raw_fd(), &[0xc3]);
        refused("JIT_APPEND", result, libc::ENOTTY)?;
        let result = Mapping::of_file(device.as_raw_fd(), PAGE, sys::RW, 0);
        refused("mmap, writable", result, libc::EACCES)?;
        run_each(map.addr(), 300, (&there, &back))
    })?;
    let region = Region::new(2)?;
    socket.send(region.device.as_raw_fd()).or_fail("send")?;
    publish_for(&region, 300, &[(&there, &back)])?;
    child.join()
}

/// Passes both handles to a stranger, which tries to append.
fn pass_append_handle(flags: u32, run: fn(&OwnedFd, &Mapping) -> Outcome) -> Checked<Region> {
    let (socket, child) = stranger(|socket| {
        let device = socket.receive().or_fail("receive")?;
        let append = socket.receive().or_fail("receive")?;
        run(&append, &map_received(&device, 2)?)
    })?;
    let region = Region::with_flags(2, flags)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    socket.send(region.device.as_raw_fd()).or_fail("send")?;
    socket.send(region.fd()).or_fail("send")?;
    child.join()?;
    Ok(region)
}

fn append_handle_passed_without_the_right() -> Outcome {
    let region = pass_append_handle(0, |append, map| {
        let result = calls::append(append.as_raw_fd(), &asm::answer(2));
        refused("JIT_APPEND", result, libc::EPERM)?;
        answers("the code", map.addr(), 1)
    })?;
    equal("the cursor", region.stats()?.cursor, 6)
}

fn append_handle_passed_with_the_right() -> Outcome {
    let region = pass_append_handle(abi::CREATE_ANY_MM, |append, map| {
        for value in 2..100 {
            let offset = calls::append(append.as_raw_fd(), &asm::answer(value));
            let offset = offset.or_fail("JIT_APPEND")?;
            answers("the code", map.addr() + offset as usize, value)?;
        }
        Ok(())
    })?;
    (1..100).try_for_each(|value| region.answers(u64::from(value - 1) * 6, value))
}

/// MADV_DONTFORK keeps it out of the child, and nothing else.
fn not_copied_into_the_child() -> Outcome {
    let region = Region::new(2)?;
    region.append(&asm::answer(1))?;
    region.answers(0, 1)?;
    sys::madvise(region.at(0), 2 * PAGE, libc::MADV_DONTFORK).or_fail("MADV_DONTFORK")?;
    in_child(|| faults("in the child", region.at(0), libc::SIGSEGV))?;
    let offset = region.append(&asm::answer(2))?;
    region.answers(offset, 2)
}

/// A clone of `source`, mapped; in place of what is at `addr` unless that is 0.
fn clone_at(source: &OwnedFd, pages: usize, addr: usize) -> Checked<Region> {
    let device = calls::open_device()?;
    let argument = CloneFrom {
        source_fd: source.as_raw_fd(),
        ..Default::default()
    };
    let append = calls::clone_region(device.as_raw_fd(), &argument).or_fail("JIT_CLONE")?;
    let flags = libc::MAP_SHARED | if addr == 0 { 0 } else { libc::MAP_FIXED };
    let map: io::Result<usize> = sys::mmap(addr, pages * PAGE, RX, flags, device.as_raw_fd(), 0);
    let map = Mapping::adopt(map.or_fail("mmap the clone")?, pages * PAGE);
    Ok(Region {
        device,
        append,
        map,
    })
}

fn clone_of(region: &Region) -> Checked<Region> {
    clone_at(&region.device, region.map.len() / PAGE, 0)
}

/// A region of three pages, the last without code, some entries used.
fn source() -> Checked<Region> {
    let region = Region::new(3)?;
    for value in 0..700 {
        region.append(&asm::answer(value))?;
    }
    region.answers(0, 0)?;
    Ok(region)
}

fn clone_has_the_same_code() -> Outcome {
    let region = source()?;
    let copy = clone_of(&region)?;
    equal("the cursor", copy.stats()?.cursor, region.stats()?.cursor)?;
    equal("the content", copy.content()? == region.content()?, true)?;
    (0..700).try_for_each(|value| copy.answers(u64::from(value) * 6, value))?;
    let end = 2 * PAGE as u64;
    faults("an unpublished page", copy.at(end), libc::SIGBUS)
}

fn clone_diverges() -> Outcome {
    let region = source()?;
    let copy = clone_of(&region)?;
    for value in 1000..1400 {
        let ours = region.append(&asm::answer(value))?;
        let theirs = copy.append(&asm::answer(value + 1000))?;
        equal("the offsets", ours, theirs)?;
        region.answers(ours, value)?;
        copy.answers(theirs, value + 1000)?;
    }
    (0..700).try_for_each(|value| copy.answers(u64::from(value) * 6, value))?;
    (0..700).try_for_each(|value| region.answers(u64::from(value) * 6, value))
}

/// What a forked server does that wants to compile on its own.
fn clone_in_the_child_at_the_same_address() -> Outcome {
    let region = source()?;
    let (there, back) = (Gate::new()?, Gate::new()?);
    let child = Child::start(|| {
        let copy = clone_at(&region.device, 3, region.map.addr())?;
        for value in 2000..2300 {
            let offset = copy.append(&asm::answer(value))?;
            copy.answers(offset, value)?;
        }
        back.open()?;
        there.wait()?;
        copy.answers(700 * 6, 2000)?;
        (0..700).try_for_each(|value| copy.answers(u64::from(value) * 6, value))
    })?;
    back.wait()?;
    for value in 3000..3300 {
        let offset = region.append(&asm::answer(value))?;
        region.answers(offset, value)?;
    }
    there.open()?;
    child.join()?;
    region.answers(700 * 6, 3000)
}

fn clone_keeps_reservations() -> Outcome {
    let region = Region::new(2)?;
    let hole = calls::reserve(region.fd(), 100, 0).or_fail("JIT_RESERVE")?;
    region.fill(hole + 10, &asm::answer(1))?;
    let copy = clone_of(&region)?;
    copy.fill(hole + 20, &asm::answer(2))?;
    region.fill(hole + 20, &asm::answer(3))?;
    let result = calls::fill(copy.fd(), hole + 10, &asm::answer(4));
    refused("a fill that was done before", result, libc::EEXIST)?;
    copy.answers(hole + 20, 2)?;
    region.answers(hole + 20, 3)?;
    copy.answers(hole + 10, 1)
}

fn clone_of_a_sealed_region_is_open() -> Outcome {
    let region = source()?;
    calls::seal(region.fd()).or_fail("JIT_SEAL")?;
    let copy = clone_of(&region)?;
    equal("sealed", copy.stats()?.sealed, 0)?;
    let offset = copy.append(&asm::answer(1))?;
    copy.answers(offset, 1)?;
    let result = calls::append(region.fd(), &[0xc3]);
    refused("JIT_APPEND to the source", result, libc::EROFS)
}

fn clone_outlives_the_source() -> Outcome {
    let region = source()?;
    let copy = clone_of(&region)?;
    drop(region);
    let offset = copy.append(&asm::answer(9))?;
    copy.answers(offset, 9)?;
    (0..700).try_for_each(|value| copy.answers(u64::from(value) * 6, value))
}

fn clone_of_a_clone() -> Outcome {
    let region = source()?;
    let copy = clone_of(&region)?;
    copy.append(&asm::answer(1000))?;
    let second = clone_of(&copy)?;
    drop(copy);
    second.answers(700 * 6, 1000)?;
    let offset = second.append(&asm::answer(1001))?;
    second.answers(offset, 1001)?;
    let ours = region.append(&asm::answer(1002))?;
    region.answers(ours, 1002)?;
    equal("the source's code", load(second.at(0), 6), asm::answer(0))
}

/// Who clones may publish into the clone, whoever made the source.
fn clone_belongs_to_its_maker() -> Outcome {
    let region = source()?;
    in_child(|| {
        let copy = clone_of(&region)?;
        let offset = copy.append(&asm::answer(1))?;
        copy.answers(offset, 1)?;
        in_child(|| refused("JIT_APPEND", calls::append(copy.fd(), &[0xc3]), libc::EPERM))
    })
}
