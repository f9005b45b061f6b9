//! The `sender` subcommand: a run from the command line to the report.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::address::{not_this, possible, reason, remotes, why_this};
use super::error::{Error, usage};
use super::messages::{complain, say};
use super::print::print;
use super::results::Results;
use super::sender_args::{LoadArgs, SenderArgs, check_sender, refuse_without_search};
use super::sender_plan::{inside_reflector, session};
use super::signals::{Again, Hangup, catch_signals, stop_when_unread};
use super::sizes::Room;
use super::verdict::verdict;
use super::watcher::Watcher;
use crate::config::{SessionConfig, SizeClass, Sizes};
use crate::engine::{self, Measured, Reflecting, Stop, Update};
use crate::os;
use crate::output::text;
use crate::report::note::{Passed, Peer};
use crate::report::{Note, Report};

/// Bits a second from which a rate of packets is doubted where the interface tells no speed.
const SPEED_IN_DOUBT: u64 = 5_000_000_000;
/// How long an address may answer nothing where its name has others.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  twamp-blast sender --rate 100k --imix
        measure this host itself: a reflector inside the process, over loopback
  twamp-blast sender 192.0.2.1
        100 packets, 100 ms apart, to port 20001
  twamp-blast sender 192.0.2.1:862 --rate 10k --duration 60s --dscp ef
        ten thousand packets a second in the class EF for a minute
  twamp-blast sender [2001:db8::1]:862 -i 20ms -c 500 --json | jq .delay_ns.roundtrip
        figures for a program
  twamp-blast sender 192.0.2.1 --rate 4M --burst 32 --threads 4
        four flows, which a router may spread over its paths and queues
  twamp-blast sender 192.0.2.1 --find-rate --sizes 83,512,1514,imix --loss 0.001%
        the fastest rate that the path carries, for each size
";

pub(super) fn run(args: &SenderArgs) -> Result<u8, Error> {
    begin(args)?;
    refuse_without_search(args)?;
    let stop = Stop::default();
    let (remotes, inside) = match &args.remote {
        Some(endpoint) => (remotes(endpoint, args.narrow()?)?, None),
        None => {
            let own = Reflecting::start(&inside_reflector(args)?, &Stop::default())?;
            (vec![own.local()[0]], Some(own))
        }
    };
    let configure = |remote: &SocketAddr| session(args, *remote, &Room::LIGHT);
    let (configs, passed) = possible(remotes, configure)?;
    let results = Results::open(&args.results)?;
    let talk = !args.log.quiet;
    if talk {
        doubt_rate(&args.load, &configs[0]);
    }
    if talk && inside.is_some() {
        say(&format!(
            "twamp-blast: no REMOTE was given: measuring a reflector inside this process, {}\n",
            configs[0].remote
        ));
    }
    catch_signals(&stop, talk, Again::EndsWait, Hangup::Ends)?;
    stop_when_unread(&stop)?;
    let Measured { report, parts } = first_that_answers(args, &configs, passed, inside, &stop)?;
    for reason in &report.host.reasons {
        log::info!("tool-limited: {reason}");
    }
    let shown = threads_apart(&parts, args);
    let shown = shown.and_then(|()| results.show(&report, talk));
    let code = verdict(&report);
    shown.map(|()| code)
}

/// Refuses what no sender has, and opens the log.
pub(super) fn begin(args: &SenderArgs) -> Result<(), Error> {
    check_sender(args)?;
    if args.ip.dscp.len() > 1 {
        return Err(usage(
            "--dscp: several are for `controller`, which makes a session for each; use one",
        ));
    }
    Ok(())
}

/// Measures the first of several addresses that answers, each by a session of its own, so that a report is of
/// one of them: the next is tried where this host has no way to one, or nothing has come back for
/// [`SILENCE`]. The last one is measured whatever comes.
fn first_that_answers(
    args: &SenderArgs,
    configs: &[SessionConfig],
    passed: Vec<Passed>,
    inside: Option<Reflecting>,
    stop: &Stop,
) -> Result<Measured, Error> {
    let (mut measured, why) = first_of(args, configs, passed, inside, stop)?;
    let all = std::iter::once(&mut measured.report).chain(&mut measured.parts);
    for report in all {
        report.notes.extend(why.clone().map(Note::from));
    }
    Ok(measured)
}

