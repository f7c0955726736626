//! Reads the topics of a consumer's subscription.

use bytes::{Buf, Bytes};

/// The topics named by the metadata of a member of a `consumer` group: a version (16 bits), then
/// the topics, counted by 32 bits and each with a 16-bit length. Later versions only append.
/// `None` where the bytes are anything else.
pub(super) fn topics(mut metadata: Bytes) -> Option<Vec<String>> {
    let version = metadata.try_get_i16().ok()?;
    let count = usize::try_from(metadata.try_get_i32().ok()?).ok()?;
    if version < 0 {
        return None;
    }
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if metadata.remaining() < length {
            return None;
        }
        let name = metadata.split_to(length);
        topics.push(std::str::from_utf8(&name).ok()?.to_owned());
    }
    Some(topics)
}
