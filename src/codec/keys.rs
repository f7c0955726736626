//! Keys of the changelog and of the store: `run/<id>`, `run/<id>/value/<number>` and
//! `parked/<run>/<offset>`. Run ids hold no slash.

use crate::model::ParkedKey;
use crate::model::RunId;

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntryKey {
    Run(RunId),
    Value(RunId, u32),
    Parked(ParkedKey),
}

impl EntryKey {
    /// Appends the key's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            EntryKey::Run(run) => write_run(out, run),
            EntryKey::Value(run, slot) => write_value(out, run, *slot),
            EntryKey::Parked(parked) => {
                out.extend_from_slice(b"parked/");
                out.extend_from_slice(parked.run.as_str().as_bytes());
                out.push(b'/');
                out.extend_from_slice(itoa::Buffer::new().format(parked.offset).as_bytes());
            }
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        out
    }

    /// Reads a key; `None` where it is none of ours.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (kind, rest) = text.split_once('/')?;
        match (kind, rest.split_once('/')) {
            ("run", None) => Some(EntryKey::Run(RunId::parse(rest).ok()?)),
            ("run", Some((run, value))) => {
                let slot = value.strip_prefix("value/")?.parse().ok()?;
                Some(EntryKey::Value(RunId::parse(run).ok()?, slot))
            }
            ("parked", Some((run, offset))) => {
                let run = RunId::parse(run).ok()?;
                Some(EntryKey::Parked(ParkedKey {
                    run,
                    offset: offset.parse().ok()?,
                }))
            }
            _ => None,
        }
    }
}

pub fn write_run(out: &mut Vec<u8>, run: &RunId) {
    out.extend_from_slice(b"run/");
    out.extend_from_slice(run.as_str().as_bytes());
}

pub fn write_value(out: &mut Vec<u8>, run: &RunId, slot: u32) {
    write_run(out, run);
    out.extend_from_slice(b"/value/");
    out.extend_from_slice(itoa::Buffer::new().format(slot).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back() {
        let run = RunId::parse("a.b~c").unwrap();
        for key in [
            EntryKey::Run(run.clone()),
            EntryKey::Value(run.clone(), 17),
            EntryKey::Parked(ParkedKey {
                run,
                offset: 9_000_000_000,
            }),
        ] {
            assert_eq!(EntryKey::parse(&key.to_bytes()), Some(key));
        }
        for other in [
            "run/",
            "run/a/b",
            "timer/a",
            "run/a/value/x",
            "parked/a",
            "",
        ] {
            assert_eq!(EntryKey::parse(other.as_bytes()), None, "{other}");
        }
    }
}
