//! What a run will do, with nothing left to check: plans, and the values they are made of.

mod address;
mod command_line;
mod error;
mod frames;
mod impair;
mod plan;
mod policy;
mod quantity;
mod rate;
mod server;
mod values;

pub use address::{Endpoint, Host, Prefix};
pub use command_line::CommandLine;
pub use error::ValueError;
pub use frames::{FrameSize, FrameSizes};
pub use impair::{Direction, Impairment};
pub use plan::{
    Burst, Departures, End, IoKind, Pacing, ReflectorConfig, ServedConfig, SessionConfig,
    SizeClass, SizeProfile, Sizes, SocketOptions, WatchConfig,
};
pub use policy::{DEFAULT_POLICY, Dscps, Feature, Limits, Policy, PolicyError, Ports, Rules};
pub use quantity::{Fraction, Interval, Seconds, Span};
pub use rate::{Bandwidth, Rate};
pub use server::ServerConfig;
pub use values::{
    CpuList, Dscp, Family, SizeMix, Tos, WeightedSize, dscp_table, dscp_table_json,
    frame_of_payload, frame_overhead, payload_of_frame,
};
