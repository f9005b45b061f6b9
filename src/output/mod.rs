//! What a person reads of a [`Report`](crate::report::Report).
//!
//! Called by `cli` when a run is over. Every sink shows one Report and computes nothing that is not
//! in it, so that all of them show the same numbers; `None` is shown as "not measured", never as 0.

mod figures;
pub mod find_rate;
pub mod heading;
pub mod histogram;
pub mod hlog;
pub mod ignored;
pub mod live;
mod notes;
mod reasons;
pub mod reflector;
pub mod server;
pub mod text;
mod words;
