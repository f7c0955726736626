//! The HTTP API, the definitions registry, membership and agents over the embedded broker. The
//! runtime is a fake in most (`fake`), so that each answer it may give can be asked for; the rooms
//! around it are the real ones. `whole` goes the whole way with the real runtime.

mod agents;
mod cluster;
mod connections;
mod definitions;
mod document;
mod events;
mod fake;
mod requests;
mod rules;
mod runs;
mod support;
mod whole;
