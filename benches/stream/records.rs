//! The stream that other engines are measured on: ten types, K keys, one value in [0, 1), one event a
//! millisecond.

use partita::pattern::Scalar;

struct Stream {
    state: u64,
}

impl Stream {
    fn next(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state
    }
}

/// Type, and the slots `key` and `value`.
pub struct Record {
    pub kind: u8,
    pub slots: [Scalar; 2],
}

pub fn records(count: usize, keys: u64) -> Vec<Record> {
    let mut stream = Stream { state: 42 };
    (0..count)
        .map(|_| {
            let kind = ((stream.next() >> 33) % 10) as u8;
            let key = ((stream.next() >> 33) % keys) as i64;
            let value = (stream.next() >> 11) as f64 * 2f64.powi(-53);
            Record {
                kind,
                slots: [Scalar::Int(key), Scalar::Float(value)],
            }
        })
        .collect()
}
