//! How a session is set up for its load: how long its trains are, how much memory it gets, and for how long its
//! replies gather. Pure: the figures were found by measuring (PERFORMANCE.md).

use super::flight::MAX_SINGLES;
use super::sockets::BUFFER_OVERHEAD;
use super::trains::MOST_BURST;
use crate::config::{Burst, IoKind, SessionConfig};
use crate::wire::{MAX_UDP_PAYLOAD, fill_padding};

/// Most packets under way that are told apart; more leave the window before their timeout.
const MAX_WINDOW: u64 = 1 << 24;
/// Below this rate a sender that is late was not let run: trains would not help, and what drops or counts
/// packets on the way takes a train for one.
const EASY_RATE: f64 = 50_000.0;
/// The rate above which not even a fast host sends each packet by itself.
const SINGLES_RATE: f64 = 400_000.0;
/// Above that, trains are as long as it takes to have at most so many a second.
const TRAINS_RATE: f64 = 62_500.0;
/// Trains of a batch: they are long, and few are due together.
pub(super) const TRAINS: usize = 8;
/// Where there are more lanes than these, each one below this rate is given less memory: so many
/// places of a batch, and so many blocks of samples; and their delays take memory as they need it.
pub(super) const MANY: usize = 8;
const SLOW_RATE: f64 = 5_000.0;
pub(super) const FEW_PLACES: usize = 8;
pub(super) const FEW_BLOCKS: usize = 32;
/// From this rate on, replies are let gather before they are taken: they carry kernel timestamps. To take
/// them more often costs the reflector on the same core more than that they wait.
pub(super) const GATHER_RATE: f64 = 20_000.0;
/// For how long in nanoseconds, at least and at most, and how many octets of them.
const GATHER_NS: (f64, f64) = (400_000.0, 1_000_000.0);
const GATHER_OCTETS: f64 = 524_288.0;
/// As much of the socket's buffer may fill meanwhile, unless that would take no longer than this.
const GATHER_BUFFER: f64 = 0.125;
const LEAST_GATHER_NS: f64 = 100_000.0;
/// Octets of a socket buffer where the system does not tell: what Linux gives whoever asks for nothing.
pub(super) const USUAL_BUFFER: usize = 212_992;
/// Octets of socket buffer that one waiting transmit stamp may take.
pub(super) const STAMP_OCTETS: usize = 1024;

/// Octets of a packet, or of the longest train.
pub(super) fn padding(config: &SessionConfig, most_burst: u32) -> Vec<u8> {
    let longest = config.sizes.classes.iter().map(|c| c.payload).max();
    let packets = usize::try_from(most_burst).unwrap_or(1);
    let mut padding = vec![0; (longest.unwrap_or(0) * packets).min(MAX_UDP_PAYLOAD)];
    if !config.zero_padding {
        fill_padding(&mut padding, config.seed);
    }
    padding
}

/// Whether one of several lanes makes do with less memory.
pub(super) fn is_frugal(config: &SessionConfig, lanes: usize) -> bool {
    let rate = config.departures.rate();
    lanes > MANY && rate.is_some_and(|rate| rate.per_second() < SLOW_RATE)
}

/// Packets of one of several lanes that may be under way within the timeout, with some room to spare.
pub(super) fn window(config: &SessionConfig, trains: Trains, lanes: usize) -> u64 {
    let most = (MAX_SINGLES << trains.shift).min(MAX_WINDOW);
    let within = match config.departures.rate() {
        Some(rate) => rate.count_in(config.timeout_ns.saturating_add(500_000_000)),
        // As much as the lanes can send together.
        None => most / u64::try_from(lanes.max(1)).unwrap_or(1),
    };
    let all = config.end.count.unwrap_or(u64::MAX);
    within.min(all).saturating_add(1024).min(most)
}

/// How packets are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trains {
    /// Packets of a train to begin with, and at most.
    pub(super) burst: u32,
    pub(super) most: u32,
    /// All trains have a multiple of `1 << shift` packets.
    pub(super) shift: u32,
}

impl Trains {
    const NONE: Self = Self {
        burst: 1,
        most: 1,
        shift: 0,
    };

