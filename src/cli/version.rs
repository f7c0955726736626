//! `version`: of this program and of the Kafka client in it.

use serde_json::json;

use super::{CliError, Context};

pub fn version(context: &Context) -> Result<(), CliError> {
    let partita = env!("CARGO_PKG_VERSION");
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    if context.output.is_table() {
        context
            .output
            .line(&format!("partita {partita} (librdkafka {librdkafka})"));
    } else {
        context
            .output
            .document(&json!({"version": partita, "librdkafka": librdkafka}));
    }
    Ok(())
}
