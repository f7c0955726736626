//! Verbs and flags, as `--help` shows them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::shape::Shape;
use crate::config::{Override, Span};

/// Kafka-native orchestrator for agent and microservice workflows.
#[derive(Debug, Parser)]
#[command(
    name = "partita",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Configuration file; without it config/partita.yaml is read if it is there.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kafka brokers [env: KAFKA_BROKERS].
    #[arg(long, global = true, value_name = "HOST:PORT[,…]")]
    pub kafka: Option<String>,
    /// API of a running instance [env: PARTITA_API] [default: http://127.0.0.1:8080].
    #[arg(long, global = true, value_name = "URL")]
    pub api: Option<String>,
    /// Prefix of all topics; two prefixes on one cluster are two installations [default: partita.].
    #[arg(long, global = true, value_name = "P")]
    pub prefix: Option<String>,
    /// Format of what goes to stdout [default: table].
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        conflicts_with = "json"
    )]
    pub output: Option<OutputFormat>,
    /// The same as -o json.
    #[arg(long, global = true)]
    pub json: bool,
    /// No colours [env: NO_COLOR].
    #[arg(long = "no-color", global = true)]
    pub plain: bool,
    /// More log lines; twice for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Only errors in the log, and no progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Global {
    pub fn no_color(&self) -> bool {
        self.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
    }

    pub fn format(&self) -> OutputFormat {
        if self.json {
            OutputFormat::Json
        } else {
            self.output.unwrap_or_default()
        }
    }

    pub fn overrides(&self) -> Vec<Override> {
        let flags = [
            ("kafka.brokers", "--kafka", &self.kafka),
            ("client.api", "--api", &self.api),
            ("topics.prefix", "--prefix", &self.prefix),
        ];
        let given = |(path, flag, value): (_, _, &Option<String>)| {
            Some(Override::new(path, flag, value.clone()?))
        };
        flags.into_iter().filter_map(given).collect()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Table,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The first look: a broker of its own, the examples, agents, a few hundred runs, a summary.
    Demo(DemoArgs),
    /// A broker of its own and one instance, for work on definitions and agents.
    Dev(DevArgs),
    /// One instance against Kafka, until it is stopped.
    Serve(ServeArgs),
    /// Create, check or list the topics of the installation.
    Topics(TopicsArgs),
    /// Show definitions.
    Get(GetArgs),
    /// Remove one version of a definition.
    Delete(DeleteArgs),
    /// Check definitions without a server.
    Validate(ValidateArgs),
    /// Put definitions into force: files, or folders of them.
    Apply(ApplyArgs),
    /// Try rules without a server.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Start a run.
    Run(RunArgs),
    /// Show one run with its steps.
    Status(StatusArgs),
    /// List runs, newest first.
    List(ListArgs),
    /// Show the events of a run.
    History(HistoryArgs),
    /// Hold runs: nothing more is dispatched, replies are recorded.
    Pause(SteerArgs),
    /// Let paused runs go on.
    Resume(SteerArgs),
    /// End runs now.
    Cancel(SteerArgs),
    /// Send a named signal to a run.
    Signal(SignalArgs),
    /// Measure the engine on a broker, and that broker's own ceiling beside it.
    Bench(BenchArgs),
    /// The ceiling's process; `bench` starts it.
    #[command(hide = true)]
    BenchBareLoop(BareLoopArgs),
    /// Check configuration, broker, topics, API and data folder.
    Doctor,
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the version.
    Version,
}

impl Verb {
    /// Whether the verb starts workers, so that its log is worth reading.
    pub fn runs_an_instance(&self) -> bool {
        matches!(self, Verb::Dev(_) | Verb::Serve(_))
    }

    /// What flags of the verb itself say about the configuration.
    pub fn overrides(&self) -> Vec<Override> {
        let set =
            |path, flag, value: Option<serde_json::Value>| Some(Override::new(path, flag, value?));
        let given = match self {
            Verb::Topics(args) => vec![
                set(
                    "topics.partitions",
                    "--partitions",
                    args.partitions.map(Into::into),
                ),
                set(
                    "topics.replication_factor",
                    "--replication-factor",
                    args.replication_factor.map(Into::into),
                ),
            ],
            Verb::Serve(args) => vec![
                set("http.listen", "--http", args.http.clone().map(Into::into)),
                set(
                    "store.data_dir",
                    "--data",
                    args.data
                        .as_ref()
                        .map(|path| path.display().to_string().into()),
                ),
                set("runtime.workers", "--workers", args.workers.map(Into::into)),
            ],
            _ => Vec::new(),
        };
        given.into_iter().flatten().collect()
    }
}

