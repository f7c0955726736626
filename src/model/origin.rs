//! Where an input came from.

/// The record an input came from, byte for byte, as far as a dead letter needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}
