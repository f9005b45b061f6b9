//! Checks of Tokens: milliseconds of work each, on threads of their own and in fair turns.
//!
//! Each client has a queue, and the queues take turns: one that sends many Set-Up-Responses waits for
//! itself. When too many wait, the longest queue loses its newest.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::Waker;

use super::caller::Whose;
use super::clients::ClientAddress;
use crate::control::crypto::{SessionKeys, TokenCheck};
use crate::os;

/// Checks that wait, and threads that do them.
pub(super) struct Checks {
    queues: Queues<(Whose, TokenCheck)>,
    /// Handed over and not done.
    under_way: usize,
    jobs: Sender<(Whose, TokenCheck)>,
    done: Receiver<Checked>,
    threads: Vec<JoinHandle<()>>,
}

/// What a check came to.
pub(super) type Checked = (Whose, Option<SessionKeys>);

impl Checks {
    /// Starts the threads; `waker` is woken when one is done with a check. At most `most` wait.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn start(threads: usize, most: usize, waker: &Arc<Waker>) -> io::Result<Self> {
        let (jobs, taken) = bounded::<(Whose, TokenCheck)>(AHEAD * threads.max(1));
        let (tell, done) = unbounded();
        let start = |_| {
            let (taken, tell, waker) = (taken.clone(), tell.clone(), Arc::clone(waker));
            let work = move || {
                os::lower_priority();
                for (whose, check) in taken {
                    if tell.send((whose, check.run())).is_err() || waker.wake().is_err() {
                        break;
                    }
                }
            };
            let builder = std::thread::Builder::new().name("keys".to_owned());
            builder.spawn(work)
        };
        Ok(Self {
            queues: Queues::new(most),
            under_way: 0,
            jobs,
            done,
            threads: (0..threads.max(1)).map(start).collect::<io::Result<_>>()?,
        })
    }

    /// Has a check done. Returns whose check will not be done in its place, if there are too many.
    pub(super) fn add(
        &mut self,
        client: ClientAddress,
        whose: Whose,
        check: TokenCheck,
    ) -> Option<Whose> {
        let dropped = self.queues.push(client, (whose, check));
        self.hand_over();
        dropped.map(|(whose, _)| whose)
    }

    /// Its connection has gone.
    pub(super) fn forget(&mut self, client: ClientAddress, whose: Whose) {
        self.queues.remove(client, |(other, _)| *other == whose);
    }

    /// The next one that is done.
    pub(super) fn next(&mut self) -> Option<Checked> {
        let checked = self.done.try_recv().ok()?;
        self.under_way -= 1;
        self.hand_over();
        Some(checked)
    }

    /// Ends the threads, without what still waits.
    pub(super) fn finish(self) {
        drop(self.jobs);
        for thread in self.threads {
            // One that panicked has said so itself.
            let _ = thread.join();
        }
    }

    /// Each thread has a check to do and one to go on with; the rest waits here, where turns are
    /// taken.
    fn hand_over(&mut self) {
        while self.under_way < AHEAD * self.threads.len() {
            let Some(job) = self.queues.pop() else {
                break;
            };
            // There is room for as many as can be under way.
            if self.jobs.try_send(job).is_ok() {
                self.under_way += 1;
            }
        }
    }
}

/// Checks of one thread: the one at hand, and the next.
const AHEAD: usize = 2;

/// A queue for each client, and turns.
struct Queues<T> {
    waiting: HashMap<ClientAddress, VecDeque<T>>,
    /// Those that wait, each once.
    turns: VecDeque<ClientAddress>,
    len: usize,
    most: usize,
}

impl<T> Queues<T> {
    fn new(most: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
            most,
        }
    }

    /// Returns what had to go for it: the newest of the longest queue, which may be the item itself.
    fn push(&mut self, client: ClientAddress, item: T) -> Option<T> {
        let queue = self.waiting.entry(client).or_default();
        if queue.is_empty() {
            self.turns.push_back(client);
        }
        queue.push_back(item);
        self.len += 1;
        if self.len <= self.most {
            return None;
        }
        let own = queue.len();
        let longest = self.waiting.iter().max_by_key(|(_, queue)| queue.len());
        // Among equals it is the one that came last.
        let longer = longest.filter(|(_, queue)| queue.len() > own);
        let longest = longer.map_or(client, |(client, _)| *client);
        let dropped = self.waiting.get_mut(&longest)?.pop_back();
        self.len -= 1;
        self.tidy(longest);
        dropped
    }

    fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&client)?;
        let item = queue.pop_front();
        self.len -= 1;
        if queue.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        item
    }

    fn remove(&mut self, client: ClientAddress, which: impl Fn(&T) -> bool) {
        if let Some(queue) = self.waiting.get_mut(&client)
            && let Some(at) = queue.iter().position(which)
        {
            queue.remove(at);
            self.len -= 1;
            self.tidy(client);
        }
    }

    fn tidy(&mut self, client: ClientAddress) {
        if self.waiting.get(&client).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&client);
            self.turns.retain(|turn| *turn != client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientAddress {
        ClientAddress::of([192, 0, 2, last].into())
    }

    #[test]
    fn clients_take_turns() {
        let mut queues = Queues::new(10);
        for (from, item) in [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'x'), (3, 'p'), (2, 'y')] {
            assert_eq!(queues.push(client(from), item), None);
        }
        let order: String = std::iter::from_fn(|| queues.pop()).collect();
        assert_eq!(order, "axpbyc");
        assert_eq!((queues.len, queues.waiting.len()), (0, 0));
    }

    #[test]
    fn the_longest_queue_makes_room() {
        let mut queues = Queues::new(3);
        for item in ['a', 'b', 'c'] {
            assert_eq!(queues.push(client(1), item), None);
        }
        assert_eq!(queues.push(client(1), 'd'), Some('d'));
        assert_eq!(queues.push(client(2), 'x'), Some('c'));
        queues.remove(client(2), |item| *item == 'x');
        queues.remove(client(1), |item| *item == 'a');
        queues.remove(client(1), |item| *item == 'z');
        assert_eq!(queues.push(client(3), 'p'), None);
        assert_eq!(queues.push(client(4), 'q'), None);
        assert_eq!(queues.push(client(5), 'r'), Some('r'));
        let order: String = std::iter::from_fn(|| queues.pop()).collect();
        assert_eq!(order, "bpq");
    }
}
