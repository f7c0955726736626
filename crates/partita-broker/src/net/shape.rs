//! The shapes of all requests, to check a body before it is decoded.
//!
//! The decoder reserves memory for as many elements as an array announces, before it has seen one: a frame of twenty
//! bytes can ask for hundreds of gigabytes. So the lengths are checked first, against the bytes that are there.
//!
//! A shape is a sequence of fields: `b`, `h`, `i`, `l`, `u` are of 1, 2, 4, 8 and 16 bytes; `s` a string, `y` bytes;
//! `[x]` an array of single fields and `(x y)` an array of structures; `<n x>` a field with tag `n`, and `{x y}` a
//! structure in such a field; `?{x y}` a structure that may be absent. `3+`, `0-3` after a field are the versions that have it.

use std::sync::LazyLock;

use kafka_protocol::messages::ApiKey;

/// Why a body cannot be what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("it ends in the middle of a field")]
    Short,
    #[error("a field announces {announced} bytes or elements, and {left} bytes are left")]
    Length { announced: u64, left: usize },
    #[error("a tagged field is not as long as it says")]
    Tag,
    #[error("a number is encoded in too many bytes")]
    Number,
    #[error("it has more than {MAX_ELEMENTS} elements")]
    Elements,
}

/// Elements of all arrays of a request together. An element of a byte or two in a frame becomes a hundred in memory:
/// without this, the largest frame would take gigabytes. Requests of all partitions of a broker have far fewer.
const MAX_ELEMENTS: u64 = 1_000_000;

#[rustfmt::skip]
const SHAPES: &[(ApiKey, &str)] = &[
    (ApiKey::Produce, "s h i (s0-12 u13+ (i y))"),
    (ApiKey::Fetch, "i0-14 i i i b i7+ i7+ (s0-12 u13+ (i i9+ l i12+ l5+ i <0 u> <1 l>)) (s0-12 u13+ [i])7+ s11+ <0 s> <1 {i l}>"),
    (ApiKey::ListOffsets, "i b2+ (s (i i4+ l)) i10+"),
    (ApiKey::Metadata, "(u10+ s) b4+ b8-10 b8+"),
    (ApiKey::OffsetCommit, "s i s s7+ l0-4 (s (i l i6+ s))"),
    (ApiKey::OffsetFetch, "s0-7 (s [i])0-7 (s s9+ i9+ (s [i]))8+ b7+"),
    (ApiKey::FindCoordinator, "s0-3 b1+ [s]4+"),
    (ApiKey::JoinGroup, "s i i1+ s s5+ s (s y) s8+"),
    (ApiKey::Heartbeat, "s i s s3+"),
    (ApiKey::LeaveGroup, "s s0-2 (s s s5+)3+"),
    (ApiKey::SyncGroup, "s i s s3+ s5+ s5+ (s y)"),
    (ApiKey::DescribeGroups, "[s] b3+"),
    (ApiKey::ListGroups, "[s]4+ [s]5+"),
    (ApiKey::ApiVersions, "s3+ s3+"),
    (ApiKey::CreateTopics, "(s i h (i [i]) (s s)) i b"),
    (ApiKey::DeleteTopics, "(s u)6+ [s]0-5 i"),
    (ApiKey::DeleteRecords, "(s (i l)) i"),
    (ApiKey::InitProducerId, "s i l3+ h3+"),
    (ApiKey::OffsetForLeaderEpoch, "i3+ (s (i i i))"),
    (ApiKey::AddPartitionsToTxn, "(s l h b (s [i]))4+ s0-3 l0-3 h0-3 (s [i])0-3"),
    (ApiKey::AddOffsetsToTxn, "s l h s"),
    (ApiKey::EndTxn, "s l h b"),
    (ApiKey::WriteTxnMarkers, "(l h b (s [i]) i)"),
    (ApiKey::TxnOffsetCommit, "s s l h i3+ s3+ s3+ (s (i l i2+ s))"),
    (ApiKey::DescribeConfigs, "(b s [s]) b b3+"),
    (ApiKey::AlterConfigs, "(b s (s s)) b"),
    (ApiKey::DescribeLogDirs, "(s [i])"),
    (ApiKey::CreatePartitions, "(s i ([i])) i b"),
    (ApiKey::DeleteGroups, "[s]"),
    (ApiKey::IncrementalAlterConfigs, "(b s (s b s)) b"),
    (ApiKey::OffsetDelete, "s (s (i))"),
    (ApiKey::DescribeCluster, "b b1+ b2+"),
    (ApiKey::DescribeProducers, "(s [i])"),
    (ApiKey::DescribeTransactions, "[s]"),
    (ApiKey::ListTransactions, "[s] [l] l1+ s2+"),
    (ApiKey::DescribeTopicPartitions, "(s) i ?{s i}"),
];

#[derive(Debug)]
enum Kind {
    Fixed(usize),
    Text,
    Bytes,
    Array(Box<Kind>),
    Structures(Structure),
    /// Only within a tagged field.
    Structure(Structure),
    /// After a byte that is 1 where there is one.
    Optional(Structure),
}

#[derive(Debug)]
struct Field {
    kind: Kind,
    versions: (i16, i16),
}

#[derive(Debug, Default)]
struct Structure {
    fields: Vec<Field>,
    tagged: Vec<(u32, Field)>,
}

static COMPILED: LazyLock<Vec<(ApiKey, Structure)>> = LazyLock::new(|| {
    let compile = |(api, text): &(ApiKey, &str)| {
        (
            *api,
            Parser {
                rest: text.as_bytes(),
            }
            .structure(None),
        )
    };
    SHAPES.iter().map(compile).collect()
});

