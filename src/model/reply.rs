//! What comes in on `replies` (key = run id): an agent's answer to a task.

use serde::Serialize;

use super::{Failure, Json, RunId};

/// One record of `replies`. `run_id`, `step_id` and `status` suffice; `task_id`, `attempt` and
/// `epoch` are checked where they are given. Read by `codec`: serde buffers a tagged value before
/// it knows the status, and a [`Json`] does not survive that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reply {
    pub run_id: RunId,
    pub step_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    #[serde(flatten)]
    pub status: ReplyStatus,
}

/// What the agent says of the attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ReplyStatus {
    Completed {
        output: Json,
    },
    Failed {
        error: Failure,
    },
    /// Renews the heartbeat timeout; `progress` is a fraction of 1.
    Progress {
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Renews the heartbeat timeout and says nothing more.
    Heartbeat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_flat_and_without_what_is_absent() {
        let reply = Reply {
            run_id: RunId::parse("r").expect("a proper id"),
            step_id: "a".to_owned(),
            task_id: None,
            attempt: Some(2),
            epoch: None,
            status: ReplyStatus::Completed {
                output: Json::from_text(r#"{"x": 1}"#).expect("it is JSON"),
            },
        };
        let text = serde_json::to_string(&reply).expect("a reply is JSON");
        let expected =
            r#"{"run_id":"r","step_id":"a","attempt":2,"status":"completed","output":{"x": 1}}"#;
        assert_eq!(text, expected);
    }
}
