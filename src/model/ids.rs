//! Identifiers: of runs and signals (chosen by callers) and of tasks (made by us, opaque to
//! agents).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A run's id: 1 to 256 of `A–Z a–z 0–9 - . _ ~` and neither `.` nor `..`, so that it stands in the path of a
/// URL as it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Arc<str>);

/// Why a text is no run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a run id: {}", why_not(.text))]
pub struct InvalidRunId {
    /// What was given, cut to 300 characters.
    pub text: String,
}

/// What the path of a URL takes for a way and not for a name, however it is escaped.
const WAYS: [&str; 2] = [".", ".."];

fn why_not(text: &str) -> &'static str {
    match WAYS.contains(&text) {
        true => "in the path of a URL it is a way, not a name, so nothing would reach the run",
        false => "1 to 256 characters of A-Z a-z 0-9 - . _ ~ are allowed",
    }
}

impl RunId {
    pub const MAX_LEN: usize = 256;

    pub fn parse(text: &str) -> Result<Self, InvalidRunId> {
        if !is_plain(text, Self::MAX_LEN) || WAYS.contains(&text) {
            return Err(InvalidRunId {
                text: text.chars().take(300).collect(),
            });
        }
        Ok(Self(Arc::from(text)))
    }
}

/// 1 to `max_len` of `A–Z a–z 0–9 - . _ ~`.
fn is_plain(text: &str, max_len: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !text.is_empty() && text.len() <= max_len && text.bytes().all(allowed)
}

impl std::borrow::Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a signal is called: 1 to 200 of `A–Z a–z 0–9 - . _ ~`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignalName(Arc<str>);

/// By which a signal that is sent again is known: 1 to 256 of `A–Z a–z 0–9 - . _ ~`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignalId(Arc<str>);

/// Why a text is no name or id of a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no {what} of a signal: 1 to {max_len} characters of A-Z a-z 0-9 - . _ ~ are allowed"
)]
pub struct InvalidSignal {
    /// `name` or `id`.
    pub what: &'static str,
    /// What was given, cut to 300 characters.
    pub text: String,
    pub max_len: usize,
}

impl InvalidSignal {
    fn check(what: &'static str, text: &str, max_len: usize) -> Result<Arc<str>, Self> {
        match is_plain(text, max_len) {
            true => Ok(Arc::from(text)),
            false => Err(Self {
                what,
                text: text.chars().take(300).collect(),
                max_len,
            }),
        }
    }
}

impl SignalName {
    pub const MAX_LEN: usize = 200;

    pub fn parse(text: &str) -> Result<Self, InvalidSignal> {
        InvalidSignal::check("name", text, Self::MAX_LEN).map(Self)
    }
}

impl SignalId {
    pub const MAX_LEN: usize = 256;

    pub fn parse(text: &str) -> Result<Self, InvalidSignal> {
        InvalidSignal::check("id", text, Self::MAX_LEN).map(Self)
    }
}

/// What a checked text is besides: written as it is, and checked when it is read.
macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_of!(RunId, SignalName, SignalId);

/// What one attempt of one step is called: `<run>.<step>.<epoch>.<attempt>`. The same for every
/// delivery of that attempt, so it is the agent's idempotency key; safe in a URL as it is.
/// Step ids hold no dot and the last two parts are numbers, so reading it from the right is
/// unambiguous whatever the run is called.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TaskId {
    pub run: RunId,
    pub step: String,
    /// Raised by each rollback of the run; from 0.
    pub epoch: u32,
    /// From 1.
    pub attempt: u32,
}

impl TaskId {
    /// Reads a task id from the right; `None` where it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(4, '.');
        // One spelling alone: whoever is asked for the task knows it by its text.
        let number = |text: &str| {
            let is_spelt = text == "0" || text.starts_with(|first| matches!(first, '1'..='9'));
            text.parse().ok().filter(|_| is_spelt)
        };
        let attempt = number(parts.next()?)?;
        let epoch = number(parts.next()?)?;
        let step = parts.next()?.to_owned();
        let run = RunId::parse(parts.next()?).ok()?;
        Some(Self {
            run,
            step,
            epoch,
            attempt,
        })
    }

    /// Appends `<run>.<step>.<epoch>.<attempt>`.
    pub fn write(out: &mut String, run: &RunId, step: &str, epoch: u32, attempt: u32) {
        let mut digits = itoa::Buffer::new();
        out.push_str(run.as_str());
        out.push('.');
        out.push_str(step);
        out.push('.');
        out.push_str(digits.format(epoch));
        out.push('.');
        out.push_str(digits.format(attempt));
    }
}

/// As its text.
impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}.{}",
            self.run, self.step, self.epoch, self.attempt
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_reads_back_whatever_the_run_is_called() {
        for run in ["a", "a.b.1.2", "x~y_z-", "1.1.1.1"] {
            let id = TaskId {
                run: RunId::parse(run).unwrap(),
                step: "step_1".into(),
                epoch: 3,
                attempt: 12,
            };
            assert_eq!(TaskId::parse(&id.to_string()), Some(id));
        }
        assert_eq!(TaskId::parse("a.b.c"), None);
        for wrong in [
            "r.s.0.x", "r.s.+0.1", "r.s.0.+1", "r.s.00.1", "r.s.0.01", "r.s.0.",
        ] {
            assert_eq!(TaskId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn run_ids_are_checked() {
        assert!(RunId::parse("").is_err());
        assert!(RunId::parse("a/b").is_err());
        assert!(RunId::parse(&"x".repeat(257)).is_err());
        assert!(RunId::parse(&"x".repeat(256)).is_ok());
        assert!(RunId::parse("...").is_ok() && RunId::parse(".a").is_ok());
        for way in [".", ".."] {
            let error = RunId::parse(way).unwrap_err().to_string();
            assert!(error.contains("in the path of a URL"), "{error}");
        }
    }

    #[test]
    fn names_and_ids_of_signals_are_checked() {
        for wrong in ["", "two words", "é"] {
            assert!(SignalName::parse(wrong).is_err() && SignalId::parse(wrong).is_err());
        }
        assert!(SignalName::parse(&"x".repeat(200)).is_ok());
        let error = SignalName::parse(&"x".repeat(201)).unwrap_err();
        assert!(error.to_string().ends_with(
            "is no name of a signal: 1 to 200 characters of A-Z a-z 0-9 - . _ ~ are allowed"
        ));
        assert!(SignalId::parse(&"x".repeat(256)).is_ok());
    }
}
