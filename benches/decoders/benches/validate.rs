// SPDX-License-Identifier: GPL-2.0

//! Validation next to a bare decode loop, and to other decoders that do the same
//! check, over real code. criterion measures one after the other; the table at
//! the end is of a second pass in which all take turns, and their CPU time counts,
//! so that other load on the machine disturbs none more than the others. See
//! `make bench-validate`.

use criterion::{BenchmarkId, Criterion, Throughput};
use jitfd_decoders::{CONTENDERS, Sample, samples};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How often each has its turn in the second pass; the best of them counts.
const TURNS: usize = 15;

fn main() {
    let samples = samples();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    samples
        .iter()
        .for_each(|sample| measure(&mut criterion, sample));
    criterion.final_summary();
    report(&samples);
}

fn measure(criterion: &mut Criterion, sample: &Sample) {
    let mut group = criterion.benchmark_group(&sample.name);
    group.throughput(Throughput::Bytes(sample.bytes.len() as u64));
    for contender in &CONTENDERS {
        let id = BenchmarkId::from_parameter(contender.name);
        group.bench_with_input(id, sample, |bencher, sample| {
            bencher.iter(|| black_box((contender.run)(sample)));
        });
    }
    group.finish();
}

fn report(samples: &[Sample]) {
    println!("\nMB/s of the bare loop, and how many times as fast the others are;");
    println!("\"refuses\": says after some part of it that this is no code");
    print!("{:24}{:>8}{:>9}", "", "MB", "bare");
    let others = CONTENDERS.iter().skip(1);
    others.for_each(|one| print!("{:>17}", one.name));
    println!();
    samples.iter().for_each(report_one);
}

fn report_one(sample: &Sample) {
    let best = best_times(sample);
    let (bare, megabytes) = (&best[0], sample.bytes.len() as f64 / 1e6);
    let name: String = sample.name.chars().take(22).collect();
    let speed = megabytes / bare.cpu.as_secs_f64();
    print!("{name:24}{megabytes:>8.2}{speed:>9.1}");
    for (contender, best) in CONTENDERS.iter().zip(&best).skip(1) {
        let ratio = if contender.threads {
            bare.wall.div_duration_f64(best.wall)
        } else {
            bare.cpu.div_duration_f64(best.cpu)
        };
        match contender.accepts(sample) {
            true => print!("{ratio:>17.3}"),
            false => print!("{:>17}", "refuses"),
        }
    }
    println!();
}

struct Best {
    cpu: Duration,
    wall: Duration,
}

fn best_times(sample: &Sample) -> Vec<Best> {
    let none = || Best {
        cpu: Duration::MAX,
        wall: Duration::MAX,
    };
    let mut all: Vec<_> = CONTENDERS.iter().map(|_| none()).collect();
    for _ in 0..TURNS {
        for (contender, best) in CONTENDERS.iter().zip(&mut all) {
            let (cpu, wall) = (own_time(), Instant::now());
            black_box((contender.run)(sample));
            best.cpu = best.cpu.min(own_time() - cpu);
            best.wall = best.wall.min(wall.elapsed());
        }
    }
    all
}

/// What this thread has had of a CPU.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
