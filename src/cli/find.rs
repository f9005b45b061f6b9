//! `sender --find-rate`: its flags, its progress on standard error, its tables or lines of JSON.

use std::net::SocketAddr;

use super::address::{possible, remotes, why_this};
use super::error::{Error, usage};
use super::messages::{complain, say};
use super::print::print;
use super::progress::ProgressLine;
use super::sender::{begin, first_of};
use super::sender_args::{ScheduleArg, SenderArgs, StatsArg};
use super::sender_plan::{inside_reflector, session};
use super::signals::{Again, Hangup, catch_signals, stop_when_unread};
use super::sizes::{Room, SizeArgs, sizes};
use super::verdict::failed_by;
use crate::config::{
    Family, FrameSize, FrameSizes, Rate, Seconds, SessionConfig, SizeClass, SizeProfile, Sizes,
    frame_of_payload, payload_of_frame,
};
use crate::engine::{self, Progress, Reflecting, Stop};
use crate::os;
use crate::output::find_rate;
use crate::output::heading::{self, Heading};
use crate::report::find_rate::FindRate;
use crate::report::note::Note;
use crate::report::{Protocol, Security};
use crate::search::{self, Length, Plan, Run, Update};
use crate::wire::MAX_UDP_PAYLOAD;

/// Length of a trial, in nanoseconds.
const DEFAULT_TRIAL_NS: u64 = 2_000_000_000;
/// The shortest one.
const LEAST_TRIAL_NS: u64 = 100_000_000;
/// Octets of Ethernet header before the IP packet.
const ETHERNET: usize = 14;
/// What is assumed where the system does not tell.
const USUAL_MTU: usize = 1500;

/// What a search needs beside the session: its sizes, bounds and the length of its trials.
pub(super) fn plan(
    args: &SenderArgs,
    session: SessionConfig,
    room: &Room,
    inside: bool,
) -> Result<Plan, Error> {
    if args.load.schedule == ScheduleArg::Flood {
        return Err(usage(
            "--find-rate sets the rate of each trial, and --schedule flood has none; use another \
             schedule, or leave it out",
        ));
    }
    if !matches!(args.results.stats, StatsArg::Normal) {
        return Err(usage(
            "--stats is for the report of one session; leave it out with --find-rate",
        ));
    }
    let loss = args.find.loss.unwrap_or_default();
    if loss.value() >= 1.0 {
        return Err(usage(
            "--loss 100%: every rate would hold, however much was lost; use less, such as 0.1%",
        ));
    }
    let max_pps = args.find.max_rate.map(whole_pps).transpose()?;
    let trial_ns = args.load.duration.map_or(DEFAULT_TRIAL_NS, Seconds::ns);
    if trial_ns < LEAST_TRIAL_NS {
        return Err(usage(
            "--duration: with --find-rate it is the length of a trial; use 100ms or more",
        ));
    }
    Ok(Plan {
        sizes: all_sizes(args, session.remote, room)?,
        session,
        loss,
        max_pps,
        trial_ns,
        inside,
        own: None,
    })
}

pub(super) fn run(args: &SenderArgs) -> Result<u8, Error> {
    begin(args)?;
    let inside = args
        .remote
        .is_none()
        .then(|| inside_reflector(args))
        .transpose()?;
    let stop = Stop::default();
    let talk = !args.log.quiet;
    let configure = |remote: &SocketAddr| session(args, *remote, &Room::LIGHT);
    let (sessions, passed) = match (&args.remote, &inside) {
        (Some(endpoint), _) => possible(remotes(endpoint, args.narrow()?)?, configure)?,
        // Each trial has a reflector of its own; this one only tells the address.
        (None, Some(config)) => {
            let ending = Stop::default();
            let own = Reflecting::start(config, &ending)?;
            let remote = own.local()[0];
            ending.request();
            own.wait()?;
            (vec![configure(&remote)?], Vec::new())
        }
        (None, None) => return Err(usage("there is nobody to measure; name a REMOTE")),
    };
    // What is wrong with the command line is said before anything is sent.
    let mut plan = plan(args, sessions[0].clone(), &Room::LIGHT, inside.is_some())?;
    if talk && plan.inside {
        say("twamp-blast: no REMOTE was given: measuring a reflector inside this process\n");
    }
    catch_signals(&stop, talk, Again::EndsAll, Hangup::Ends)?;
    stop_when_unread(&stop)?;
    let mut why = why_this(plan.session.remote.ip(), passed.clone());
    if sessions.len() > 1 {
        let questions: Vec<SessionConfig> = sessions.iter().map(search::question).collect();
        let answered;
        (answered, why) = first_of(args, &questions, passed, None, &stop)?;
        let this = |session: &&SessionConfig| Some(session.remote) == answered.report.remote;
        let session = sessions.iter().find(this).unwrap_or(&sessions[0]);
        if session.remote != plan.session.remote {
            plan.sizes = all_sizes(args, session.remote, &Room::LIGHT)?;
            plan.session = session.clone();
        }
    }
    let mut trial = |session: &SessionConfig, progress: &mut dyn FnMut(Progress)| {
        Ok(search::light(session, inside.as_ref(), &stop, progress)?)
    };
    let about = heading(args, &plan, "sender", Protocol::TwampLight);
    let tell = |found: &mut FindRate| {
        found
            .notes
            .extend(why.clone().map(|why| Note::from(why).into()))
    };
    search(args, &plan, &stop, &mut trial, &about, tell)
}

