// SPDX-License-Identifier: GPL-2.0

//! Everything that was measured, in files of comma-separated values.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The files of a run.
pub struct Record {
    folder: PathBuf,
    samples: BufWriter<File>,
    crowds: String,
    counted: String,
    rate: f64,
    machine: String,
}

impl Record {
    /// New files in `folder`.
    pub fn create(folder: &Path) -> Result<Self, String> {
        let path = folder.join("samples.csv");
        let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut record = Record {
            folder: folder.to_owned(),
            samples: BufWriter::new(file),
            crowds: "way,made,stopped_by,setting_up,making,process_kib,tables_kib,kernel_kib\n"
                .to_owned(),
            counted: "way,kind\n".to_owned(),
            rate: 0.0,
            machine: String::new(),
        };
        record.line(format_args!("way,kind,round,calls,ticks"))?;
        Ok(record)
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), String> {
        writeln!(self.samples, "{line}").map_err(|error| format!("samples: {error}"))
    }

    /// `calls` calls, or creations, took `ticks`.
    pub fn sample(
        &mut self,
        way: &str,
        kind: &str,
        round: usize,
        calls: usize,
        ticks: u64,
    ) -> Result<(), String> {
        self.line(format_args!("{way},{kind},{round},{calls},{ticks}"))
    }

    /// What a crowd said.
    pub fn crowd(&mut self, line: &str) {
        self.crowds += line;
        self.crowds += "\n";
    }

    /// What comes next between the marks.
    pub fn counted(&mut self, way: &str, kind: &str) {
        self.counted += &format!("{way},{kind}\n");
    }

    /// Ticks to a nanosecond.
    pub fn rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// What it was measured on, if not in the guest.
    pub fn machine(&mut self, name: String) {
        self.machine = name;
    }

    /// Writes what is not written yet.
    pub fn finish(&mut self) -> Result<(), String> {
        self.samples.flush().map_err(|error| error.to_string())?;
        let rate = format!("{}\n", self.rate);
        let files = [
            ("crowds.csv", &self.crowds),
            ("counted.csv", &self.counted),
            ("ticks_per_ns", &rate),
            ("machine", &self.machine),
            // The counter's lines come later, if there is one.
            ("counts", &String::new()),
        ];
        for (name, text) in files {
            fs::write(self.folder.join(name), text).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}
