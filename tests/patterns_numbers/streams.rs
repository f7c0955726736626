//! Random streams: values with ties and missing ones, times with gaps and late events.

use proptest::prelude::*;

/// Values as they come in events: from few (ties), of all sizes and signs, and not numbers.
pub fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-3..4_i32).prop_map(f64::from),
        3 => -1e3..1e3_f64,
        1 => (-8..9_i32, -1.0..1.0_f64).prop_map(|(size, value)| value * 10_f64.powi(size)),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, 1e101, 0.0, -0.0]),
    ]
}

/// An event: how far it moves time on, how late it is itself, its key and value.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub at: i64,
    /// The watermark before it.
    pub watermark: i64,
    pub key: u8,
    pub value: f64,
}

/// Up to `most` events whose watermark trails the newest time by 3 ms.
pub fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let step = prop_oneof![6 => 0..4_i64, 1 => 0..60_i64];
    let back = prop_oneof![5 => Just(0_i64), 2 => 0..4_i64, 1 => 0..40_i64];
    let one = (step, back, 0..3_u8, value());
    (-50..50_i64, prop::collection::vec(one, 1..most)).prop_map(|(start, list)| {
        let (mut now, mut watermark) = (start, start - 3);
        let event = |(step, back, key, value)| {
            watermark = watermark.max(now - 3);
            now += step;
            Event {
                at: now - back,
                watermark,
                key,
                value,
            }
        };
        list.into_iter().map(event).collect()
    })
}

/// A generator of numbers for detectors: xorshift64* (Vigna 2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Above 0 and below 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let top = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (top as f64 + 0.5) * 2_f64.powi(-53)
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}
