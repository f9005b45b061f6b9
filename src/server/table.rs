//! All control connections: found by number, by deadline, and by who has been half open longest.

use std::collections::{BTreeMap, BTreeSet};

use super::caller::Whose;
use super::clients::ClientAddress;
use super::connection::Connection;

/// Connections in numbered places, which are used again.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    due: BTreeSet<(i64, usize)>,
    /// Those before Server-Start, oldest first.
    half_open: BTreeMap<u64, (usize, ClientAddress)>,
}

impl Table {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Where the next one will be.
    pub(super) fn next_place(&self) -> usize {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    /// Puts a connection at [`next_place`](Self::next_place).
    pub(super) fn insert(&mut self, connection: Connection) {
        let Whose { place, number } = connection.caller.whose;
        self.half_open
            .insert(number, (place, connection.caller.client));
        match self.free.pop() {
            Some(free) => self.places[free] = Some(connection),
            None => self.places.push(Some(connection)),
        }
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.places.get_mut(place)?.as_mut()
    }

    /// The one that is meant, unless it has gone.
    pub(super) fn get(&mut self, whose: Whose) -> Option<&mut Connection> {
        let found = self.at(whose.place)?;
        (found.caller.whose == whose).then_some(found)
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Connection> {
        let connection = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        self.half_open.remove(&connection.caller.whose.number);
        if let Some(due_ns) = connection.due_ns {
            self.due.remove(&(due_ns, place));
        }
        Some(connection)
    }

    /// Its set-up is over.
    pub(super) fn set_up(&mut self, whose: Whose) {
        self.half_open.remove(&whose.number);
    }

    /// Notes the deadline of a connection anew.
    pub(super) fn reschedule(&mut self, place: usize) {
        let Some(connection) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let due_ns = connection.deadline();
        if due_ns == connection.due_ns {
            return;
        }
        if let Some(before_ns) = connection.due_ns {
            self.due.remove(&(before_ns, place));
        }
        if let Some(due_ns) = due_ns {
            self.due.insert((due_ns, place));
        }
        connection.due_ns = due_ns;
    }

    /// The earliest deadline.
    pub(super) fn next_due_ns(&self) -> Option<i64> {
        self.due.first().map(|(due_ns, _)| *due_ns)
    }

    /// A connection whose deadline has come.
    pub(super) fn due(&self, now_ns: i64) -> Option<usize> {
        let (due_ns, place) = self.due.first()?;
        (*due_ns <= now_ns).then_some(*place)
    }

    /// Who makes room for a client that comes, where at most `most` may be half open. It is the
    /// oldest, but among its own for a client that has more than half of all: so that one that opens
    /// many takes the room of itself.
    pub(super) fn makes_room(
        &self,
        most: usize,
        client: ClientAddress,
        its_own: usize,
    ) -> Option<usize> {
        if self.half_open.len() < most {
            return None;
        }
        let mut oldest = self.half_open.values();
        let found = if its_own > most / 2 {
            oldest.find(|(_, other)| *other == client)
        } else {
            oldest.next()
        };
        found.map(|(place, _)| *place)
    }
}
