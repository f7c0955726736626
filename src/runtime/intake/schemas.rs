//! Schemas of others: Confluent's schema registry, asked by id over HTTP, and files of Avro schemas
//! for single-object encoding, found by fingerprint.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde::Deserialize;

use crate::codec::event::{AvroSchema, NoSchema, Schemas, WriterSchema};

/// Ids that are remembered; one too many, and all are asked for anew.
const MAX_KNOWN: usize = 10_000;

/// Bytes of the registry's answer.
const MAX_ANSWER: usize = 1 << 20;

/// An id that the registry does not know is not asked for again at once: an id may be registered
/// late, but poison comes in numbers.
const FORGET_UNKNOWN_AFTER: Duration = Duration::from_secs(30);

/// A registry that did not answer is left alone for so long, or for [`LEAVE_ALONE_TIMES`] as long as the
/// question took: each question holds up a worker, and all of its partitions.
const LEAVE_ALONE: Duration = Duration::from_millis(200);
const LEAVE_ALONE_TIMES: u32 = 4;

/// Where schemas come from.
#[derive(Clone, Debug)]
pub struct SchemaSettings {
    /// Base URL of the registry; `None`: there is none.
    pub url: Option<String>,
    /// For HTTP basic authentication.
    pub username: Option<String>,
    pub password: Option<String>,
    /// Of one question to the registry.
    pub timeout: Duration,
    /// Avro schemas (`.avsc`) that events in single-object encoding go by.
    pub files: Vec<PathBuf>,
}

impl Default for SchemaSettings {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            timeout: Duration::from_secs(5),
            files: Vec::new(),
        }
    }
}

/// Why schemas cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum SchemaSettingsError {
    #[error("cannot read the schema {file}: {reason}")]
    File { file: PathBuf, reason: String },
    #[error("cannot make a client for the schema registry: {0}")]
    Client(String),
}

/// See the module. One for all workers of an instance.
pub struct KnownSchemas {
    files: HashMap<[u8; 8], Arc<AvroSchema>>,
    registry: Option<Registry>,
}

struct Registry {
    settings: SchemaSettings,
    url: String,
    client: reqwest::Client,
    /// Workers are threads; the client wants a runtime.
    runtime: Mutex<tokio::runtime::Runtime>,
    known: RwLock<HashMap<u32, Known>>,
    /// It did not answer: why, and until when it is left alone.
    away: Mutex<Option<(Instant, String)>>,
}

enum Known {
    Schema(WriterSchema),
    Refused { why: String, at: Instant },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

impl KnownSchemas {
    /// Reads the files; asks the registry nothing yet.
    ///
    /// # Errors
    /// A file that is no schema of a record.
    pub fn new(settings: SchemaSettings) -> Result<Self, SchemaSettingsError> {
        let mut files = HashMap::new();
        for file in &settings.files {
            let failed = |reason: String| SchemaSettingsError::File {
                file: file.clone(),
                reason,
            };
            let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
            let schema = AvroSchema::parse(&text).map_err(|error| failed(error.to_string()))?;
            files.insert(schema.fingerprint(), Arc::new(schema));
        }
        let registry = match settings.url.clone() {
            None => None,
            Some(url) => Some(Registry::new(settings, &url)?),
        };
        Ok(Self { files, registry })
    }
}

impl Schemas for KnownSchemas {
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        match &self.registry {
            Some(registry) => registry.by_id(id),
            None => Err(NoSchema::Refused(format!(
                "the value names schema {id} of a registry, and none is configured \
                 (schema_registry.url)"
            ))),
        }
    }

