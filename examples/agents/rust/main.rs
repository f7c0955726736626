//! An agent in Rust: `cfo_agent` of the workflow `strategic_planning`.
//!
//! ```text
//! cargo run --example rust_agent -- 127.0.0.1:9092
//! ```
//!
//! It forecasts from what the market analysis found, tells its progress on the way, fails with a
//! class where its inputs are not what it needs, and stops cleanly on Ctrl-C.

use std::time::Duration;

use partita::agent::{Agent, Context, Error, Settings};
use partita::model::{Failure, Json, Task, class};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let brokers = std::env::args()
        .nth(1)
        .or_else(|| std::env::var("KAFKA_BROKERS").ok());
    let settings = Settings::new(brokers.as_deref().unwrap_or("127.0.0.1:9092"));
    let stop = CancellationToken::new();
    let on_interrupt = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });
    Agent::new(settings, "cfo_agent")
        .handler(forecast)
        .concurrency(8)
        .run_until(stop)
        .await
}

/// What the workflow hands over.
#[derive(Deserialize)]
struct Inputs {
    market: Value,
}

async fn forecast(task: Task, context: Context) -> Result<Json, Failure> {
    // Another attempt would find the same inputs: the class lets the workflow decide.
    let wrong = |error: serde_json::Error| {
        Failure::new(
            class::VALIDATION_ERROR,
            format!("nothing to forecast from: {error}"),
        )
    };
    let Inputs { market } = task.inputs.parse().map_err(wrong)?;
    let asked: Value = task.task.parse().map_err(wrong)?;
    for part in 1..=4 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            // The attempt was given up: nobody waits for the rest.
            () = context.cancelled().cancelled() => return Err(Failure::new(class::CANCELLED, "given up")),
        }
        context.progress(Some(f64::from(part) / 4.0), None).await;
    }
    // The same task may come twice after a crash: whatever reaches outside goes by this key.
    tracing::info!(
        task_id = task.task_id,
        attempt = task.attempt,
        "forecast made"
    );
    Ok(Json::from(
        json!({"confidence": 0.82, "period": asked["period"], "based_on": market}),
    ))
}
