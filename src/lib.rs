//! Measures what a network path really does, with TWAMP and TWAMP Light.
//!
//! A reflector, on threads of its own until it is stopped:
//!
//! ```
//! use twamp_blast::config::ReflectorConfig;
//! use twamp_blast::engine::{Reflecting, Stop};
//!
//! let stop = Stop::default();
//! let config = ReflectorConfig::new("127.0.0.1:0".parse()?);
//! let reflector = Reflecting::start(&config, &stop)?;
//! println!("reflecting on {}", reflector.local()[0]);
//! stop.request();
//! println!("{} replies were sent", reflector.wait()?.counts.reflected);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A session towards one, and what came of it:
//!
//! ```
//! use twamp_blast::config::{Departures, SessionConfig};
//! use twamp_blast::engine::{self, Stop};
//! # use twamp_blast::{config::ReflectorConfig, engine::Reflecting};
//!
//! # let ending = Stop::default();
//! # let reflector = Reflecting::start(&ReflectorConfig::new("127.0.0.1:0".parse()?), &ending)?;
//! # let remote = reflector.local()[0];
//! let mut session = SessionConfig::new("127.0.0.1:0".parse()?, remote);
//! session.departures = Departures::Periodic("1k".parse()?);
//! session.end.count = Some(50);
//!
//! let measured = engine::measure(&session, None, &Stop::default(), |_| {})?;
//! let report = measured.report;
//! println!("{:?} of {:?} came back", report.packets.received, report.packets.sent);
//! if let Some(delay) = &report.delay_ns.roundtrip {
//!     println!("median roundtrip {} ns, {} at most", delay.median, delay.max);
//! }
//! println!("{}", report.to_json_line());
//! # assert_eq!(report.packets.received, Some(50));
//! # ending.request();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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

#[doc(hidden)]
pub mod cli;
pub mod config;
pub mod control;
pub mod controller;
pub mod engine;
mod io;
mod os;
pub mod output;
pub mod report;
#[doc(hidden)]
pub mod sample;
pub mod search;
pub mod server;
pub mod stats;
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the one module that may: see its documentation")]
mod sys;
pub mod wire;
