//! `completions`: a script for the user's shell.

use clap::CommandFactory as _;

use super::CliError;
use super::args::{Arguments, CompletionsArgs};

pub fn completions(args: CompletionsArgs) -> Result<(), CliError> {
    clap_complete::generate(
        args.shell,
        &mut Arguments::command(),
        "partita",
        &mut std::io::stdout(),
    );
    Ok(())
}
