// SPDX-License-Identifier: MIT OR Apache-2.0

//! `jitctl probe`.

use crate::Status;
use jitfd::{Backend, Fallback, Finding, Probe, Trial};
use serde_json::{Value, json};
use std::io::{self, Write};

#[derive(clap::Args)]
pub struct Arguments {
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, out: &mut dyn Write) -> io::Result<Status> {
    let probe = jitfd::probe();
    if arguments.json {
        writeln!(out, "{:#}", as_json(&probe))?;
    } else {
        print(&probe, out)?;
    }
    Ok(match probe.choice(Fallback::Any) {
        Some(Backend::Kernel) => Status::Good,
        Some(_) => Status::No,
        None => Status::Failed,
    })
}

fn print(probe: &Probe, out: &mut dyn Write) -> io::Result<()> {
    for finding in &probe.findings {
        let (subject, verdict, text) = (finding.subject, verdict(finding), &finding.text);
        writeln!(out, "{subject:<13} {verdict:<11} {text}")?;
    }
    writeln!(out)?;
    for (backend, trial) in &probe.trials {
        writeln!(out, "{backend:<16} {trial}")?;
        for reason in probe.reasons(*backend) {
            let (subject, verdict) = (reason.subject, verdict(reason));
            writeln!(out, "{:<16}   {subject} {verdict} it: {}", "", reason.text)?;
        }
    }
    writeln!(out, "\n{}", conclusion(probe))
}

fn verdict(finding: &Finding) -> &'static str {
    match (finding.backends.is_empty(), finding.certain) {
        (true, _) => "allows",
        (false, true) => "refuses",
        (false, false) => "may refuse",
    }
}

fn conclusion(probe: &Probe) -> String {
    match probe.choice(Fallback::Any) {
        Some(Backend::Kernel) => "programs get their code from /dev/jit".to_owned(),
        Some(other) => {
            format!("there is no way to /dev/jit; programs that ask for a fallback get {other}")
        }
        None if was_tried(probe) => "no program can make code here".to_owned(),
        None => "it is not known whether programs can make code here".to_owned(),
    }
}

fn was_tried(probe: &Probe) -> bool {
    let untried = |(_, trial): &(Backend, Trial)| matches!(trial, Trial::Untried(_));
    !probe.trials.iter().any(untried)
}

fn as_json(probe: &Probe) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "subject": finding.subject,
            "verdict": verdict(finding),
            "backends": finding.backends.iter().map(Backend::to_string).collect::<Vec<_>>(),
            "text": finding.text,
        })
    };
    let trial = |(backend, trial): &(Backend, Trial)| {
        json!({
            "backend": backend.to_string(),
            "works": *trial == Trial::Works,
            "text": trial.to_string(),
        })
    };
    json!({
        "findings": probe.findings.iter().map(finding).collect::<Vec<_>>(),
        "backends": probe.trials.iter().map(trial).collect::<Vec<_>>(),
        "choice": probe.choice(Fallback::Any).map(|one| one.to_string()),
    })
}
