//! The intake of an instance, from its configuration.

use std::sync::Arc;

use super::InstanceError;
use crate::config::Config;
use crate::runtime::DefinitionRegistry;
use crate::runtime::intake::schemas::{KnownSchemas, SchemaSettings};
use crate::runtime::intake::{Intake, IntakeConfig};

/// Where the schemas of events, and of topics that rules join, come from.
pub(super) fn schema_settings(config: &Config) -> SchemaSettings {
    let registry = &config.schema_registry;
    let password = registry.password.as_ref();
    SchemaSettings {
        url: registry.url.clone(),
        username: registry.username.clone(),
        password: password.map(|secret| secret.expose().to_owned()),
        timeout: registry.timeout.duration(),
        files: config.events.schemas.clone(),
    }
}

/// Starts the intake of the instance called `name`, for the rules that `definitions` has in force.
pub(super) fn start(
    config: &Config,
    name: &str,
    definitions: &Arc<dyn DefinitionRegistry>,
) -> Result<Intake, InstanceError> {
    let failed =
        |error: &dyn std::fmt::Display| InstanceError::Start(format!("the intake: {error}"));
    let schemas = KnownSchemas::new(schema_settings(config)).map_err(|error| failed(&error))?;
    let runtime = &config.runtime;
    let settings = IntakeConfig {
        prefix: config.topics.prefix.clone(),
        workers: config.events.workers,
        batch_records: config.events.batch_records,
        batch_bytes: runtime.batch_bytes,
        max_payload_bytes: runtime.max_payload_bytes,
        transaction_timeout: runtime.transaction_timeout.0,
        session_timeout: runtime.session_timeout.0,
        static_membership: runtime.static_membership,
        ..IntakeConfig::new(config.kafka.client_settings(), name)
    };
    Intake::start(&settings, definitions, &(Arc::new(schemas) as _)).map_err(|error| failed(&error))
}
