//! Measures what a network path really does, with TWAMP and TWAMP Light.
//!
//! ```text
//!   typed        plan              packets                 samples         numbers        shown
//! ┌───────┐   ┌────────┐   ┌────────────────────────┐    ┌────────┐    ┌──────────┐   ┌─────────┐
//! │  cli  │──►│ config │──►│ engine                 │───►│ stats  │───►│ report   │──►│ output  │
//! └───────┘   └────────┘   │ sender ──► ◄── receiver│pipe│ thread │    └──────────┘   └─────────┘
//!                          │ reflector × N          │    └────────┘
//!                          └───────────┬────────────┘
//!                                wire · io ─► sys
//! ```
//!
//! Data flows one way. `wire` has the packet layouts, each written once; `io` moves datagrams and
//! their timestamps and knows no protocol; `engine` paces, matches and reflects; `stats` turns
//! samples into figures in constant memory; [`report`] is plain data that every output shows.
//! [`control`] is how two hosts agree on sessions, without a socket of its own; [`controller`] is a
//! Control-Client with one, and [`server`] has the engine reflect what was agreed on.
//! [`search`] runs sessions one after the other, for the fastest rate that holds.
//!
//! Inside, time is `i64` nanoseconds since the Unix epoch, differences may be negative, and what
//! was not measured is `None`, never 0.

pub mod cli;
pub mod config;
pub mod control;
pub mod controller;
pub mod engine;
mod io;
pub mod os;
pub mod output;
pub mod report;
pub mod sample;
pub mod search;
pub mod server;
pub mod stats;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the one module that may: see its documentation")]
mod sys;
pub mod wire;