    fn by_fingerprint(&self, fingerprint: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema> {
        let found = self.files.get(&fingerprint).cloned();
        found.ok_or_else(|| {
            let shown: String = fingerprint
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            NoSchema::Refused(format!(
                "Avro in single-object encoding by a schema with the fingerprint {shown}, which \
                 none of the files of events.schemas has"
            ))
        })
    }
}

impl Registry {
    fn new(settings: SchemaSettings, url: &str) -> Result<Self, SchemaSettingsError> {
        let failed = |error: &dyn std::fmt::Display| SchemaSettingsError::Client(error.to_string());
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            .user_agent(concat!("partita/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            settings,
            client,
            runtime: Mutex::new(runtime),
            known: RwLock::default(),
            away: Mutex::default(),
        })
    }

    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(Known::Schema(schema)) => return Ok(schema.clone()),
            Some(Known::Refused { why, at }) if at.elapsed() < FORGET_UNKNOWN_AFTER => {
                return Err(NoSchema::Refused(why.clone()));
            }
            _ => drop(known),
        }
        let asked = {
            let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
            let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
            let began = Instant::now();
            if let Some((until, why)) = &*away
                && began < *until
            {
                return Err(NoSchema::Unavailable(why.clone()));
            }
            let asked = runtime.block_on(self.ask(id));
            let rest = LEAVE_ALONE.max(began.elapsed() * LEAVE_ALONE_TIMES);
            *away = match &asked {
                Err(NoSchema::Unavailable(why)) => Some((Instant::now() + rest, why.clone())),
                _ => None,
            };
            asked
        };
        let entry = match &asked {
            Ok(schema) => Known::Schema(schema.clone()),
            Err(NoSchema::Refused(why)) => Known::Refused {
                why: why.clone(),
                at: Instant::now(),
            },
            Err(NoSchema::Unavailable(_)) => return asked,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            tracing::warn!(ids = known.len(), "forgetting schemas: too many ids");
            known.clear();
        }
        known.insert(id, entry);
        asked
    }

    async fn ask(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        let url = format!("{}/schemas/ids/{id}", self.url);
        let away = |reason: &dyn std::fmt::Display| {
            NoSchema::Unavailable(format!("the schema registry at {}: {reason}", self.url))
        };
        let refused = |reason: String| NoSchema::Refused(format!("schema {id}: {reason}"));
        let mut request = self.client.get(&url).header(
            "accept",
            "application/vnd.schemaregistry.v1+json, application/json",
        );
        if let Some(username) = &self.settings.username {
            request = request.basic_auth(username, self.settings.password.as_ref());
        }
        let mut response = request.send().await.map_err(|error| away(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(refused("the schema registry does not know it".to_owned()));
            }
            status => return Err(away(&format!("it answers {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| away(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(refused(format!("it has more than {MAX_ANSWER} bytes")));
            }
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| away(&format!("its answer is not understood: {error}")))?;
        if !answer.references.is_empty() {
            return Err(refused(
                "it refers to schemas of other subjects, which is not read yet; register it whole"
                    .to_owned(),
            ));
        }
        match answer.schema_type.as_deref().unwrap_or("AVRO") {
            "AVRO" => AvroSchema::parse(&answer.schema)
                .map(|schema| WriterSchema::Avro(Arc::new(schema)))
                .map_err(|error| refused(error.to_string())),
            "JSON" => Ok(WriterSchema::Json),
            other => Err(refused(format!(
                "it is of type {other}; events are Avro or JSON"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const RECORD: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;

    /// A registry that answers every question alike, and how often it was asked.
    fn answering(status: &'static str, body: String) -> (KnownSchemas, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = [0; 4_096];
                let read = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                assert!(request.starts_with("GET /schemas/ids/5 "), "{request}");
                // "name:word"
                assert!(request.contains("Basic bmFtZTp3b3Jk"), "{request}");
                count.fetch_add(1, Ordering::SeqCst);
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        (known(Some(url)), asked)
    }

    fn known(url: Option<String>) -> KnownSchemas {
        KnownSchemas::new(SchemaSettings {
            url,
            username: Some("name".to_owned()),
            password: Some("word".to_owned()),
            ..SchemaSettings::default()
        })
        .expect("settings that are right")
    }

    fn answer(schema: &str, rest: &str) -> String {
        format!("{{\"schema\":{}{rest}}}", serde_json::Value::from(schema))
    }

    #[test]
    fn a_schema_is_asked_for_once() {
        let (schemas, asked) = answering("200 OK", answer(RECORD, ""));
        for _ in 0..3 {
            let Ok(WriterSchema::Avro(schema)) = schemas.by_id(5) else {
                panic!("no schema");
            };
            assert_eq!(schema.to_json(&[4], 100).expect("a datum"), r#"{"a":2}"#);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let (schemas, _) = answering("200 OK", answer("{}", r#","schemaType":"JSON""#));
        assert!(matches!(schemas.by_id(5), Ok(WriterSchema::Json)));
    }

    #[test]
    fn what_will_never_be_there_is_refused_and_not_asked_for_again() {
        for (status, body, expected) in [
            ("404 Not Found", String::new(), "does not know it"),
            (
                "200 OK",
                answer("x", r#","schemaType":"PROTOBUF""#),
                "of type PROTOBUF",
            ),
            (
                "200 OK",
                answer(RECORD, r#","references":[{"name":"x"}]"#),
                "other subjects",
            ),
            ("200 OK", answer("{", ""), "no Avro schema"),
        ] {
            let (schemas, asked) = answering(status, body);
            for _ in 0..2 {
                match schemas.by_id(5) {
                    Err(NoSchema::Refused(why)) => assert!(why.contains(expected), "{why}"),
                    other => panic!("{expected}: {other:?}"),
                }
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{expected}");
        }
    }

    #[test]
    fn a_registry_that_does_not_answer_is_asked_again() {
        for (status, body, expected) in [
            ("503 Service Unavailable", "", "503"),
            ("401 Unauthorized", "", "401"),
            ("200 OK", "<html>", "not understood"),
        ] {
            let (schemas, asked) = answering(status, body.to_owned());
            let is_away = || match schemas.by_id(5) {
                Err(NoSchema::Unavailable(why)) => assert!(why.contains(expected), "{why}"),
                other => panic!("{expected}: {other:?}"),
            };
            is_away();
            let registry = schemas.registry.as_ref().expect("there is one");
            let far = Instant::now() + Duration::from_secs(1_000);
            registry.away.lock().unwrap().as_mut().expect("noted").0 = far;
            is_away();
            assert_eq!(asked.load(Ordering::SeqCst), 1, "{expected}: left alone");
            registry.away.lock().unwrap().as_mut().expect("noted").0 = Instant::now();
            is_away();
            assert_eq!(asked.load(Ordering::SeqCst), 2, "{expected}");
        }
        let port = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", port.local_addr().expect("an address"));
        drop(port);
        let nobody = known(Some(url)).by_id(5);
        assert!(
            matches!(nobody, Err(NoSchema::Unavailable(_))),
            "{nobody:?}"
        );
    }

    #[test]
    fn without_a_registry_and_without_files_it_says_so() {
        let schemas = known(None);
        for (refused, expected) in [
            (schemas.by_id(1).err(), "schema_registry.url"),
            (schemas.by_fingerprint([0xab; 8]).err(), "abababababababab"),
        ] {
            match refused {
                Some(NoSchema::Refused(why)) => assert!(why.contains(expected), "{why}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
        let settings = SchemaSettings {
            files: vec!["nowhere.avsc".into()],
            ..SchemaSettings::default()
        };
        let error = KnownSchemas::new(settings).err().expect("no such file");
        assert!(error.to_string().contains("nowhere.avsc"), "{error}");
    }
}
