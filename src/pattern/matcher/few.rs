//! A list that lies in place while it has one element, saved as any list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

pub(super) fn serialize<T: Serialize, S: Serializer>(
    few: &SmallVec<[T; 1]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    few.as_slice().serialize(serializer)
}

pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SmallVec<[T; 1]>, D::Error> {
    let few = Vec::deserialize(deserializer)?;
    Ok(few.into_iter().collect())
}