/// The line that the result begins with: of a session without key.
pub(super) fn heading<'a>(
    args: &SenderArgs,
    plan: &Plan,
    command: &'a str,
    protocol: Protocol,
) -> Heading<'a> {
    let session = &plan.session;
    let local = match args.local.as_ref().and_then(|local| local.port) {
        Some(_) => session.local.to_string(),
        None => session.local.ip().to_string(),
    };
    let remote = match plan.inside {
        true => "the reflector of this process".to_owned(),
        false => session.remote.to_string(),
    };
    Heading {
        version: env!("CARGO_PKG_VERSION"),
        command,
        ends: format!("{remote} from {local}"),
        started: Some(heading::rfc3339(os::wall_clock())),
        protocol,
        security: heading::security(Security::Unauthenticated).to_owned(),
        key_id: None,
        sid: None,
    }
}

/// Searches, and shows what was found, to which `tell` adds what only it knows; returns the exit code.
pub(super) fn search(
    args: &SenderArgs,
    plan: &Plan,
    stop: &Stop,
    trial: &mut Run<'_, Error>,
    about: &Heading<'_>,
    tell: impl Fn(&mut FindRate),
) -> Result<u8, Error> {
    let talk = !args.log.quiet;
    let mut line = ProgressLine::new(talk);
    if talk {
        complain(beforehand(plan));
    }
    let mut results: Vec<FindRate> = Vec::new();
    let mut printed = Ok(());
    // One that this system ends says nothing of the rate, nor would another one.
    let trial: &mut Run<'_, Error> = &mut |session, progress| {
        let report = trial(session, progress)?;
        match &report.host.failure {
            Some(call) => Err(Error::Runtime(failed_by(call))),
            None => Ok(report),
        }
    };
    let ended = search::find(plan, stop, trial, |update| match update {
        Update::Progress(now) => line.show(now),
        Update::Silent(size) => {
            line.clear();
            if talk {
                complain(format!(
                    "size {size}: no slow packet came back: waiting for the path"
                ));
            }
        }
        Update::Trial(size, number, trial) => {
            line.clear();
            if talk {
                complain(find_rate::progress(size, number, trial));
            }
        }
        Update::Found(found) => {
            line.clear();
            let mut found = found.clone();
            tell(&mut found);
            if args.results.json && printed.is_ok() {
                printed = print(&(found.to_json_line() + "\n"));
            }
            results.push(found);
        }
    });
    if !args.results.json {
        printed = print(&(about.show() + &find_rate::summary(&results)));
    }
    ended?;
    printed?;
    Ok(exit_code(&results, stop.requested(), &plan.session.remote))
}

/// How long a search will take.
fn beforehand(plan: &Plan) -> String {
    let Length {
        sizes,
        trials,
        usual_ns,
        most_ns,
    } = plan.length();
    let sizes = match sizes {
        1 => String::new(),
        n => format!(" for each of {n} sizes"),
    };
    format!(
        "some {trials} trials of {}{sizes}: about {}, at most {}",
        find_rate::length(plan.trial_ns),
        rough(usual_ns),
        rough(most_ns)
    )
}

/// A time in seconds or minutes, rounded up.
fn rough(ns: u64) -> String {
    let seconds = ns.div_ceil(1_000_000_000);
    match seconds {
        ..=99 => format!("{seconds} s"),
        _ => format!("{} min", seconds.div_ceil(60)),
    }
}

/// The exit code, with a line on standard error where nothing was measured.
fn exit_code(results: &[FindRate], interrupted: bool, remote: &SocketAddr) -> u8 {
    if interrupted {
        return 130;
    }
    let sums = results.iter().fold((0, 0), |(sent, received), found| {
        let warm_up = &found.warm_up;
        (sent + warm_up.sent, received + warm_up.received)
    });
    match sums {
        (_, 1..) => return 0,
        (0, 0) => {
            complain("nothing was sent: this system refused every packet; the notes say why");
            return 1;
        }
        (1.., 0) => {}
    }
    let refused = results.iter().find_map(|found| found.refused);
    // Other ICMP messages, and a next hop that does not answer, are notes.
    let why = match refused {
        Some(refused) => format!("ICMP {refused}"),
        None if results.iter().all(|found| found.notes.is_empty()) => {
            "is a reflector there, and is a firewall between?".to_owned()
        }
        None => "see the notes".to_owned(),
    };
    complain(format!("nothing came back from {remote}: {why}"));
    5
}

