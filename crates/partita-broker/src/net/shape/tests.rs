use bytes::Bytes;
use kafka_protocol::messages::RequestKind;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::net::versions::SERVED;
use crate::testing::{Sample, batch};

/// Writes a body of the given shape, with random contents.
struct Writer<'r> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    random: &'r mut TestRng,
}

/// A request of that API and version as a client might send it, with random contents: names of up to four times 'x',
/// numbers of -1, 0 or 1, and batches of which half are in order.
pub(crate) fn random_body(api: ApiKey, version: i16, random: &mut TestRng) -> Vec<u8> {
    let flexible = api.request_header_version(version) >= 2;
    let mut writer = Writer {
        out: Vec::new(),
        version,
        flexible,
        random,
    };
    writer.structure(structure_of(api));
    writer.out
}

impl Writer<'_> {
    fn structure(&mut self, structure: &Structure) {
        for field in &structure.fields {
            if (field.versions.0..=field.versions.1).contains(&self.version) {
                self.field(&field.kind);
            }
        }
        if self.flexible {
            // A tag that nobody knows, of two bytes.
            self.out.extend([1, 99, 2, 0, 0]);
        }
    }

    fn field(&mut self, kind: &Kind) {
        match kind {
            // Single bytes may be booleans, which must be 0 or 1.
            Kind::Fixed(bytes) if *bytes > 1 && self.random.random_ratio(1, 4) => {
                self.out.extend(std::iter::repeat_n(0xff, *bytes));
            }
            Kind::Fixed(bytes) => {
                let last = self.random.random_range(0..2);
                self.out
                    .extend(std::iter::repeat_n(0, bytes - 1).chain([last]));
            }
            Kind::Text => {
                let length = self.random.random_range(0..5u8);
                if self.flexible {
                    self.out.push(length + 1);
                } else {
                    self.out.extend([0, length]);
                }
                self.out.extend(std::iter::repeat_n(b'x', length.into()));
            }
            Kind::Bytes => {
                let in_order = self.random.random_ratio(1, 2);
                let bytes = if in_order {
                    batch(Sample::plain(1)).1
                } else {
                    vec![7; 5]
                };
                assert!(bytes.len() < 127);
                if self.flexible {
                    self.out.push(bytes.len() as u8 + 1);
                } else {
                    self.out.extend((bytes.len() as u32).to_be_bytes());
                }
                self.out.extend(bytes);
            }
            Kind::Array(element) => {
                for _ in 0..self.count() {
                    self.field(element);
                }
            }
            Kind::Structures(structure) => {
                for _ in 0..self.count() {
                    self.structure(structure);
                }
            }
            Kind::Structure(structure) => self.structure(structure),
            Kind::Optional(_) if self.random.random_ratio(1, 2) => self.out.push(0xff),
            Kind::Optional(structure) => {
                self.out.push(1);
                self.structure(structure);
            }
        }
    }

    fn count(&mut self) -> u8 {
        let count = self.random.random_range(0..3);
        if self.flexible {
            self.out.push(count + 1);
        } else {
            self.out.extend([0, 0, 0, count]);
        }
        count
    }
}

fn structure_of(api: ApiKey) -> &'static Structure {
    let found = COMPILED.iter().find(|(found, _)| *found == api);
    &found.unwrap_or_else(|| panic!("{api:?} has no shape")).1
}

#[test]
fn every_served_version_has_the_shape_that_the_decoder_reads() {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for row in SERVED {
        for version in row.min..=row.max {
            for _ in 0..50 {
                let body = random_body(row.key, version, &mut random);
                let context = format!("{:?} version {version}: {body:?}", row.key);
                assert_eq!(check(row.key, version, &body), Ok(()), "{context}");
                let mut bytes = Bytes::from(body.clone());
                let decoded = RequestKind::decode(row.key, &mut bytes, version);
                assert!(decoded.is_ok(), "{context}: {decoded:?}");
                assert!(
                    bytes.is_empty(),
                    "{context}: {} bytes are left",
                    bytes.len()
                );
                for cut in 0..body.len() {
                    assert!(
                        check(row.key, version, &body[..cut]).is_err(),
                        "{context} cut at {cut}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_array_cannot_announce_more_than_there_is() {
    let body = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    let expected = ShapeError::Length {
        announced: 0x7fff_ffff,
        left: 4,
    };
    assert_eq!(check(ApiKey::Metadata, 1, &body), Err(expected));
}

#[test]
fn whatever_passes_the_check_decodes_or_fails_without_harm() {
    let mut runner = TestRunner::new(Config {
        cases: 20_000,
        ..Config::default()
    });
    let bytes = proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60);
    let input = (0..SERVED.len(), any::<u8>(), bytes);
    runner
        .run(&input, |(row, version, body)| {
            let row = &SERVED[row];
            let version = row.min + i16::from(version) % (row.max - row.min + 1);
            if check(row.key, version, &body).is_ok() {
                let _ = RequestKind::decode(row.key, &mut Bytes::from(body), version);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_request_has_no_more_elements_than_anybody_needs() {
    // An empty text takes a byte here, and many times that once it is decoded.
    let elements = 1_100_000u32;
    let mut body = Vec::new();
    let mut count = elements + 1;
    while count >= 0x80 {
        body.push(count as u8 | 0x80);
        count >>= 7;
    }
    body.push(count as u8);
    body.extend(std::iter::repeat_n(1, elements as usize));
    body.push(0);
    let refused = check(ApiKey::DescribeTransactions, 0, &body);
    assert_eq!(refused, Err(ShapeError::Elements));
}
