//! The broker by itself: `partita-broker --listen HOST:PORT (--data DIR | --memory)`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use partita_broker::Broker;
use partita_broker::config::{Config, Fsync, Storage};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas and small caches of threads: what a burst leaves behind goes back to the system after
/// half a second. The variable `MALLOC_CONF` overrides each option.
#[used]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8; 85] =
    b"background_thread:true,narenas:2,tcache_max:4096,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// A single-node broker that speaks the Kafka protocol.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 picks a free one, and the chosen address is printed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: String,
    /// Folder to keep everything in; created when missing.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "memory",
        conflicts_with = "memory"
    )]
    data: Option<PathBuf>,
    /// Keep everything in memory, and lose it at the end.
    #[arg(long)]
    memory: bool,
    /// When to force what was written to the disk.
    #[arg(long, value_enum, default_value = "never")]
    fsync: FsyncArgument,
    /// Address to give to clients instead of the one listened on.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    advertise: Option<(String, u16)>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FsyncArgument {
    Never,
    Interval,
    Always,
}

fn parse_address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let port = port
        .parse()
        .map_err(|_| format!("'{port}' is not a port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("partita-broker: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let mut config = match arguments.data {
        Some(folder) => Config::folder(folder),
        None => Config::memory(),
    };
    config.listen = arguments.listen;
    config.advertise = arguments.advertise;
    config.fsync = match arguments.fsync {
        FsyncArgument::Never => Fsync::Never,
        FsyncArgument::Interval => Fsync::Interval,
        FsyncArgument::Always => Fsync::Always,
    };
    if matches!(config.storage, Storage::Memory) {
        tracing::info!("keeping everything in memory");
    }
    let broker = match Broker::start(config).await {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("partita-broker: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", broker.addr());
    wait_for_stop().await;
    tracing::info!("stopping");
    broker.shutdown().await;
    ExitCode::SUCCESS
}

/// Until Ctrl-C or SIGTERM.
async fn wait_for_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
