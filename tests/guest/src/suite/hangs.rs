// SPDX-License-Identifier: GPL-2.0
//! Of the harness itself: what hangs is ended, what goes on is not.

use std::thread;
use std::time::Duration;

use super::harness::{Test, Verdict, run_one, tests};
use super::outcome::{Outcome, failed, holds};
use super::patience::Patience;

pub fn tests() -> Vec<Test> {
    tests![
        a_test_that_hangs_is_ended,
        what_goes_on_is_no_stall,
        what_stands_still_is_a_stall,
    ]
}

const SHORT: Duration = Duration::from_millis(20);

fn a_test_that_hangs_is_ended() -> Outcome {
    let hangs = || loop {
        thread::park();
    };
    match run_one(&Test::new("hangs", hangs).within(SHORT)) {
        Verdict::Failed(why) if why.starts_with("still running") => Ok(()),
        _ => failed("it was not ended, or for another reason"),
    }
}

fn what_goes_on_is_no_stall() -> Outcome {
    let mut patience = Patience::of(SHORT);
    for number in 0..5 {
        thread::sleep(SHORT);
        holds(!patience.is_over(number), "taken for a stall")?;
    }
    Ok(())
}

fn what_stands_still_is_a_stall() -> Outcome {
    let mut patience = Patience::of(SHORT);
    while !patience.is_over(7) {}
    Ok(())
}
