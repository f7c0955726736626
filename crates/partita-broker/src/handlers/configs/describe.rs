//! DescribeConfigs: each setting's value, where it comes from, and what kind of value it is.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::resource;
use crate::config::{Config, Storage};
use crate::handlers::create_topics::Refusal;
use crate::handlers::distinct;
use crate::net::RequestContext;
use crate::state::Topic;
use crate::state::settings::{Kind, SETTINGS, Setting};
use crate::{BrokerInner, NODE_ID};

/// The protocol's numbers for where a value comes from.
mod source {
    pub(super) const TOPIC: i8 = 1;
    pub(super) const BROKER: i8 = 4;
    pub(super) const DEFAULT: i8 = 5;
}

/// One setting as it stands. `origins` are all the values there are for it, the one that counts first.
struct Entry {
    name: &'static str,
    kind: Kind,
    read_only: bool,
    origins: Vec<(i8, String)>,
    documentation: &'static str,
}

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    mut request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    request.resources = distinct(request.resources, |wanted| {
        (wanted.resource_type, wanted.resource_name.clone())
    });
    let results = request.resources.iter().map(|wanted| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(wanted.resource_type)
            .with_resource_name(wanted.resource_name.clone());
        match entries(broker, wanted) {
            Ok(entries) => {
                let keys = wanted.configuration_keys.as_ref();
                let is_wanted = |entry: &Entry| {
                    keys.is_none_or(|keys| keys.iter().any(|key| **key == *entry.name))
                };
                let wanted = entries.into_iter().filter(is_wanted);
                result.with_configs(
                    wanted
                        .map(|entry| present(version, &request, entry))
                        .collect(),
                )
            }
            Err((error, message)) => result
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn entries(broker: &BrokerInner, wanted: &DescribeConfigsResource) -> Result<Vec<Entry>, Refusal> {
    let name = wanted.resource_name.as_str();
    match wanted.resource_type {
        resource::TOPIC => broker.store.read(|state| match state.topic(name) {
            Some(topic) => Ok(of_topic(&broker.config, topic)),
            None => {
                let message = format!("there is no topic '{name}'");
                Err((ResponseError::UnknownTopicOrPartition, message))
            }
        }),
        // Without a name: what was set for all brokers while they ran, which is nothing.
        resource::BROKER if name.is_empty() => Ok(Vec::new()),
        resource::BROKER if name == NODE_ID.to_string() => Ok(of_broker(broker)),
        resource::BROKER => {
            let message = format!("this is broker {NODE_ID}; there is no broker '{name}'");
            Err((ResponseError::InvalidRequest, message))
        }
        // Nothing can be set for these, hence nothing is.
        resource::CLIENT_METRICS | resource::GROUP => Ok(Vec::new()),
        other => {
            let message = format!("resources of type {other} have no settings here");
            Err((ResponseError::InvalidRequest, message))
        }
    }
}

fn of_topic(config: &Config, topic: &Topic) -> Vec<Entry> {
    let entry = |setting: &'static Setting| {
        let of_topic = topic.configs.get(setting.name).cloned();
        let of_broker = broker_value(config, setting.name);
        let origins = [
            of_topic.map(|value| (source::TOPIC, value)),
            of_broker.map(|value| (source::BROKER, value)),
            Some((source::DEFAULT, setting.default.to_owned())),
        ];
        Entry {
            name: setting.name,
            kind: setting.kind,
            read_only: false,
            origins: origins.into_iter().flatten().collect(),
            documentation: setting.doc,
        }
    };
    SETTINGS.iter().map(entry).collect()
}

/// What the broker's own configuration says instead of a topic setting's default.
fn broker_value(config: &Config, setting: &str) -> Option<String> {
    let default = Config::memory();
    (setting == "max.message.bytes" && config.message_max_bytes != default.message_max_bytes)
        .then(|| config.message_max_bytes.to_string())
}

/// The broker's configuration under the names by which tools know such settings.
fn of_broker(broker: &BrokerInner) -> Vec<Entry> {
    let config = &broker.config;
    let groups = &config.groups;
    let folder = match &config.storage {
        Storage::Memory => String::new(),
        Storage::Folder(path) => path.display().to_string(),
    };
    let address = format!(
        "PLAINTEXT://{}:{}",
        broker.advertised_host, broker.advertised_port
    );
    let rows: [(&'static str, Kind, String, &'static str); 20] = [
        (
            "advertised.listeners",
            Kind::Text,
            address,
            "the address that clients are told",
        ),
        (
            "auto.create.topics.enable",
            Kind::Bool,
            config.auto_create_topics.to_string(),
            "whether asking for an unknown topic creates it",
        ),
        (
            "broker.id",
            Kind::Int,
            NODE_ID.to_string(),
            "the id of this node",
        ),
        (
            "connections.max.idle.ms",
            Kind::Long,
            config.connections_max_idle.as_millis().to_string(),
            "how long a connection may be silent",
        ),
        (
            "default.replication.factor",
            Kind::Int,
            "1".to_owned(),
            "there is one node",
        ),
        (
            "delete.topic.enable",
            Kind::Bool,
            "true".to_owned(),
            "topics can be deleted",
        ),
        (
            "fetch.max.bytes",
            Kind::Int,
            config.fetch_max_bytes.to_string(),
            "most bytes of records in one answer",
        ),
        (
            "group.initial.rebalance.delay.ms",
            Kind::Int,
            groups.initial_rebalance_delay_ms.to_string(),
            "how long the first rebalance of an empty group waits for more members",
        ),
        (
            "group.max.session.timeout.ms",
            Kind::Int,
            groups.max_session_timeout_ms.to_string(),
            "longest session timeout of a member",
        ),
        (
            "group.max.size",
            Kind::Int,
            groups.max_members.to_string(),
            "most members of a group",
        ),
        (
            "group.min.session.timeout.ms",
            Kind::Int,
            groups.min_session_timeout_ms.to_string(),
            "shortest session timeout of a member",
        ),
        (
            "listeners",
            Kind::Text,
            format!("PLAINTEXT://{}", config.listen),
            "the address listened on",
        ),
        (
            "log.dirs",
            Kind::Text,
            folder,
            "the data folder; empty when everything is in memory",
        ),
        (
            "max.connections",
            Kind::Int,
            config.max_connections.to_string(),
            "connections open at once",
        ),
        (
            "message.max.bytes",
            Kind::Int,
            config.message_max_bytes.to_string(),
            "largest batch of records, unless its topic says otherwise",
        ),
        (
            "num.partitions",
            Kind::Int,
            config.default_partitions.to_string(),
            "partitions of a topic that does not say how many",
        ),
        (
            "offset.metadata.max.bytes",
            Kind::Int,
            config.offset_metadata_max_bytes.to_string(),
            "longest text beside a committed offset",
        ),
        (
            "offsets.retention.minutes",
            Kind::Int,
            (config.offsets_retention.as_secs() / 60).to_string(),
            "how long the offsets of a group without members are kept",
        ),
        (
            "socket.request.max.bytes",
            Kind::Int,
            config.max_frame_bytes.to_string(),
            "largest request",
        ),
        (
            "transaction.max.timeout.ms",
            Kind::Int,
            config.max_transaction_timeout.as_millis().to_string(),
            "longest time that a transaction may stay open",
        ),
    ];
    let entry = |(name, kind, value, documentation)| Entry {
        name,
        kind,
        read_only: true,
        origins: vec![(source::BROKER, value)],
        documentation,
    };
    rows.into_iter().map(entry).collect()
}

fn present(
    version: i16,
    request: &DescribeConfigsRequest,
    entry: Entry,
) -> DescribeConfigsResourceResult {
    let (from, value) = entry.origins.first().cloned().unwrap_or_default();
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(Some(StrBytes::from_string(value)))
        .with_read_only(entry.read_only)
        .with_config_source(from);
    if request.include_synonyms {
        let synonyms = entry.origins.into_iter().map(|(from, value)| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(entry.name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_source(from)
        });
        result.synonyms = synonyms.collect();
    }
    if version >= 3 {
        result.config_type = number_of(entry.kind);
        if request.include_documentation {
            result.documentation = Some(StrBytes::from_static_str(entry.documentation));
        }
    }
    result
}

/// The protocol's number for a kind of value.
fn number_of(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Text => 2,
        Kind::Int => 3,
        Kind::Long => 5,
        Kind::Double => 6,
        Kind::List => 7,
    }
}