/// The search knows whole packets a second.
fn whole_pps(rate: Rate) -> Result<u64, Error> {
    match rate.count_in(1_000_000_000) {
        _ if rate.per_second() < 1.0 => Err(usage(format!(
            "--max-rate {rate}: the search begins at one packet a second; use 1 or more"
        ))),
        // The one that is due at 0 of the next second was not counted.
        pps if rate.due_ns(pps) > 1_000_000_000 => Ok((pps - 1).max(1)),
        pps => Ok(pps),
    }
}

/// Every size to be searched: those listed, or the one given, or the usual ones that fit.
fn all_sizes(args: &SenderArgs, remote: SocketAddr, room: &Room) -> Result<Vec<Sizes>, Error> {
    let talk = !args.log.quiet;
    let given = &args.sizes;
    let family = Family::of(remote.ip());
    let mtu = engine::path_mtu(remote, args.ip.interface.as_deref());
    let most = mtu.unwrap_or(USUAL_MTU) + ETHERNET;
    let largest = |sizes: &Sizes| sizes.classes.iter().map(|c| c.frame).max().unwrap_or(0);
    let one = given.imix
        || given.padding.is_some()
        || given.frame_size.is_some()
        || given.size_mix.is_some()
        || given.payload_size.is_some();
    let plans = match &given.sizes {
        Some(list) => list_of(list.sizes(), family, room)?,
        None if one => vec![sizes(given, family, room)?],
        None => {
            let mut usual = list_of(&usual(family, room), family, room)?;
            usual.retain(|sizes| largest(sizes) <= most);
            return Ok(usual);
        }
    };
    for large in plans.iter().map(largest).filter(|frame| *frame > most) {
        if talk {
            complain(format!(
                "frames of {large} bytes do not go to {} whole: the MTU is {}",
                remote.ip(),
                most - ETHERNET
            ));
        }
    }
    Ok(plans)
}

/// The usual sizes; in place of those that have no room for the fields of the mode, the one with which
/// both directions have one size.
fn usual(family: Family, room: &Room) -> Vec<FrameSize> {
    let least = frame_of_payload(room.least, family);
    let even = frame_of_payload(room.header + room.even, family);
    let fits = |size: &FrameSize| !matches!(size, FrameSize::Bytes(frame) if *frame < least);
    let (mut frames, small): (Vec<_>, Vec<_>) =
        FrameSizes::usual().sizes().iter().copied().partition(fits);
    if !small.is_empty() && !frames.contains(&FrameSize::Bytes(even)) {
        let larger = |size: &FrameSize| !matches!(size, FrameSize::Bytes(frame) if *frame < even);
        let at = frames.iter().position(larger).unwrap_or(frames.len());
        frames.insert(at, FrameSize::Bytes(even));
    }
    frames
}

fn list_of(list: &[FrameSize], family: Family, room: &Room) -> Result<Vec<Sizes>, Error> {
    let plan = |size: &FrameSize| match *size {
        FrameSize::Imix => {
            let imix = SizeArgs {
                imix: true,
                ..SizeArgs::default()
            };
            sizes(&imix, family, room)
        }
        FrameSize::Bytes(frame) => {
            let payload = payload_of_frame(frame, family);
            let payload = payload.filter(|payload| *payload >= room.least);
            let payload = payload.ok_or_else(|| {
                usage(format!(
                    "--sizes {frame}: use {} to {} bytes, the Ethernet frame (without FCS) of a \
                     test packet over {family}",
                    frame_of_payload(room.least, family),
                    frame_of_payload(MAX_UDP_PAYLOAD, family)
                ))
            })?;
            Ok(Sizes {
                profile: SizeProfile::Fixed,
                classes: vec![SizeClass {
                    payload,
                    frame,
                    weight: 1,
                }],
            })
        }
    };
    list.iter().map(plan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_sizes_have_room_for_the_fields_of_the_mode() {
        let frames = |room: &Room, family| -> Vec<usize> {
            let sizes = usual(family, room).into_iter();
            let bytes = sizes.filter_map(|size| match size {
                FrameSize::Bytes(frame) => Some(frame),
                FrameSize::Imix => None,
            });
            bytes.take(4).collect()
        };
        let protected = Room {
            header: 48,
            least: 48,
            even: 64,
        };
        for (room, family, expected) in [
            (&Room::LIGHT, Family::V4, [83, 128, 256, 512]),
            (&Room::LIGHT, Family::V6, [83, 128, 256, 512]),
            (&protected, Family::V4, [128, 154, 256, 512]),
            (&protected, Family::V6, [128, 174, 256, 512]),
        ] {
            assert_eq!(frames(room, family), expected);
            assert!(list_of(&usual(family, room), family, room).is_ok());
        }
    }

    #[test]
    fn a_bound_is_whole_packets_a_second_and_never_more_than_asked_for() {
        let pps = |text: &str| whole_pps(text.parse().unwrap()).ok();
        assert_eq!(pps("100k"), Some(100_000));
        assert_eq!(pps("1.5"), Some(1));
        assert_eq!(pps("7/3s"), Some(2));
        assert_eq!(pps("1"), Some(1));
        assert_eq!(pps("0.5"), None);
    }
}