#[derive(Debug, Args)]
pub struct DevArgs {
    /// Folder of the broker's log and the state, kept between starts [default: partita-data].
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub data: Option<PathBuf>,
    /// Keep nothing: everything is gone at the end.
    #[arg(long)]
    pub memory: bool,
    /// Port of the broker; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    pub kafka_port: u16,
    /// Port of the API; 0 picks a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,
    /// Definitions to apply, and to apply again when they change.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub load: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Smaller runs beside the one of strategic_planning.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Stay up after the summary, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub of: Option<BenchCommand>,
    /// Runs of the saturation measurement.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = positive)]
    pub runs: usize,
    /// Steps of each run.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    pub steps: usize,
    /// Runs a second of the latency measurement.
    #[arg(long, value_name = "R", default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// How the steps depend on one another.
    #[arg(long, value_enum, default_value_t)]
    pub shape: Shape,
    /// Runs of the memory measurement.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = positive)]
    pub waiting: usize,
    /// Threads of the engine that move runs on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub workers: usize,
    /// What the agent reads: tasks of transactions that have committed, or those of open ones too.
    #[arg(long, value_enum, default_value_t)]
    pub agent_isolation: Isolation,
}

/// `isolation.level` of a consumer, by Kafka's own names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Isolation {
    #[default]
    #[value(name = "read_committed")]
    ReadCommitted,
    #[value(name = "read_uncommitted")]
    ReadUncommitted,
}

impl Isolation {
    pub fn name(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure events of a topic through the intake and the patterns.
    Patterns(EventsArgs),
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Events in the topic.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = positive)]
    pub events: usize,
    /// Events that the rules want, of a thousand; the rest of them nobody wants.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub wanted: u32,
    /// Further rules that ask for types of events which never come.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub other_rules: usize,
}

#[derive(Clone, Debug, Args)]
pub struct BareLoopArgs {
    #[arg(long)]
    pub workers: usize,
    #[arg(long)]
    pub steps: usize,
    #[arg(long)]
    pub events_per_input: f64,
    #[arg(long)]
    pub states_per_input: f64,
    #[arg(long)]
    pub event_bytes: usize,
    #[arg(long)]
    pub state_bytes: usize,
    #[arg(long)]
    pub task_bytes: usize,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address of the API; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<String>,
    /// Folder of the local cache of state [default: partita-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Threads that move runs on [default: 2].
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
}

#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    pub action: TopicsAction,
    /// Partitions of the topics that are partitioned by run.
    #[arg(long, global = true, value_name = "N")]
    pub partitions: Option<u32>,
    /// Copies of each partition.
    #[arg(long, global = true, value_name = "N")]
    pub replication_factor: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum TopicsAction {
    /// Create those that are missing; those that are there stay as they are.
    Create,
    /// Compare the cluster with topics.yaml; exit code 1 where they differ.
    Check,
    /// Show them as the cluster has them.
    List,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Files, or folders of *.yaml, *.yml and *.json.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Run the rules of a file over a file of events and show the matches; starts nothing.
    Test(RulesTestArgs),
    /// Run rules over what lies in their topics and show the matches; starts nothing.
    Backtest(RulesBacktestArgs),
    /// Show what the rules in force have done and hold, over all instances.
    Stats(RulesStatsArgs),
}

#[derive(Debug, Args)]
pub struct RulesTestArgs {
    /// Definitions of kind `rule`.
    #[arg(value_name = "RULE.yaml")]
    pub rule: PathBuf,
    /// One JSON record a line, as `kcat -J` writes them, or one event a line where the rule reads
    /// one topic.
    #[arg(long, value_name = "FILE.jsonl")]
    pub events: PathBuf,
    /// Where event time moves after the last line, as RFC 3339 or milliseconds since 1970
    /// [default: the end of all windows].
    #[arg(long, value_name = "TIME")]
    pub advance_to: Option<String>,
    /// Other versions of the rules, by name: also show in what these find something else.
    #[arg(long, value_name = "OTHER.yaml")]
    pub against: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RulesBacktestArgs {
    /// A file of definitions, or a rule that is applied.
    #[arg(value_name = "RULE.yaml|NAME[@VERSION]")]
    pub rule: String,
    /// Where to begin: a time in RFC 3339 or in milliseconds since 1970, a span back from now such as
    /// -1h, or earliest.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: String,
    /// Where to end, in the same words, or latest.
    #[arg(
        long,
        value_name = "T",
        allow_hyphen_values = true,
        default_value = "latest"
    )]
    pub to: String,
    /// Other versions of the rules, by name: also show in what these find something else.
    #[arg(long, value_name = "RULE.yaml|NAME[@VERSION]")]
    pub against: Option<String>,
    /// Where event time moves after the last record, as RFC 3339 or milliseconds since 1970
    /// [default: the end of all windows].
    #[arg(long, value_name = "TIME")]
    pub advance_to: Option<String>,
    /// Matches of each rule that are shown; all are counted.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub limit_matches: usize,
}

