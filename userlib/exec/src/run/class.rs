// SPDX-License-Identifier: MIT OR Apache-2.0

//! What kind of engine a program is, by its requests for executable memory. Nothing here
//! makes a system call.

use std::fmt;
use std::ops::Range;

/// Who makes a request's system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The C library: a library that is loaded before it can stand in for it.
    CLibrary,
    /// The run-time linker, which maps libraries.
    Loader,
    /// The program itself, or another library.
    Other,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// This process's alone, anonymous or a copy of a file.
    Private,
    /// Anonymous, and shared with forked children.
    SharedAnonymous,
    /// A memory file, shared.
    View,
    /// A file on a disk that is mapped as it is: a library, or code from a cache.
    Disk,
}

/// A request for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its addresses.
    pub range: Range<u64>,
    /// Whether writing is asked for.
    pub write: bool,
    /// Whether executing is asked for.
    pub execute: bool,
    /// What it is about.
    pub memory: Memory,
    /// Who makes it.
    pub caller: Caller,
}

/// What one program, with its children, has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests to make written memory executable.
    pub executable: u64,
    /// Requests to make such memory writable again.
    pub writable_again: u64,
    /// Requests for both at once.
    pub both: u64,
    /// Those of them all that are about shared anonymous memory.
    pub shared: u64,
    /// Executable views of memory files.
    pub views: u64,
    /// Those of them all that don't go through the C library.
    pub own_calls: u64,
}

/// Addresses of a process that it has made executable.
#[derive(Clone, Debug, Default)]
pub struct Code(Vec<Range<u64>>);

impl Code {
    /// Notes a range.
    pub fn add(&mut self, range: Range<u64>) {
        if !self.0.contains(&range) {
            self.0.push(range);
        }
    }

    fn has_part_of(&self, range: &Range<u64>) -> bool {
        let overlaps = |code: &Range<u64>| code.start < range.end && range.start < code.end;
        self.0.iter().any(overlaps)
    }
}

impl Tally {
    /// Counts a request of a process that has this code.
    pub fn note(&mut self, request: &Request, code: &mut Code) {
        if request.caller == Caller::Loader || request.memory == Memory::Disk {
            return;
        }
        let counter = match (request.write, request.execute) {
            (true, true) => &mut self.both,
            (false, true) if request.memory == Memory::View => &mut self.views,
            (false, true) => &mut self.executable,
            (true, false) if code.has_part_of(&request.range) => &mut self.writable_again,
            _ => return,
        };
        *counter += 1;
        self.shared += u64::from(request.memory == Memory::SharedAnonymous);
        self.own_calls += u64::from(request.caller == Caller::Other);
        if request.execute && request.memory != Memory::View {
            code.add(request.range.clone());
        }
    }

    /// Whether the program runs with its code in `/dev/jit`, or needs none.
    pub fn is_helped(&self) -> bool {
        self.own_calls == 0
    }

    /// The options of `jitfd-run` that it takes.
    pub fn options(&self) -> String {
        let mut options = String::new();
        let faults = self.both > 0 && self.executable == 0;
        for (is_needed, option) in [(faults, "--faults"), (self.shared > 0, "--unshare")] {
            if is_needed {
                options.push_str(option);
                options.push(' ');
            }
        }
        options
    }

