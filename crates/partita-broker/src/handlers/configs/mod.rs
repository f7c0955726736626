//! Settings, looked at ([`describe`]) and changed ([`alter`]). Topics have settings that clients may change; those of the
//! broker are fixed when it starts and can only be looked at.

pub(crate) mod alter;
pub(crate) mod describe;

/// The protocol's numbers for what can have settings.
pub(super) mod resource {
    pub(in crate::handlers) const TOPIC: i8 = 2;
    pub(in crate::handlers) const BROKER: i8 = 4;
    pub(in crate::handlers) const CLIENT_METRICS: i8 = 16;
    pub(in crate::handlers) const GROUP: i8 = 32;
}
