// SPDX-License-Identifier: MIT OR Apache-2.0

//! perf.

use crate::run::{Folder, given_folder, has, jit, skip, text, tool};
use jitfd::space::{Listener, SpaceOptions};
use jitfd::tools::{JitDump, PerfMap};
use jitfd::{CodeSpace, RegionOptions, Rules, validate};
use std::sync::Arc;

/// Counts down for a good part of a second: mov ecx, count; dec ecx; jnz; ret.
fn spin(region: RegionOptions, listener: Arc<dyn Listener>) -> (CodeSpace, jitfd::Published) {
    let options = SpaceOptions {
        region,
        listeners: vec![listener],
        ..Default::default()
    };
    let space = jit().space(options).unwrap();
    let mut code = vec![0xb9];
    code.extend(700_000_000_u32.to_le_bytes());
    code.extend([0xff, 0xc9, 0x75, 0xfc, 0xc3]);
    let chunk = validate(&code, &Rules::new()).unwrap();
    let function = space.publish("jitfd_hot_loop", &chunk).unwrap();
    // SAFETY: the code above takes and returns nothing, and changes `ecx` only.
    unsafe { space.entry::<extern "C" fn()>(function).unwrap()() };
    (space, function)
}

#[test]
#[ignore = "perf runs it"]
fn child_spins_with_a_map() {
    let map = Arc::new(PerfMap::create_in("/tmp".as_ref()).unwrap());
    let region = RegionOptions {
        perf_map: true,
        ..Default::default()
    };
    spin(region, map.clone());
    assert_eq!(map.lost(), 0);
}

#[test]
#[ignore = "perf runs it"]
fn child_spins_with_a_dump() {
    let dump = Arc::new(JitDump::create_in(&given_folder()).unwrap());
    spin(RegionOptions::default(), dump.clone());
    assert_eq!(dump.lost(), 0);
}

/// Whether perf can record on this system.
fn can_record(folder: &Folder) -> bool {
    if !has("perf") {
        return false;
    }
    let output = tool(
        "perf",
        folder,
        &["record", "-q", "-e", "cpu-clock", "true"],
        None,
    );
    if !output.status.success() {
        skip(&format!("perf can't record here: {}", text(&output)));
    }
    output.status.success()
}

fn record(folder: &Folder, child: &str) {
    let arguments = [
        "record",
        "-q",
        "-k",
        "mono",
        "-e",
        "cpu-clock",
        "-o",
        "perf.data",
    ];
    let output = tool("perf", folder, &arguments, Some(child));
    assert!(output.status.success(), "{}", text(&output));
}

/// The report on a recording.
fn report(folder: &Folder, data: &str) -> String {
    let arguments = ["report", "--stdio", "--sort", "symbol", "-i", data];
    text(&tool("perf", folder, &arguments, None))
}

/// Removes what the child left in /tmp: its map, named by the process.
fn remove_map(folder: &Folder) {
    let arguments = ["script", "-i", "perf.data", "-F", "pid"];
    let pids = text(&tool("perf", folder, &arguments, None));
    let mut pids: Vec<_> = pids.split_whitespace().collect();
    pids.dedup();
    for pid in pids {
        let _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
    }
}

#[test]
fn perf_report_reads_the_map() {
    let folder = Folder::new("perf-map");
    if can_record(&folder) {
        record(&folder, "profiler::child_spins_with_a_map");
        let report = report(&folder, "perf.data");
        remove_map(&folder);
        assert!(report.contains("jitfd_hot_loop"), "{report}");
    }
}

#[test]
fn perf_inject_reads_the_dump() {
    let folder = Folder::new("perf-dump");
    if can_record(&folder) {
        record(&folder, "profiler::child_spins_with_a_dump");
        let plain = report(&folder, "perf.data");
        assert!(!plain.contains("jitfd_hot_loop"), "{plain}");
        let arguments = ["inject", "--jit", "-i", "perf.data", "-o", "jit.data"];
        let output = tool("perf", &folder, &arguments, None);
        assert!(output.status.success(), "{}", text(&output));
        let named = report(&folder, "jit.data");
        assert!(named.contains("jitfd_hot_loop"), "{named}");
    }
}
