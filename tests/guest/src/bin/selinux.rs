// SPDX-License-Identifier: GPL-2.0
//! Under an SELinux policy (tests/selinux/policy.cil) that is enforced: a program needs
//! no permission for jitfd but those on its device and its append handle; each can be
//! refused by itself; and `jitfd::probe()` names what is refused. Each test is a process
//! that enters a domain which lacks something.

#[path = "../probe/expect.rs"]
mod expect;

#[path = "../selinux/policy.rs"]
mod policy;

/// The harness of the suite, and of its tools what that needs.
#[expect(dead_code, reason = "the suite uses all of it")]
#[path = "../suite"]
mod suite {
    pub mod harness;
    pub mod outcome;
    pub mod patience;
    pub mod sys;
}

use expect::{and_restore, blamed, jitctl, make, working};
use jitctl::Status;
use jitfd::space::{Item, SpaceOptions};
use jitfd::{
    Align, Backend, Chunk, Error, Fallback, Jit, Kind, Region, RegionOptions, Rules,
    jit_create_code, probe, validate,
};
use jitfd_trampoline::Closure;
use std::ffi::c_int;
use suite::harness::tests;
use suite::outcome::{Checked, OrFail, Outcome, equal, failed, holds, refused};
use suite::sys::{self, PAGE, RW, RX};

fn done<T>(result: Result<T, impl std::fmt::Display>) -> Checked<T> {
    result.or_else(|error| failed(error.to_string()))
}

/// `mov eax, 42; ret`.
fn answer() -> Checked<Chunk> {
    done(validate(&[0xb8, 42, 0, 0, 0, 0xc3], &Rules::new()))
}

/// That a call of `answer()` at this address returns.
fn answers(address: usize) -> Outcome {
    // SAFETY: the tests only pass addresses at which it is published.
    let function: extern "C" fn() -> c_int = unsafe { std::mem::transmute(address) };
    equal("the code's answer", function(), 42)
}

fn some_pages() -> Checked<usize> {
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    sys::mmap(0, PAGE, RW, private, -1, 0).or_fail("mmap")
}

fn kind(result: Result<impl Sized, Error>) -> Option<Kind> {
    result.err().and_then(|error| error.kind())
}

/// That the policy is blamed for `backend`, in these words.
fn policy_is_blamed(probe: &jitfd::Probe, backend: Backend, words: &str) -> Outcome {
    let reasons = probe.reasons(backend);
    let named =
        |finding: &&&jitfd::Finding| finding.subject == "SELinux" && finding.text.contains(words);
    holds(
        reasons.iter().find(named).is_some(),
        format!("{words:?} in {reasons:?}"),
    )
}

fn a_domain_without_limits_has_all_backends() -> Outcome {
    policy::enter("kernel_t")?;
    let probe = probe();
    working(&probe, [true; 3])?;
    let of_policy = |finding: &&jitfd::Finding| finding.subject == "SELinux";
    let finding = probe.findings.iter().find(of_policy).or_fail("a finding")?;
    equal("refused", finding.backends.len(), 0)?;
    holds(
        finding.text == "enforcing, and allows what is needed to user:role:kernel_t",
        finding.text.clone(),
    )
}

fn other_ways_to_new_code_are_named_as_refused() -> Outcome {
    policy::enter("jit_t")?;
    let probe = probe();
    working(&probe, [true, false, false])?;
    blamed(&probe, Backend::DualMapping, &["SELinux"])?;
    policy_is_blamed(
        &probe,
        Backend::DualMapping,
        "user:object_r:tmpfs_t:file { execute }",
    )?;
    blamed(&probe, Backend::ProtectFlips, &["SELinux"])?;
    policy_is_blamed(&probe, Backend::ProtectFlips, "process { execmem }")?;
    let (status, text) = jitctl(&["probe"]);
    equal("status", status, Status::Good)?;
    holds(
        text.contains("SELinux       refuses     the policy does not allow"),
        text,
    )
}

fn memory_files_of_a_class_of_their_own_are_judged_by_it() -> Outcome {
    policy::set_memfd_class(true)?;
    let with_the_class = || {
        policy::enter("jit_t")?;
        let probe = probe();
        working(&probe, [true, false, false])?;
        let words = "user:role:jit_t:memfd_file { execute }";
        policy_is_blamed(&probe, Backend::DualMapping, words)
    };
    and_restore(with_the_class, || policy::set_memfd_class(false))
}

fn region(capacity: usize) -> Result<Region, Error> {
    Jit::open(Fallback::Never)?.region(capacity)
}

fn new_code_needs_no_right_but_those_on_the_device() -> Outcome {
    policy::enter("jit_t")?;
    let page = some_pages()?;
    refused("mprotect", sys::mprotect(page, PAGE, RX), libc::EACCES)?;

    let code = done(jit_create_code(answer()?.bytes()))?;
    answers(code.address())?;
    let jit = done(Jit::open(Fallback::Never))?;
    // SAFETY: the page is ours, and nobody else's.
    done(unsafe { jit.code_at(&answer()?, std::ptr::with_exposed_provenance_mut(page)) })?;
    answers(page)?;

    let region = done(jit.region(2 * PAGE))?;
    answers(done(region.publish(&answer()?))?.address)?;
    let place = done(region.reserve(6, Align::FUNCTION))?;
    answers(done(region.fill(&place, &answer()?))?.address)
}