/// Checks every length in the body of a request.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), ShapeError> {
    let Some((_, structure)) = COMPILED.iter().find(|(found, _)| *found == api) else {
        return Ok(());
    };
    let flexible = api.request_header_version(version) >= 2;
    Walker {
        rest: body,
        version,
        flexible,
        elements: 0,
    }
    .structure(structure)
}

/// Walks over a body without keeping anything.
struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    /// Newer versions encode lengths as varints and end each structure with tagged fields.
    flexible: bool,
    /// Announced so far, by all arrays.
    elements: u64,
}

impl Walker<'_> {
    fn structure(&mut self, structure: &Structure) -> Result<(), ShapeError> {
        for field in &structure.fields {
            if (field.versions.0..=field.versions.1).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        if self.flexible {
            self.tags(structure)
        } else {
            Ok(())
        }
    }

    fn tags(&mut self, structure: &Structure) -> Result<(), ShapeError> {
        let tags = self.varint()?;
        self.elements += tags;
        if self.elements > MAX_ELEMENTS {
            return Err(ShapeError::Elements);
        }
        for _ in 0..tags {
            let tag = self.varint()?;
            let size = self.varint()?;
            let before = self.rest.len();
            match structure
                .tagged
                .iter()
                .find(|(known, _)| u64::from(*known) == tag)
            {
                Some((_, field)) => self.field(&field.kind)?,
                None => self.skip(size)?,
            }
            if (before - self.rest.len()) as u64 != size {
                return Err(ShapeError::Tag);
            }
        }
        Ok(())
    }

    fn field(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes as u64),
            Kind::Text | Kind::Bytes => {
                let length = if self.flexible {
                    self.varint()?.saturating_sub(1)
                } else if matches!(kind, Kind::Text) {
                    u64::from(i16::from_be_bytes(self.take()?).max(0) as u16)
                } else {
                    u64::from(i32::from_be_bytes(self.take()?).max(0) as u32)
                };
                self.skip(length)
            }
            Kind::Array(element) => {
                for _ in 0..self.count()? {
                    self.field(element)?;
                }
                Ok(())
            }
            Kind::Structures(structure) => {
                for _ in 0..self.count()? {
                    self.structure(structure)?;
                }
                Ok(())
            }
            Kind::Structure(structure) => self.structure(structure),
            Kind::Optional(structure) => match self.take()? {
                [1] => self.structure(structure),
                [_] => Ok(()),
            },
        }
    }

    /// The number of elements of an array: each takes at least a byte.
    fn count(&mut self) -> Result<u64, ShapeError> {
        let count = if self.flexible {
            self.varint()?.saturating_sub(1)
        } else {
            u64::from(i32::from_be_bytes(self.take()?).max(0) as u32)
        };
        if count > self.rest.len() as u64 {
            return Err(ShapeError::Length {
                announced: count,
                left: self.rest.len(),
            });
        }
        self.elements += count;
        if self.elements > MAX_ELEMENTS {
            return Err(ShapeError::Elements);
        }
        Ok(count)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), ShapeError> {
        if bytes > self.rest.len() as u64 {
            return Err(ShapeError::Length {
                announced: bytes,
                left: self.rest.len(),
            });
        }
        self.rest = &self.rest[bytes as usize..];
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(ShapeError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn varint(&mut self) -> Result<u64, ShapeError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value <= u64::from(u32::MAX) {
                    Ok(value)
                } else {
                    Err(ShapeError::Number)
                };
            }
        }
        Err(ShapeError::Number)
    }
}

/// Reads the table above, which a test reads too: it may panic on a mistake in it.
struct Parser<'t> {
    rest: &'t [u8],
}

impl Parser<'_> {
    fn structure(&mut self, end: Option<u8>) -> Structure {
        let mut structure = Structure::default();
        loop {
            self.blanks();
            match (self.rest.first(), end) {
                (None, None) => return structure,
                (Some(byte), Some(end)) if *byte == end => {
                    self.next();
                    return structure;
                }
                (Some(b'<'), _) => {
                    self.next();
                    let tag = self.number().expect("a tag");
                    self.blanks();
                    let field = self.field();
                    assert_eq!(self.next(), b'>');
                    structure.tagged.push((tag as u32, field));
                }
                _ => structure.fields.push(self.field()),
            }
        }
    }

    fn field(&mut self) -> Field {
        let kind = self.kind();
        let versions = match self.number() {
            None => (0, i16::MAX),
            Some(first) => match self.next() {
                b'+' => (first, i16::MAX),
                b'-' => (first, self.number().expect("a version")),
                other => panic!("unexpected '{}' after a version", other as char),
            },
        };
        Field { kind, versions }
    }

    fn kind(&mut self) -> Kind {
        match self.next() {
            b'b' => Kind::Fixed(1),
            b'h' => Kind::Fixed(2),
            b'i' => Kind::Fixed(4),
            b'l' => Kind::Fixed(8),
            b'u' => Kind::Fixed(16),
            b's' => Kind::Text,
            b'y' => Kind::Bytes,
            b'[' => {
                let element = self.kind();
                assert_eq!(self.next(), b']');
                Kind::Array(Box::new(element))
            }
            b'(' => Kind::Structures(self.structure(Some(b')'))),
            b'{' => Kind::Structure(self.structure(Some(b'}'))),
            b'?' => {
                assert_eq!(self.next(), b'{');
                Kind::Optional(self.structure(Some(b'}')))
            }
            other => panic!("unexpected '{}' in a shape", other as char),
        }
    }

    fn number(&mut self) -> Option<i16> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (head, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(head).ok()?.parse().ok()
    }

    fn next(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().expect("a shape does not end here");
        self.rest = rest;
        *first
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }
}

#[cfg(test)]
pub(super) mod tests;
