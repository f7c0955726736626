//! `f64` in serialised state, as its 64 bits in an integer: JSON has no infinities and its readers
//! may round the last digit, and a restored state must continue exactly as the live one would.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the bits of `value`; for `#[serde(with = "…::exact")]`.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_bits().cast_signed().serialize(serializer)
}

/// Reads what [`serialize`] wrote.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    i64::deserialize(deserializer).map(|bits| f64::from_bits(bits.cast_unsigned()))
}

/// Lists of `f64`, in the same way; for `#[serde(with = "…::exact::list")]`.
pub mod list {
    use std::collections::VecDeque;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the bits of each value.
    pub fn serialize<S: Serializer>(
        values: &VecDeque<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| value.to_bits().cast_signed()))
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<f64>, D::Error> {
        let bits = Vec::<i64>::deserialize(deserializer)?;
        let value = |bits: i64| f64::from_bits(bits.cast_unsigned());
        Ok(bits.into_iter().map(value).collect())
    }
}