    pub(super) fn choose(config: &SessionConfig) -> Self {
        let rate = config.departures.rate();
        let per_second = rate.map_or(f64::MAX, crate::config::Rate::per_second);
        if config.socket.io == IoKind::Portable || !cfg!(target_os = "linux") {
            return Self::NONE;
        }
        let largest = config.sizes.classes.iter().map(|c| c.payload).max();
        let fitting = MAX_UDP_PAYLOAD / largest.unwrap_or(MAX_UDP_PAYLOAD).max(1);
        let most = u32::try_from(fitting).unwrap_or(1).clamp(1, MOST_BURST);
        match config.burst {
            Burst::Fixed(burst) => {
                let burst = burst.clamp(1, most);
                Self {
                    burst,
                    most: burst,
                    shift: burst.trailing_zeros(),
                }
            }
            Burst::Auto if rate.is_none() || per_second < EASY_RATE => Self::NONE,
            Burst::Auto => {
                let most = 1 << most.ilog2();
                let mut burst = 1;
                if per_second > SINGLES_RATE {
                    while burst < most && f64::from(burst) * TRAINS_RATE < per_second {
                        burst *= 2;
                    }
                }
                Self {
                    burst,
                    most,
                    shift: burst.trailing_zeros(),
                }
            }
        }
    }
}

/// How long replies may gather at such a rate, in nanoseconds, in a buffer of so many octets.
pub(super) fn gather_ns(
    per_second: f64,
    sizes: &crate::config::Sizes,
    buffer: Option<usize>,
) -> i64 {
    if per_second < GATHER_RATE {
        return 0;
    }
    let largest = sizes.classes.iter().map(|c| c.payload).max().unwrap_or(1);
    let octets = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let (payload, buffer) = (octets(largest), octets(buffer.unwrap_or(0)));
    let overhead = f64::from(u32::try_from(BUFFER_OVERHEAD).unwrap_or(u32::MAX));
    let per_ns = per_second / 1e9;
    let (least, most) = GATHER_NS;
    let gather_ns = (GATHER_OCTETS / (per_ns * payload)).clamp(least, most);
    let room_ns = buffer * GATHER_BUFFER / (per_ns * (payload + overhead));
    #[expect(clippy::cast_possible_truncation, reason = "a millisecond at most")]
    let gather_ns = gather_ns.min(room_ns.max(LEAST_GATHER_NS)) as i64;
    gather_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Departures, End, Family, SizeClass, SizeProfile, Sizes};

    fn config(departures: Departures, burst: Burst) -> SessionConfig {
        SessionConfig {
            departures,
            end: End {
                count: Some(1_000_000),
                duration_ns: None,
            },
            sizes: Sizes::one(64, Family::V4),
            burst,
            ..SessionConfig::new(
                "192.0.2.1:0".parse().unwrap(),
                "192.0.2.2:862".parse().unwrap(),
            )
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn trains_are_made_where_they_can_help() {
        let auto = |rate: &str| {
            let departures = Departures::Periodic(rate.parse().unwrap());
            let trains = Trains::choose(&config(departures, Burst::Auto));
            (trains.burst, trains.most)
        };
        assert_eq!(auto("49k"), (1, 1));
        assert_eq!(auto("100k"), (1, 64));
        assert_eq!(auto("2M"), (32, 64));
        let flood = Trains::choose(&config(Departures::Flood, Burst::Auto));
        assert_eq!(flood, Trains::NONE);
        let fixed = config(
            Departures::Periodic("1k".parse().unwrap()),
            Burst::Fixed(16),
        );
        assert_eq!(Trains::choose(&fixed).burst, 16);
    }

    #[test]
    fn replies_gather_for_as_long_as_the_buffer_has_room() {
        let gather = |per_second, payload, buffer| {
            let sizes = Sizes {
                profile: SizeProfile::Fixed,
                classes: vec![SizeClass {
                    payload,
                    frame: payload + 42,
                    weight: 1,
                }],
            };
            gather_ns(per_second, &sizes, Some(buffer)) / 1000
        };
        let large = 64 << 20;
        assert_eq!(gather(19_999.0, 64, large), 0);
        assert_eq!(gather(100_000.0, 64, large), 1000);
        assert_eq!(gather(6e6, 64, large), 1000);
        assert_eq!(gather(500_000.0, 8972, large), 400);
        // The buffers of somebody who may not raise them.
        let small = 425_984;
        assert_eq!(gather(100_000.0, 64, small), 639);
        assert_eq!(gather(6e6, 64, small), 100);
        assert_eq!(gather(f64::MAX, 64, small), 100);
    }

    #[test]
    fn a_window_is_no_wider_than_the_session() {
        let config = config(Departures::Flood, Burst::Auto);
        assert_eq!(window(&config, Trains::NONE, 1), 1_001_024);
        assert_eq!(window(&config, Trains::NONE, 8), MAX_SINGLES / 8 + 1024);
    }
}