fn what_is_built_on_it_needs_no_more() -> Outcome {
    policy::enter("jit_t")?;
    let jit = done(Jit::open(Fallback::Never))?;
    let space = done(jit.space(SpaceOptions::default()))?;
    let image = vec![Item::new("answer", answer()?.bytes().to_vec())];
    let linked = done(space.link(&image, None))?;
    answers(linked.first().or_fail("a function")?.address)?;
    let add = done(
        Jit::open(Fallback::Never).and_then(|jit| Closure::new(&jit, |a: c_int, b: c_int| a + b)),
    )?;
    // SAFETY: the closure lives.
    equal("a closure", unsafe { add.entry()(40, 2) }, 42)
}

fn a_child_makes_its_parents_region_its_own() -> Outcome {
    policy::enter("jit_t")?;
    let region = done(region(2 * PAGE))?;
    done(region.publish(&answer()?))?;
    let in_child = || {
        done(region.adopt())?;
        answers(done(region.publish(&answer()?))?.address)
    };
    and_restore(in_child, || Ok(()))
}

fn a_program_that_may_not_use_the_device_has_the_fallbacks() -> Outcome {
    policy::enter("ordinary_t")?;
    let probe = probe();
    working(&probe, [false, true, true])?;
    blamed(&probe, Backend::Kernel, &["/dev/jit", "SELinux"])?;
    let words = "jit_device_t:chr_file { open ioctl map read execute }";
    policy_is_blamed(&probe, Backend::Kernel, words)?;
    equal("never", kind(make(Fallback::Never)), Some(Kind::Denied))?;
    equal("any", done(make(Fallback::Any))?, Backend::DualMapping)
}

fn a_program_that_may_do_nothing_is_told_so() -> Outcome {
    policy::enter("nothing_t")?;
    working(&probe(), [false; 3])?;
    equal("status", jitctl(&["probe"]).0, Status::Failed)?;
    match make(Fallback::Any) {
        Err(Error::NoBackend { refused }) => equal("refused", refused.len(), 3),
        other => failed(format!("{other:?}")),
    }
}

fn the_append_handle_can_be_refused() -> Outcome {
    policy::enter("no_append_t")?;
    answers(done(jit_create_code(answer()?.bytes()))?.address())?;
    let jit = done(Jit::open(Fallback::Never))?;
    answers(done(jit.code(&answer()?))?.address())?;
    equal("a region", kind(region(PAGE)), Some(Kind::Denied))?;
    let probe = probe();
    working(&probe, [false; 3])?;
    policy_is_blamed(
        &probe,
        Backend::Kernel,
        "user:role:no_append_t:anon_inode { create ioctl }",
    )
}

fn single_ioctls_can_be_refused() -> Outcome {
    policy::enter("finished_t")?;
    answers(done(jit_create_code(answer()?.bytes()))?.address())?;
    let jit = done(Jit::open(Fallback::Never))?;
    answers(done(jit.code(&answer()?))?.address())?;
    equal("a region", kind(region(PAGE)), Some(Kind::Denied))?;
    let probe = probe();
    working(&probe, [false; 3])?;
    blamed(&probe, Backend::Kernel, &["SELinux"])?;
    policy_is_blamed(&probe, Backend::Kernel, "(allowxperm)")
}

/// A child in another domain has both handles of a region into which every process may
/// publish, but no right to open the device or to publish.
fn an_executor_maps_but_does_not_publish() -> Outcome {
    let options = RegionOptions {
        capacity: 2 * PAGE,
        any_process: true,
        ..Default::default()
    };
    let region = done(Jit::open(Fallback::Never).and_then(|jit| jit.region(options)))?;
    let published = done(region.publish(&answer()?))?;
    let at = published.address - region.mapping().address();
    let executor = || {
        policy::enter("executor_t")?;
        let mapping = done(region.map_handle().map(2 * PAGE, None))?;
        answers(mapping.address() + at)?;
        equal(
            "publish",
            kind(region.publish(&answer()?)),
            Some(Kind::Denied),
        )?;
        let opened = sys::open(c"/dev/jit", libc::O_RDONLY);
        refused("open", opened, libc::EACCES)
    };
    and_restore(executor, || Ok(()))?;
    // The same child, without the policy's order.
    and_restore(
        || answers(done(region.publish(&answer()?))?.address),
        || Ok(()),
    )
}

fn a_permissive_system_refuses_nothing() -> Outcome {
    policy::set_enforcing(false).or_fail("setenforce 0")?;
    let in_permissive_mode = || {
        policy::enter("nothing_t")?;
        let probe = probe();
        working(&probe, [true; 3])?;
        let said = |finding: &jitfd::Finding| {
            finding.text == "permissive; this process is user:role:nothing_t"
        };
        holds(probe.findings.iter().any(said), "said to be permissive")
    };
    and_restore(in_permissive_mode, || {
        policy::set_enforcing(true).or_fail("setenforce 1")
    })
}

fn main() -> std::process::ExitCode {
    if let Err(error) = policy::enforce() {
        eprintln!("SELinux: {error}; boot with APPEND=security=selinux, see tests/selinux/run.sh");
        return std::process::ExitCode::FAILURE;
    }
    // Each test is a process of its own, and would say what it was told to use.
    jitfd::set_fallback_hook(|_| {});
    suite::harness::main(tests![
        a_domain_without_limits_has_all_backends,
        other_ways_to_new_code_are_named_as_refused,
        memory_files_of_a_class_of_their_own_are_judged_by_it,
        new_code_needs_no_right_but_those_on_the_device,
        what_is_built_on_it_needs_no_more,
        a_child_makes_its_parents_region_its_own,
        a_program_that_may_not_use_the_device_has_the_fallbacks,
        a_program_that_may_do_nothing_is_told_so,
        the_append_handle_can_be_refused,
        single_ioctls_can_be_refused,
        an_executor_maps_but_does_not_publish,
        a_permissive_system_refuses_nothing,
    ])
}