/// The same, and why it is that address.
pub(super) fn first_of(
    args: &SenderArgs,
    configs: &[SessionConfig],
    mut passed: Vec<Passed>,
    mut inside: Option<Reflecting>,
    stop: &Stop,
) -> Result<(Measured, Option<Peer>), Error> {
    let talk = !args.log.quiet;
    for (index, config) in configs.iter().enumerate() {
        let addr = config.remote.ip();
        let last = index + 1 == configs.len();
        let mut watcher = Watcher::new(args, talk, addr, "thread");
        let mut trial = Trial::new(stop, last);
        let attempt = trial.attempt.clone();
        let measured = engine::measure(config, inside.take(), &attempt, |update| {
            trial.take(update, &mut |update| watcher.show(update));
        });
        let given_up = |measured: &Measured| {
            attempt.requested() || measured.report.packets.received == Some(0)
        };
        let why = match &measured {
            _ if last || stop.requested() => None,
            Ok(measured) if given_up(measured) => {
                let icmp = measured.report.packets.icmp.iter().flatten().next();
                Some(icmp.map_or("no reply".to_owned(), |icmp| format!("ICMP {icmp}")))
            }
            Ok(_) => None,
            Err(failure) => Some(reason(failure)),
        };
        if why.is_none() {
            trial.tell(&mut |update| watcher.show(update));
        }
        watcher.finish();
        let Some(why) = why else {
            return Ok((measured?, why_this(addr, passed)));
        };
        let not_this = not_this(addr, why);
        if talk {
            complain(format!(
                "not {not_this}: trying the next address of this name"
            ));
        }
        passed.push(not_this);
    }
    Err(usage("there is nobody to measure; name a REMOTE"))
}

/// A session towards an address that may not be the one to measure: until something has come back nothing of
/// it is shown, and it ends where nothing does.
struct Trial {
    attempt: Stop,
    answered: bool,
    begun: Option<Instant>,
    held: Vec<Update>,
}

impl Trial {
    fn new(stop: &Stop, last: bool) -> Self {
        Self {
            attempt: stop.part(),
            answered: last,
            begun: None,
            held: Vec::new(),
        }
    }

    fn take(&mut self, update: Update, show: &mut dyn FnMut(&Update)) {
        if let Update::Progress(now) = &update {
            if now.received > 0 {
                self.answered = true;
            } else if now.sent > 0 && !self.answered {
                let begun = *self.begun.get_or_insert_with(os::now);
                if begun.elapsed() > SILENCE {
                    // Once more next time: then it does not wait for replies either.
                    self.attempt.request();
                }
            }
        }
        self.held.push(update);
        if self.answered {
            self.tell(show);
        }
    }

    fn tell(&mut self, show: &mut dyn FnMut(&Update)) {
        for update in self.held.drain(..) {
            show(&update);
        }
    }
}

/// Prints what each of several threads measured: JSON always, for readers only if they want it.
fn threads_apart(threads: &[Report], args: &SenderArgs) -> Result<(), Error> {
    if args.results.json {
        return threads
            .iter()
            .try_for_each(|report| print(&(report.to_json_line() + "\n")));
    }
    if threads.is_empty() || !(args.log.verbose || args.log.debug) {
        return Ok(());
    }
    for (number, report) in (1..).zip(threads) {
        let local = report
            .local
            .map_or(String::new(), |addr| format!(", from {addr}"));
        let heading = format!("--- thread {number} of {}{local} ---", threads.len());
        let summary = text::summary(report, args.results.detail());
        print(&format!("{heading}\n{summary}\n"))?;
    }
    print("--- all threads ---\n")
}

/// Says what `--rate` asks for where that is more than the interface can carry: bits may be meant.
pub(super) fn doubt_rate(args: &LoadArgs, config: &SessionConfig) {
    let Some(rate) = args.rate else { return };
    let interface = config.socket.interface.as_deref();
    let (name, speed) = engine::link_of(config.local.ip(), interface);
    let on_the_wire = rate.per_second() * mean_bits_on_the_wire(&config.sizes);
    #[expect(clippy::cast_precision_loss, reason = "a speed in whole megabits")]
    if on_the_wire <= speed.unwrap_or(SPEED_IN_DOUBT) as f64 {
        return;
    }
    let link = match (name, speed) {
        (Some(name), Some(_)) => format!("more than {name} carries"),
        (Some(name), None) => format!("and {name} tells no speed"),
        (None, _) => "and the interface is not known".to_owned(),
    };
    complain(format!(
        "--rate {rate} means {} packets a second, {} on the wire, {link}; did you mean \
         --bandwidth {rate}bit?",
        text::count(rate.count_in(1_000_000_000)),
        text::megabits(on_the_wire),
    ));
}

/// What a packet takes on an Ethernet, with FCS, padding to 64 octets, preamble and gap.
fn mean_bits_on_the_wire(sizes: &Sizes) -> f64 {
    let octets = |class: &SizeClass| (class.frame + 4).max(64) + 20;
    let bits = |class: &SizeClass| octets(class) as f64 * 8.0 * f64::from(class.weight);
    let packets: f64 = sizes
        .classes
        .iter()
        .map(|class| f64::from(class.weight))
        .sum();
    sizes.classes.iter().map(bits).sum::<f64>() / packets
}
