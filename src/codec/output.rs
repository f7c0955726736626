//! What goes out, written straight into byte buffers.

use serde::Serialize;

use super::header;
use crate::model::Origin;
use crate::model::{Event, Failure};

/// Appends `value` as JSON.
pub fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("our records serialise");
}

/// Appends a number.
fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the event as a CloudEvent 1.0 in structured JSON.
pub fn event(out: &mut Vec<u8>, event: &Event) {
    let run = event.run.as_str().as_bytes();
    out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
    out.extend_from_slice(run);
    out.push(b'/');
    number(out, event.sequence);
    out.extend_from_slice(br#"","source":"/partita/workflows","type":""#);
    out.extend_from_slice(event.kind.name().as_bytes());
    out.extend_from_slice(br#"","subject":""#);
    out.extend_from_slice(run);
    out.extend_from_slice(br#"","time":""#);
    let mut time = String::with_capacity(24);
    event.time.write(&mut time);
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(br#"","sequence":""#);
    padded_sequence(out, event.sequence);
    out.push(b'"');
    // Which rule it stems from, and over how many of them it came about: by these a rule is kept from
    // what it caused itself.
    if let Some(provenance) = &event.provenance {
        out.extend_from_slice(br#","partitarule":"#);
        json(out, &provenance.rule);
    }
    if event.depth > 0 {
        out.extend_from_slice(br#","partitadepth":"#);
        number(out, event.depth);
    }
    out.extend_from_slice(br#","datacontenttype":"application/json","data":{"workflow":"#);
    json(out, event.workflow.as_ref());
    out.extend_from_slice(br#","version":"#);
    number(out, event.version);
    if let Some((step, attempt)) = &event.step {
        out.extend_from_slice(br#","step_id":""#);
        out.extend_from_slice(step.as_bytes());
        out.extend_from_slice(br#"","attempt":"#);
        number(out, *attempt);
    }
    out.extend_from_slice(br#","status":""#);
    out.extend_from_slice(event.status.as_bytes());
    out.push(b'"');
    if let Some(output) = &event.output {
        out.extend_from_slice(br#","output":"#);
        out.extend_from_slice(output.as_str().as_bytes());
    }
    if let Some(error) = &event.error {
        out.extend_from_slice(br#","error":"#);
        json(out, error);
    }
    if let Some(extra) = &event.extra {
        members(out, extra.as_str());
    }
    out.extend_from_slice(b"}}");
}

/// Appends the members of a JSON object to one that has members already.
fn members(out: &mut Vec<u8>, object: &str) {
    let inner = object
        .trim()
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    if let Some(inner) = inner.map(str::trim).filter(|inner| !inner.is_empty()) {
        out.push(b',');
        out.extend_from_slice(inner.as_bytes());
    }
}

/// Ten digits at least: sorts as text.
fn padded_sequence(out: &mut Vec<u8>, sequence: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(sequence).as_bytes();
    out.extend(std::iter::repeat_n(
        b'0',
        10_usize.saturating_sub(digits.len()),
    ));
    out.extend_from_slice(digits);
}

/// Headers of a dead letter: those of the record, then why. Earlier reasons (of a record that was
/// put back) give way. `notes` are of this kind of letter, such as `("run", id)`: what it is about.
pub fn dead_letter_headers(
    origin: &Origin,
    failure: &Failure,
    stage: &str,
    notes: &[(&str, &str)],
) -> Vec<(String, Vec<u8>)> {
    let is_ours = |name: &str| name.starts_with(header::ERROR_PREFIX) || name == header::REQUEST;
    let mut headers: Vec<(String, Vec<u8>)> = origin
        .headers
        .iter()
        .filter(|(name, _)| !is_ours(name))
        .cloned()
        .collect();
    let mut add = |name: &str, value: &str| {
        headers.push((
            format!("{}{name}", header::ERROR_PREFIX),
            value.as_bytes().to_vec(),
        ));
    };
    add("class", &failure.class);
    add("message", &failure.message);
    add("topic", &origin.topic);
    add("partition", &origin.partition.to_string());
    add("offset", &origin.offset.to_string());
    add("stage", stage);
    for (name, value) in notes {
        add(name, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventKind, Json, RunId, Timestamp};

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = Event {
            run: RunId::parse("r.1").unwrap(),
            sequence: 42,
            time: Timestamp(1_795_219_200_123),
            workflow: "a \"quoted\" name".into(),
            version: 3,
            kind: EventKind::StepCompleted,
            status: "completed",
            step: Some(("s".into(), 2)),
            output: Some(Json::from_text(r#"{"x":1}"#).unwrap()),
            error: Some(Failure::new("c", "m")),
            extra: Some(Json::from_text(r#"{"reason":"r"}"#).unwrap()),
            provenance: None,
            depth: 2,
        };
        let mut out = Vec::new();
        super::event(&mut out, &event);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "specversion": "1.0", "id": "r.1/42", "source": "/partita/workflows",
                "type": "partita.step.completed", "subject": "r.1",
                "time": event.time.to_string(), "sequence": "0000000042",
                "partitadepth": 2,
                "datacontenttype": "application/json",
                "data": {
                    "workflow": "a \"quoted\" name", "version": 3, "step_id": "s", "attempt": 2,
                    "status": "completed", "output": {"x": 1},
                    "error": {"class": "c", "message": "m"}, "reason": "r",
                },
            })
        );
    }
}