    fn class(&self) -> &'static str {
        if self.views > 0 && self.executable == 0 {
            "two views: a memory file is mapped twice, to write and to execute"
        } else if self.both > 0 && self.executable > 0 {
            "mixed: memory is made executable, and some is asked for both at once"
        } else if self.both > 0 {
            "memory that is writable and executable at once"
        } else if self.writable_again > 0 {
            "flips: memory is made executable, and writable again"
        } else if self.executable > 0 {
            "one-way: memory is made executable once it is written"
        } else {
            "no code: no memory is made executable"
        }
    }

    fn outcome(&self, program: &str) -> String {
        let options = self.options();
        if !self.is_helped() {
            return "jitfd-run can't help: system calls that don't go through the C library \
                    are not seen by its library, and fail under PR_SET_MDWE"
                .into();
        }
        if self.views > 0 && self.executable == 0 {
            return "PR_SET_MDWE permits it as it is, if it takes a refusal of memory for both at \
                    once; its code stays writable by the other view, also under jitfd-run"
                .into();
        }
        if self.both + self.executable > 0 {
            let doubt = match (self.both, self.executable) {
                (0, _) => "",
                (_, 0) => " (experimental; without --faults the requests are refused)",
                _ => {
                    " (requests for both at once are refused; if it does not run without them: \
                      --faults, experimental)"
                }
            };
            return format!("run it by: jitfd-run {options}{program}{doubt}");
        }
        "PR_SET_MDWE (systemd: MemoryDenyWriteExecute=) does not hinder it".into()
    }

    /// The report on a program of this name.
    pub fn report(&self, program: &str) -> String {
        format!("{self}\nclass: {}\n{}", self.class(), self.outcome(program))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "executable={} writable-again={} both={} views={} shared={} own-system-calls={}",
            self.executable,
            self.writable_again,
            self.both,
            self.views,
            self.shared,
            self.own_calls
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(write: bool, execute: bool) -> Request {
        Request {
            range: 0x1000..0x3000,
            write,
            execute,
            memory: Memory::Private,
            caller: Caller::CLibrary,
        }
    }

    fn tally(requests: &[Request]) -> Tally {
        let (mut tally, mut code) = (Tally::default(), Code::default());
        for request in requests {
            tally.note(request, &mut code);
        }
        tally
    }

    #[test]
    fn each_class_is_recognised() {
        let write = request(true, false);
        let execute = request(false, true);
        let class = |requests: &[Request]| {
            let report = tally(requests).report("x");
            let line = report.lines().nth(1).unwrap().to_owned();
            (line, report.lines().nth(2).unwrap().to_owned())
        };
        let (line, outcome) = class(std::slice::from_ref(&write));
        assert!(line.contains("no code") && outcome.contains("does not hinder"));
        let (line, outcome) = class(&[write.clone(), execute.clone()]);
        assert!(line.contains("one-way") && outcome.ends_with("jitfd-run x"));
        let (line, _) = class(&[execute.clone(), write.clone()]);
        assert!(line.contains("flips"));
        let (line, outcome) = class(&[request(true, true)]);
        assert!(line.contains("at once") && outcome.contains("--faults x"));
        // As libffi, which does without.
        let (line, outcome) = class(&[execute.clone(), request(true, true)]);
        assert!(line.contains("mixed") && outcome.contains("jitfd-run x (requests"));
        let view = Request {
            memory: Memory::View,
            ..execute.clone()
        };
        // As Erlang, which tries the other way first.
        let (line, outcome) = class(&[request(true, true), view]);
        assert!(line.contains("two views") && outcome.contains("as it is"));
        let shared = Request {
            memory: Memory::SharedAnonymous,
            ..execute.clone()
        };
        assert!(class(&[shared]).1.ends_with("--unshare x"));
        let own = Request {
            caller: Caller::Other,
            ..execute
        };
        assert!(class(&[own]).1.contains("can't help"));
    }

    #[test]
    fn libraries_are_no_code_of_an_engine() {
        let loader = Request {
            caller: Caller::Loader,
            ..request(false, true)
        };
        let file = Request {
            memory: Memory::Disk,
            ..request(false, true)
        };
        assert_eq!(tally(&[loader, file]), Tally::default());
    }

    #[test]
    fn only_what_was_code_is_made_writable_again() {
        let elsewhere = Request {
            range: 0x3000..0x4000,
            ..request(true, false)
        };
        let execute = request(false, true);
        let counts = tally(&[execute.clone(), elsewhere, request(true, false), execute]);
        assert_eq!((counts.executable, counts.writable_again), (2, 1));
    }
}
