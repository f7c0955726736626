//! Server-sent events as a sequence of (id, data); a stream that breaks is taken up again after
//! the last event seen.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::CliError;
use super::client::Api;

/// How often in a row a broken stream is opened again before that is an error.
const MAX_RETRIES: u32 = 10;

/// Longest line taken, in bytes.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Calls `take` with the data of each event, until it says to stop (`false`), fails, or the server
/// ends the stream after at least one event.
pub async fn follow(
    api: &Api,
    path: &str,
    mut take: impl FnMut(&str) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    let mut last_id: Option<String> = None;
    let mut failures = 0;
    loop {
        let response = match api.stream(path, last_id.as_deref()).await {
            Ok(response) => response,
            Err(CliError::Unreachable(reason)) => {
                failures += 1;
                if failures > MAX_RETRIES || last_id.is_none() {
                    return Err(CliError::Unreachable(reason));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut parser = Parser::default();
        let mut bytes = response.bytes_stream();
        let mut broken = false;
        while let Some(chunk) = bytes.next().await {
            let Ok(chunk) = chunk else {
                broken = true;
                break;
            };
            for event in parser.feed(&chunk)? {
                failures = 0;
                last_id = event.id.or(last_id);
                if !take(&event.data)? {
                    return Ok(());
                }
            }
        }
        if !broken && last_id.is_some() {
            return Ok(());
        }
        failures += 1;
        if failures > MAX_RETRIES {
            return Err(CliError::Unreachable(
                "the server keeps closing the stream of events".to_owned(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[derive(Debug, PartialEq)]
struct Event {
    id: Option<String>,
    data: String,
}

/// Cuts a byte stream into events, however the chunks fall.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR, which ended a line: a LF behind it belongs to it.
    after_cr: bool,
    id: Option<String>,
    data: Option<String>,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Event>, CliError> {
        let mut events = Vec::new();
        for &byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() >= MAX_LINE_BYTES => {
                    return Err(CliError::Failed(
                        "the server sent an event that is too long".to_owned(),
                    ));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// Takes the line that is whole now; an empty one ends an event.
    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = self.data.take()?;
            let id = self.id.take();
            return Some(Event { id, data });
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match (field, &mut self.data) {
            ("id", _) => self.id = Some(value.to_owned()),
            ("data", Some(data)) => {
                data.push('\n');
                data.push_str(value);
            }
            ("data", data) => *data = Some(value.to_owned()),
            // Comments (an empty field) keep proxies awake; event types are in the data too.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_chunks_fall() {
        let text = b": hello\nid: r/1\nevent: x\ndata: {\"a\":\ndata: 1}\n\n\ndata:b\r\n\r\ndata: c\rdata\r\r";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text
                .chunks(size)
                .flat_map(|chunk| parser.feed(chunk).unwrap())
                .collect();
            let expected = [
                Event {
                    id: Some("r/1".to_owned()),
                    data: "{\"a\":\n1}".to_owned(),
                },
                Event {
                    id: None,
                    data: "b".to_owned(),
                },
                Event {
                    id: None,
                    data: "c\n".to_owned(),
                },
            ];
            assert_eq!(events, expected, "chunks of {size}");
        }
    }
}
