//! A Server's account for a person: a few lines when it stops.

use super::figures::{count, dropped, not_sent, refused_calls};
use super::ignored;
use super::reflector::UNUSABLE;
use crate::report::server::Account;

/// What a Server did, for a terminal of 79 columns.
#[must_use]
pub fn summary(account: &Account) -> String {
    let totals = &account.totals;
    let mut lines = format!(
        "connections {}  set up {}  at a time {}  turned away {}\n",
        count(totals.connections),
        count(totals.set_up),
        count(totals.most_connections),
        count(totals.turned_away),
    );
    lines += &format!(
        "wrong mode {}  wrong key {}  broken {}  timed out {}\n",
        count(totals.wrong_mode),
        count(totals.wrong_key),
        count(totals.broken),
        count(totals.timed_out),
    );
    if totals.stop_miscounted > 0 {
        lines += &format!(
            "Stop-Sessions for a wrong number of sessions {}\n",
            count(totals.stop_miscounted)
        );
    }
    lines += &format!(
        "sessions {}  started {}  refused {}\n",
        count(totals.sessions),
        count(totals.sessions_started),
        count(totals.sessions_refused),
    );
    lines += &format!(
        "received {}  reflected {}  bytes {} (UDP payload)\n",
        count(totals.received),
        count(totals.reflected),
        count(totals.received_octets),
    );
    lines += &format!(
        "invalid {}  forged {}  over the limit {}  early {}  of no session {}\n",
        count(totals.invalid),
        count(totals.forged),
        count(totals.over_limit),
        count(totals.early),
        count(totals.strays),
    );
    lines += &ignored::by_kind(&totals.ignored);
    let drops = dropped(totals.kernel_drops, totals.bundled > 0);
    lines += &format!(
        "replies that could not be sent {}  dropped by this host's sockets {drops}\n",
        count(totals.unsent),
    );
    lines += &not_sent(&totals.unsent_by);
    for (number, what) in [
        (totals.bundled, "requests came in bundles, which share T2"),
        (totals.estimates_unusable, UNUSABLE),
        (
            totals.made_room,
            "connections made room for others before their set-up was over",
        ),
        (
            totals.unchecked,
            "keys were not checked: too many waited for that",
        ),
    ] {
        if number > 0 {
            lines += &format!("{} {what}\n", count(number));
        }
    }
    lines + &refused_calls(&account.refused_calls)
}