#[derive(Debug, Args)]
pub struct RulesStatsArgs {
    /// Only this rule, or this version of it.
    #[arg(value_name = "NAME[@VERSION]")]
    pub rule: Option<String>,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Files, or folders of *.yaml, *.yml and *.json.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Say what would change and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Kind: workflow or rule.
    pub kind: String,
    /// NAME, for all its versions' newest, or NAME@VERSION.
    #[arg(value_name = "NAME[@VERSION]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kind: workflow or rule.
    pub kind: String,
    #[arg(value_name = "NAME@VERSION")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Workflow, and its version where it is not the highest.
    #[arg(value_name = "WORKFLOW[@VERSION]")]
    pub workflow: String,
    /// Id of the run; the same start twice is one run. Without it one is made.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Input: JSON, @FILE or - for stdin.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub input: Option<String>,
    /// A tag to find the run by; may be repeated.
    #[arg(long = "tag", value_name = "K=V", value_parser = key_value)]
    pub tags: Vec<(String, String)>,
    /// Higher starts earlier where runs queue.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub priority: Option<i32>,
    /// Wait for the end; exit code 1 where the run fails, is cancelled, or is still going after
    /// DURATION.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "365d", value_parser = span, conflicts_with = "watch")]
    pub wait: Option<Span>,
    /// Show the run's events until its end; exit codes as with --wait.
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only runs of this workflow.
    #[arg(long, value_name = "W")]
    pub workflow: Option<String>,
    /// Only runs with this status.
    #[arg(long, value_name = "S", value_parser = ["pending", "running", "paused", "completed", "failed", "cancelled"])]
    pub status: Option<String>,
    /// Only runs with this tag; may be repeated, all must match.
    #[arg(long = "tag", value_name = "K=V", value_parser = key_value)]
    pub tags: Vec<(String, String)>,
    /// Only runs that a rule started by a match which holds this record.
    #[arg(long, value_name = "TOPIC/PARTITION/OFFSET")]
    pub record: Option<String>,
    /// Only runs created since: a time in RFC 3339, or a span back from now such as 1h.
    #[arg(long, value_name = "T", value_parser = point_in_time)]
    pub since: Option<String>,
    /// At most so many, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Go on after an earlier list.
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[arg(value_name = "ID")]
    pub id: String,
    /// Go on with new events until the run ends.
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct SteerArgs {
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Why, for the history.
    #[arg(long, value_name = "R")]
    pub reason: Option<String>,
}

#[derive(Debug, Args)]
pub struct SignalArgs {
    #[arg(value_name = "ID")]
    pub id: String,
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Data of the signal: JSON, @FILE or - for stdin.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub data: Option<String>,
    /// Sent again with the same id, it is the same signal and is taken once.
    #[arg(long, value_name = "ID")]
    pub signal_id: Option<String>,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "write a whole number from 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0".to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text)
        .ok_or_else(|| "write a number and a unit, such as 500ms, 30s or 5m".to_owned())
}

fn point_in_time(text: &str) -> Result<String, String> {
    use crate::clock::{Clock, SystemClock};
    use crate::model::Timestamp;
    if let Some(span) = Span::parse(text) {
        return Ok((SystemClock.now() - span.0).to_string());
    }
    let time = Timestamp::parse(text)
        .ok_or("write a time such as 2026-01-31T12:00:00Z, or a span back from now such as 1h")?;
    Ok(time.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wait_takes_a_duration_or_none() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().verb;
        let Verb::Run(args) = parse("partita run w --wait") else {
            panic!()
        };
        assert_eq!(args.wait, Some(Span::days(365)));
        let Verb::Run(args) = parse("partita run w@2 --wait 30s --tag a=b=c") else {
            panic!()
        };
        assert_eq!(args.wait, Some(Span::seconds(30)));
        assert_eq!(args.tags, [("a".to_owned(), "b=c".to_owned())]);
        assert!(Arguments::try_parse_from(["partita", "run", "w", "--wait", "soon"]).is_err());
    }
}
