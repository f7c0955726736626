//! Bytes for events and checkpoints: little endian, lengths before contents, nothing optional.
//!
//! Reading never panics and never allocates more than the input could fill.

use std::collections::BTreeMap;

use uuid::Uuid;

/// The bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the data ends in the middle of {0}")]
    Short(&'static str),
    #[error("unknown {what} {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("text is not UTF-8")]
    Text,
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

/// Appends values to a byte vector.
pub(crate) struct Encoder<'a>(pub(crate) &'a mut Vec<u8>);

impl Encoder<'_> {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }
    pub(crate) fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(value.as_bytes());
    }
    pub(crate) fn text(&mut self, value: &str) {
        self.count(value.len());
        self.0.extend_from_slice(value.as_bytes());
    }
    /// A number of things that follow; at most `u32::MAX`, which the bounds on all inputs guarantee.
    pub(crate) fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("inputs are bounded far below 4 Gi"));
    }
    pub(crate) fn texts(&mut self, map: &BTreeMap<String, String>) {
        self.count(map.len());
        for (key, value) in map {
            self.text(key);
            self.text(value);
        }
    }
}

/// Takes values off the front of a byte slice.
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CodecError::Short(what))?;
        self.0 = rest;
        Ok(*head)
    }
    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.take::<1>("a byte").map(|[byte]| byte)
    }
    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        self.u8().map(|byte| byte != 0)
    }
    pub(crate) fn i16(&mut self) -> Result<i16, CodecError> {
        self.take("an i16").map(i16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.take("a u32").map(u32::from_le_bytes)
    }
    pub(crate) fn i32(&mut self) -> Result<i32, CodecError> {
        self.take("an i32").map(i32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.take("a u64").map(u64::from_le_bytes)
    }
    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        self.take("an i64").map(i64::from_le_bytes)
    }
    pub(crate) fn uuid(&mut self) -> Result<Uuid, CodecError> {
        self.take("a uuid").map(Uuid::from_bytes)
    }
    pub(crate) fn text(&mut self) -> Result<String, CodecError> {
        let length = self.u32()? as usize;
        let bytes = self.0.get(..length).ok_or(CodecError::Short("a text"))?;
        self.0 = &self.0[length..];
        String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Text)
    }
    /// Reads a count and then that many things. Grows as things arrive: a false count costs nothing.
    pub(crate) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Decoder<'a>) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
    pub(crate) fn texts(&mut self) -> Result<BTreeMap<String, String>, CodecError> {
        Ok(self
            .list(|d| Ok((d.text()?, d.text()?)))?
            .into_iter()
            .collect())
    }
    /// Everything must have been read.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CodecError::LeftOver(self.0.len()))
        }
    }
}
