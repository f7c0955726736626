//! The command line: one file per verb.
//!
//! [`main`] reads arguments ([`args`]), loads the configuration with the flags as its last layer,
//! sets logs up, runs the verb and turns what came of it into an exit code ([`exit`]). Verbs that
//! ask a server go through [`client`]; everything they print goes through [`output`], so that data
//! is on stdout, in the format asked for, and talk is on stderr.

mod anchored;
pub mod args;
mod client;
mod exit;
mod measure;
mod output;
mod sse;
mod tree;

mod apply;
mod bench;
mod completions;
mod definitions;
mod demo;
mod dev;
mod doctor;
mod history;
mod list;
mod rules;
mod run;
mod serve;
mod status;
mod steer;
mod topics;
mod version;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{self, Config};
use crate::telemetry;
use args::{Arguments, Global, Verb};
pub use exit::CliError;
use output::Output;

/// What every verb gets.
pub struct Context {
    pub config: Config,
    pub output: Output,
    /// Whether somebody named brokers, by flag, environment or file.
    pub kafka_is_named: bool,
}

/// Reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and go to stdout; clap knows.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(exit::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                output::complain(&format!("partita: {text}"));
            }
            ExitCode::from(error.code())
        }
    }
}

fn start(arguments: Arguments) -> Result<(), CliError> {
    let Arguments { global, verb } = arguments;
    let mut overrides = global.overrides();
    overrides.extend(verb.overrides());
    let config = config::load(global.config.as_deref(), std::env::vars(), &overrides)?;
    set_up_logs(&global, &verb, &config)?;
    let output = Output::new(&global);
    let kafka_is_named = global.kafka.is_some()
        || std::env::var_os("KAFKA_BROKERS").is_some()
        || config.kafka != config::KafkaSettings::default();
    let context = Context {
        config,
        output,
        kafka_is_named,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(dispatch(context, verb));
    // Threads of a client library that hang in a call to a broker that is away must not hold the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn dispatch(context: Context, verb: Verb) -> Result<(), CliError> {
    match verb {
        Verb::Demo(args) => demo::demo(&context, &args).await,
        Verb::Bench(args) => bench::bench(&context, &args).await,
        Verb::BenchBareLoop(args) => {
            tokio::task::block_in_place(|| bench::bare_loop(&context, &args))
        }
        Verb::Dev(args) => dev::dev(&context, args).await,
        Verb::Serve(_) => serve::serve(&context).await,
        Verb::Apply(args) => apply::apply(&context, args).await,
        Verb::Validate(args) => apply::validate(&context, args),
        Verb::Doctor => doctor::doctor(&context).await,
        Verb::Topics(args) => topics::topics(&context, args).await,
        Verb::Rules(command) => rules::rules(&context, command).await,
        Verb::Get(args) => definitions::get(&context, args).await,
        Verb::Delete(args) => definitions::delete(&context, args).await,
        Verb::Run(args) => run::run(&context, args).await,
        Verb::Status(args) => status::status(&context, args).await,
        Verb::List(args) => list::list(&context, args).await,
        Verb::History(args) => history::history(&context, args).await,
        Verb::Pause(args) => steer::steer(&context, "pause", args).await,
        Verb::Resume(args) => steer::steer(&context, "resume", args).await,
        Verb::Cancel(args) => steer::steer(&context, "cancel", args).await,
        Verb::Signal(args) => steer::signal(&context, args).await,
        Verb::Completions(args) => completions::completions(args),
        Verb::Version => version::version(&context),
    }
}

/// Verbs that run something log what the configuration says; the others only warnings.
fn set_up_logs(global: &Global, verb: &Verb, config: &Config) -> Result<(), CliError> {
    let filter = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) if verb.runs_an_instance() => config.telemetry.log_level.as_str(),
        (false, 0) => "warn",
        (false, 1) => "info,partita=debug,partita_broker=debug",
        (false, _) => "debug,partita=trace,partita_broker=trace",
    };
    let color = !global.no_color() && std::io::stderr().is_terminal();
    telemetry::init_logs(filter, config.telemetry.log_format, color)
        .map_err(|error| CliError::Usage(error.to_string()))
}
