//! What is shown of a session while it runs.

use std::net::IpAddr;

use super::messages::say;
use super::print::print;
use super::progress::{News, ProgressLine};
use super::sender_args::SenderArgs;
use crate::engine::{self, Update};
use crate::output::{heading, live, text};
use crate::wire::{Reply, parse_request};

/// Shows what happens while a session runs.
pub(super) struct Watcher {
    progress: ProgressLine,
    news: News,
    responses: bool,
    timestamps: bool,
    json: bool,
    peer: IpAddr,
    /// What each flow is, where there are several.
    flow: &'static str,
}

impl Watcher {
    pub(super) fn new(args: &SenderArgs, talk: bool, peer: IpAddr, flow: &'static str) -> Self {
        let quiet = args.print_responses || args.log.verbose || args.log.debug;
        Self {
            progress: ProgressLine::new(talk && !quiet),
            news: News::default(),
            responses: args.print_responses,
            timestamps: args.timestamps,
            json: args.results.json,
            peer,
            flow,
        }
    }

    /// Nothing more will happen.
    pub(super) fn finish(&mut self) {
        self.progress.clear();
    }

    pub(super) fn show(&mut self, update: &Update) {
        match update {
            Update::Progress(now) => {
                self.news.tell(&now.ignored);
                self.progress.show(*now);
            }
            Update::Happened {
                thread,
                at_ns,
                what,
            } => {
                let flow = self.flow;
                let of = thread.map_or(String::new(), |number| format!("{flow} {number}: "));
                log::info!("{of}{}", live::logged(what, self.peer));
                if self.responses {
                    let at = match self.timestamps {
                        true => heading::moment(*at_ns) + " ",
                        false => String::new(),
                    };
                    self.line(&format!("{at}{of}{}", live::line(what, self.peer)));
                }
            }
            Update::NotShown(count) => {
                log::info!("({} more not shown)", text::count(*count));
                if self.responses {
                    self.line(&format!("({} more not shown)", text::count(*count)));
                }
            }
            Update::Packet(packet) => log::debug!("{}", decoded(packet)),
            Update::Interval(interval) if self.json => self.out(&(interval.to_json_line() + "\n")),
            Update::Interval(interval) => self.out(&live::block(interval)),
        }
    }

    /// With `--json`, standard output is for JSON alone.
    fn line(&mut self, line: &str) {
        if self.json {
            self.progress.clear();
            say(&format!("{line}\n"));
        } else {
            self.out(&format!("{line}\n"));
        }
    }

    fn out(&mut self, text: &str) {
        self.progress.clear();
        // Where the disk is full the measurement goes on, and the report at the end says what it can. A
        // reader that has gone away ends it: see `stop_when_unread`.
        let _ = print(text);
    }
}

/// A packet field by field.
fn decoded(packet: &engine::PacketCopy) -> String {
    let octets = packet.octets();
    let (way, fields) = if packet.came {
        let reply = Reply::parse(octets);
        ("received", reply.map(|reply| reply.to_string()))
    } else {
        let request = parse_request(octets);
        ("sent", request.map(|request| request.to_string()))
    };
    let fields = fields.unwrap_or_else(|malformed| {
        let hex: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("no test packet: {malformed}: {}", hex.join(" "))
    });
    let before = match packet.not_shown {
        0 => String::new(),
        n => format!(" ({} more not shown)", text::count(n)),
    };
    format!("{way} {} octets: {fields}{before}", packet.len)
}
