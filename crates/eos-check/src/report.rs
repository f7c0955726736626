//! The lines of the checklist, and whether any of them was a failure.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// Prints verdicts as they come and remembers the failures.
pub struct Report {
    failures: usize,
    step_began: Instant,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            failures: 0,
            step_began: Instant::now(),
        }
    }
}

impl Report {
    /// One line of the checklist.
    pub fn verdict(&mut self, name: &str, passed: bool, detail: &str) {
        println!(
            "[{}] {name}: {detail}",
            if passed { "PASS" } else { "FAIL" }
        );
        self.failures += usize::from(!passed);
    }

    /// The end of a group of checks, `outcome` being an error where it could not be carried
    /// through; its time counts from the end of the group before.
    pub fn step(&mut self, name: &str, outcome: Result<()>) {
        let seconds = self.step_began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("  -- {name} done in {seconds:.2}s"),
            Err(error) => self.verdict(
                name,
                false,
                &format!("error after {seconds:.1}s: {error:#}"),
            ),
        }
        self.step_began = Instant::now();
    }

    pub fn exit_code(&self) -> ExitCode {
        if self.failures == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}
