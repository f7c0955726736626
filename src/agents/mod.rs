//! Agents: whoever does the work of steps. A task is a record on `tasks.<agent>`; everything here
//! begins with a [`feed`], a consumer of that topic on a thread of its own, which commits only
//! what is done with ([`positions`]).
//!
//! Two things hang on a feed: a [`pump`] hands tasks to agents that poll over HTTP ([`Pumps`] has
//! one for each agent name in use), and the library ([`agent`], public as `partita::agent`) runs
//! handlers in the process and produces their replies. The agents that come with Partita
//! ([`builtin`]: `echo` and `http`) are handlers of that library.

pub mod agent;
pub mod builtin;
pub mod feed;
mod http;
pub mod positions;
mod pump;
mod pumps;
mod replies;

pub use http::HttpSettings;
pub use pump::{HandedOut, Held};
pub use pumps::{PollError, PumpSettings, Pumps};
