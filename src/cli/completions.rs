//! `completions`: a script for the user's shell.

use clap::CommandFactory as _;

use super::CliError;
use super::args::{Arguments, CompletionsArgs};
use super::output::write_out;

pub fn completions(args: CompletionsArgs) -> Result<(), CliError> {
    // Made whole first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Arguments::command(),
        "partita",
        &mut script,
    );
    write_out(&String::from_utf8_lossy(&script));
    Ok(())
}
