// SPDX-License-Identifier: GPL-2.0

//! What a run has left.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Nanoseconds of one kind of one way, ascending; for each call.
pub struct Times(Vec<f64>);

impl Times {
    /// The value below which this part of all lie.
    fn at(&self, part: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        self.0.get((last as f64 * part).round() as usize).copied()
    }

    /// The median.
    pub fn median(&self) -> Option<f64> {
        self.at(0.5)
    }

    /// The value that one in a hundred exceeds.
    pub fn p99(&self) -> Option<f64> {
        self.at(0.99)
    }
}

/// As many trampolines as there can be.
pub struct Crowd {
    pub made: f64,
    pub stopped_by: String,
    /// Nanoseconds.
    pub setting_up: f64,
    /// Nanoseconds, for each.
    pub making: f64,
    /// Bytes, for each: of the process, its page tables, the kernel.
    pub memory: [f64; 3],
}

/// Instructions, the median: the program's and the kernel's.
pub type Instructions = (f64, f64);

/// All of it.
pub struct Run {
    /// What it was measured on; empty for the guest.
    pub machine: String,
    /// The names, in the order of the run.
    pub ways: Vec<String>,
    times: HashMap<(String, String), Times>,
    crowds: HashMap<String, Crowd>,
    /// How often each way made one.
    pub tries: usize,
    counts: HashMap<(String, String), Instructions>,
}

type Failure = String;

impl Run {
    /// Reads the files.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let rate: f64 = parse(file(folder, "ticks_per_ns")?.trim())?;
        let samples = file(folder, "samples.csv")?;
        let mut ways: Vec<String> = Vec::new();
        let mut times: HashMap<(String, String), Vec<f64>> = HashMap::new();
        for line in samples.lines().skip(1) {
            let [way, kind, _, calls, ticks] = fields(line)?;
            if !ways.iter().any(|known| known == way) {
                ways.push(way.to_owned());
            }
            let each = parse(ticks)? / parse(calls)? / rate;
            let key = (way.to_owned(), kind.to_owned());
            times.entry(key).or_default().push(each);
        }
        let sorted = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            Times(all)
        };
        let (crowds, tries) = crowds(&file(folder, "crowds.csv")?, rate)?;
        Ok(Run {
            machine: file(folder, "machine")?,
            ways,
            tries,
            times: times
                .into_iter()
                .map(|(key, all)| (key, sorted(all)))
                .collect(),
            crowds,
            counts: counts(&file(folder, "counted.csv")?, &file(folder, "counts")?)?,
        })
    }

    /// Samples.
    pub fn times(&self, way: &str, kind: &str) -> Option<&Times> {
        self.times.get(&(way.to_owned(), kind.to_owned()))
    }

    /// Their median.
    pub fn median(&self, way: &str, kind: &str) -> Option<f64> {
        self.times(way, kind)?.median()
    }

    /// What a crowd cost.
    pub fn crowd(&self, way: &str) -> Option<&Crowd> {
        self.crowds.get(way)
    }

    /// Instructions.
    pub fn count(&self, way: &str, kind: &str) -> Option<Instructions> {
        self.counts.get(&(way.to_owned(), kind.to_owned())).copied()
    }
}

fn file(folder: &Path, name: &str) -> Result<String, Failure> {
    fs::read_to_string(folder.join(name)).map_err(|error| format!("{name}: {error}"))
}

fn parse(text: &str) -> Result<f64, Failure> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn fields<const N: usize>(line: &str) -> Result<[&str; N], Failure> {
    let fields: Vec<&str> = line.split(',').collect();
    fields.try_into().map_err(|_| format!("a bad line: {line}"))
}

type Crowds = HashMap<String, Crowd>;

/// Of each way's crowds the one that took the median time; and how many there were.
fn crowds(text: &str, rate: f64) -> Result<(Crowds, usize), Failure> {
    let mut all: HashMap<String, Vec<Crowd>> = HashMap::new();
    for line in text.lines().skip(1) {
        let [
            way,
            made,
            stopped_by,
            setting_up,
            making,
            process,
            tables,
            kernel,
        ] = fields(line)?;
        let made: f64 = parse(made)?;
        let bytes = |kib: &str| parse(kib).map(|kib| kib * 1024.0 / made);
        let crowd = Crowd {
            made,
            stopped_by: stopped_by.to_owned(),
            setting_up: parse(setting_up)? / rate,
            making: parse(making)? / rate / made,
            memory: [bytes(process)?, bytes(tables)?, bytes(kernel)?],
        };
        all.entry(way.to_owned()).or_default().push(crowd);
    }
    let tries = all.values().map(Vec::len).min().unwrap_or(0);
    let median = |mut crowds: Vec<Crowd>| {
        crowds.sort_by(|one, other| one.making.total_cmp(&other.making));
        crowds.swap_remove(crowds.len() / 2)
    };
    let each = all.into_iter().map(|(way, crowds)| (way, median(crowds)));
    Ok((each.collect(), tries))
}

/// The counter writes a line for each pair of marks, in the order of `named`.
fn counts(named: &str, counted: &str) -> Result<HashMap<(String, String), Instructions>, Failure> {
    let (named, counted): (Vec<&str>, Vec<&str>) =
        (named.lines().skip(1).collect(), counted.lines().collect());
    if named.len() != counted.len() {
        let (pairs, lines) = (named.len(), counted.len());
        return Err(format!("{pairs} pairs of marks, {lines} were counted"));
    }
    let mut all: HashMap<(String, String), Vec<Instructions>> = HashMap::new();
    for (name, count) in named.into_iter().zip(counted) {
        let [way, kind] = fields(name)?;
        let (user, kernel) = count.split_once(' ').ok_or("a bad count")?;
        let key = (way.to_owned(), kind.to_owned());
        all.entry(key)
            .or_default()
            .push((parse(user)?, parse(kernel)?));
    }
    let median = |mut all: Vec<Instructions>| {
        all.sort_by(|one, other| (one.0 + one.1).total_cmp(&(other.0 + other.1)));
        all[all.len() / 2]
    };
    Ok(all
        .into_iter()
        .map(|(key, all)| (key, median(all)))
        .collect())
}
