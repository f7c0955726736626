//! The wire: from a socket to a handler and back.
//!
//! [`listener`] accepts and counts connections; [`connection`] cuts frames, starts each request when it arrives
//! and writes the answers in the order of the requests; [`versions`] is the table of what is served;
//! [`shape`] checks the lengths in a request before anything is reserved for them;
//! [`dispatch`] decodes, calls the one handler, and encodes; [`memory`] bounds what answers take, all together, and
//! [`turn`] keeps those who wait for it from waiting for one another.

mod connection;
mod dispatch;
mod listener;
mod memory;
mod shape;
mod turn;
pub(crate) mod versions;

pub(crate) use listener::listen;
pub(crate) use memory::{AnswerMemory, Held};
pub(crate) use turn::Turn;

/// What a handler may want to know about who asks.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// The client's own name for itself; empty when it gives none.
    pub(crate) client_id: String,
    /// Address of the other end, as `describe groups` shows it.
    pub(crate) client_host: String,
}
