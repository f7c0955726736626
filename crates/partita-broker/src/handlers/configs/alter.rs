//! AlterConfigs (all settings of a topic at once) and IncrementalAlterConfigs (one by one).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_request::AlterableConfig, incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::resource;
use crate::BrokerInner;
use crate::handlers::create_topics::Refusal;
use crate::handlers::distinct;
use crate::net::RequestContext;
use crate::state::settings::{self, Kind};
use crate::state::{Event, Topic};

/// All settings of a topic that differ from the defaults.
type Configs = BTreeMap<String, String>;

/// The protocol's numbers for what to do with a setting.
mod operation {
    pub(super) const SET: i8 = 0;
    pub(super) const DELETE: i8 = 1;
    pub(super) const APPEND: i8 = 2;
    pub(super) const SUBTRACT: i8 = 3;
}

/// AlterConfigs: what the request does not name goes back to its default.
pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let mut responses = Vec::new();
    for wanted in &request.resources {
        let change = |_: &Topic| replacement(&wanted.configs);
        let target = (wanted.resource_type, wanted.resource_name.as_str());
        let outcome = alter(broker, target, request.validate_only, change).await;
        let mut response = alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        (response.error_code, response.error_message) = present(outcome);
        responses.push(response);
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// IncrementalAlterConfigs: what the request does not name stays as it is.
pub(crate) async fn handle_incremental(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for wanted in &request.resources {
        let change = |topic: &Topic| amended(&topic.configs, &wanted.configs);
        let target = (wanted.resource_type, wanted.resource_name.as_str());
        let outcome = alter(broker, target, request.validate_only, change).await;
        let mut response =
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_resource_type(wanted.resource_type)
                .with_resource_name(wanted.resource_name.clone());
        (response.error_code, response.error_message) = present(outcome);
        responses.push(response);
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn present(outcome: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(()) => (0, None),
        Err((error, message)) => (error.code(), Some(StrBytes::from_string(message))),
    }
}

/// Gives a topic the settings that `change` makes of it.
async fn alter(
    broker: &BrokerInner,
    (resource_type, name): (i8, &str),
    validate_only: bool,
    change: impl FnOnce(&Topic) -> Result<Configs, Refusal>,
) -> Result<(), Refusal> {
    match resource_type {
        resource::TOPIC => {}
        resource::BROKER => {
            let message = "this broker's settings are fixed when it starts".to_owned();
            return Err((ResponseError::InvalidRequest, message));
        }
        other => {
            let message = format!("resources of type {other} have no settings here");
            return Err((ResponseError::InvalidRequest, message));
        }
    }
    let (outcome, durable) = broker.store.write(|writer| {
        let Some(topic) = writer.state().topic(name) else {
            let message = format!("there is no topic '{name}'");
            return Err((ResponseError::UnknownTopicOrPartition, message));
        };
        let configs = change(topic)?;
        if !validate_only && configs != topic.configs {
            let name = name.to_owned();
            writer.emit(Event::TopicConfigured { name, configs });
        }
        Ok(())
    });
    durable
        .wait()
        .await
        .map_err(|error| (ResponseError::KafkaStorageError, error.to_string()))?;
    outcome
}

fn replacement(
    wanted: &[kafka_protocol::messages::alter_configs_request::AlterableConfig],
) -> Result<Configs, Refusal> {
    let mut configs = Configs::new();
    for entry in wanted {
        let value = required(&entry.name, entry.value.as_ref())?;
        checked(&entry.name, value)?;
        if configs
            .insert(entry.name.to_string(), value.to_owned())
            .is_some()
        {
            return Err(named_twice(&entry.name));
        }
    }
    Ok(configs)
}

fn amended(present: &Configs, wanted: &[AlterableConfig]) -> Result<Configs, Refusal> {
    let mut configs = present.clone();
    for (position, entry) in wanted.iter().enumerate() {
        let name = entry.name.as_str();
        if wanted[..position]
            .iter()
            .any(|earlier| *earlier.name == *name)
        {
            return Err(named_twice(name));
        }
        let value = match entry.config_operation {
            operation::DELETE => {
                known(name)?;
                configs.remove(name);
                continue;
            }
            operation::SET => required(name, entry.value.as_ref())?.to_owned(),
            operation::APPEND | operation::SUBTRACT => {
                let words = required(name, entry.value.as_ref())?;
                let is_append = entry.config_operation == operation::APPEND;
                edited_list(name, configs.get(name), words, is_append)?
            }
            other => {
                let message = format!("{other} is not something to do with a setting");
                return Err((ResponseError::InvalidRequest, message));
            }
        };
        checked(name, &value)?;
        configs.insert(name.to_owned(), value);
    }
    Ok(configs)
}

/// The list that a setting has, or has by default, with words put in or taken out.
fn edited_list(
    name: &str,
    present: Option<&String>,
    words: &str,
    is_append: bool,
) -> Result<String, Refusal> {
    let setting = known(name)?;
    if setting.kind != Kind::List {
        let message = format!("'{name}' is not a list: set it as a whole");
        return Err((ResponseError::InvalidConfig, message));
    }
    let split = |text: &str| -> Vec<String> {
        let words = text.split(',').map(|word| word.trim().to_owned());
        words.filter(|word| !word.is_empty()).collect()
    };
    let mut list = split(present.map_or(setting.default, String::as_str));
    if is_append {
        list.extend(split(words));
        list = distinct(list, String::clone);
    } else {
        let gone: HashSet<String> = split(words).into_iter().collect();
        list.retain(|word| !gone.contains(word));
    }
    Ok(list.join(","))
}

fn known(name: &str) -> Result<&'static settings::Setting, Refusal> {
    settings::find(name).ok_or_else(|| {
        let error = settings::SettingError::Unknown(name.to_owned());
        (ResponseError::InvalidConfig, error.to_string())
    })
}

fn checked(name: &str, value: &str) -> Result<(), Refusal> {
    settings::check(name, value).map_err(|error| (ResponseError::InvalidConfig, error.to_string()))
}

fn required<'v>(name: &str, value: Option<&'v StrBytes>) -> Result<&'v str, Refusal> {
    let missing = || {
        let message = format!("the setting '{name}' has no value");
        (ResponseError::InvalidConfig, message)
    };
    value.map(|value| value.as_str()).ok_or_else(missing)
}

fn named_twice(name: &str) -> Refusal {
    let message = format!("the request names the setting '{name}' twice");
    (ResponseError::InvalidRequest, message)
}
