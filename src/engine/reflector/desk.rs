//! The way out of a thread that reflects: replies of a batch are queued, get their T3, and leave.
//!
//! Who decides about the requests is another question: a [`Reflector`] of TWAMP Light, or the sessions
//! that a Server granted. T3 is the last thing that happens to a reply, right before the call that
//! sends.

use std::io;

use mio::Token;

use crate::engine::trains::refuses_trains;
use crate::io::{
    BATCH, Mirror, Refusals, RefusedCall, failed_call, is_of_destination, refused_call,
};
use crate::os::{self, EventLoop};
use crate::report::unsent::Unsent;

/// Replies, or trains of them, that share one T3 and one call.
pub(in crate::engine) const CHUNK: usize = 4;
/// How long a batch of replies waits for room in a full socket.
const ROOM_NS: i64 = 500_000;

/// A reply or a train that waits to be sent: the slot's index, its octets, and of each reply but the
/// last.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Queued {
    pub(in crate::engine) index: usize,
    pub(in crate::engine) answer: Answer,
    pub(in crate::engine) step: usize,
}

impl Queued {
    pub(in crate::engine) fn replies(&self) -> u64 {
        u64::try_from(self.answer.len.div_ceil(self.step)).unwrap_or(1)
    }
}

/// A reply that is ready but for T3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Answer {
    pub(in crate::engine) len: usize,
    pub(in crate::engine) tos: u8,
    /// Whose it is, as whoever decides tells sessions apart; 0: none, in TWAMP Light.
    pub(in crate::engine) session: u64,
}

/// Decides about the requests of a thread, and keeps the books on its replies.
pub(in crate::engine) trait Decides {
    /// A moment, as replies carry it.
    type Time: Copy;

    /// How many of the queued replies or trains leave with one T3.
    fn chunk(&self, queued: &[Queued]) -> usize {
        queued.len().min(CHUNK)
    }

    /// This moment.
    fn now(&self) -> Self::Time;

    /// Writes T3 into queued replies; `again` into those that have one but did not leave then.
    fn stamp(&mut self, queued: &Queued, octets: &mut [u8], t3: Self::Time, again: bool);

    /// The call that sends is over, whatever became of the replies.
    fn tried(&mut self, t3: Self::Time);

    /// So many replies of a session wait to be sent.
    fn queued(&mut self, session: u64, replies: u64);

    /// So many replies were sent.
    fn sent(&mut self, replies: u64);

    /// So many replies of a session could not be sent.
    fn unsent(&mut self, session: u64, replies: u64);

    /// While there was no room for replies, these sources turned out to be ready.
    fn woken(&mut self, tokens: impl Iterator<Item = Token>);
}

/// What a reflector's thread works with beside its sockets.
pub(in crate::engine) struct Desk<R> {
    pub(in crate::engine) reflector: R,
    pub(in crate::engine) events: EventLoop,
    /// The queued replies, in their order.
    queued: Vec<Queued>,
    /// Room in a full socket was waited for: once a batch, since others must not wait for a socket
    /// that stays full.
    pub(in crate::engine) waited: bool,
    /// Why no reply can be sent any more.
    pub(in crate::engine) failure: Option<RefusedCall>,
    refusals: Refusals,
    /// No reply has left.
    mute: bool,
    /// Replies that could not be sent, by the error.
    pub(in crate::engine) unsent: Unsent,
    /// A wait took what woke it, perhaps for another socket or to stop.
    pub(in crate::engine) woken: bool,
}

impl<R: Decides> Desk<R> {
    /// # Errors
    /// The system's, from setting up the event loop.
    pub(in crate::engine) fn new(reflector: R) -> io::Result<Self> {
        Ok(Self {
            reflector,
            events: EventLoop::new()?,
            queued: Vec::with_capacity(BATCH),
            waited: false,
            failure: None,
            refusals: Refusals::default(),
            mute: true,
            unsent: Unsent::default(),
            woken: false,
        })
    }

    pub(in crate::engine) fn queue<M: Mirror>(
        &mut self,
        socket: &mut M,
        index: usize,
        answer: Answer,
    ) {
        self.queue_train(socket, index, answer, answer.len);
    }

    /// Queues replies of `step` octets each, the last one perhaps shorter.
    pub(in crate::engine) fn queue_train<M: Mirror>(
        &mut self,
        socket: &mut M,
        index: usize,
        answer: Answer,
        step: usize,
    ) {
        let segment = (answer.len > step).then_some(step);
        socket.queue(index, answer.len, answer.tos, segment);
        let queued = Queued {
            index,
            answer,
            step,
        };
        self.queued.push(queued);
        self.reflector.queued(answer.session, queued.replies());
    }

    /// Sends what is queued on this socket.
    pub(in crate::engine) fn flush<M: Mirror>(&mut self, socket: &mut M) {
        let (mut gone, mut stamped) = (0, 0);
        while socket.queued() > 0 {
            let chunk = self.reflector.chunk(&self.queued[gone..]);
            let t3 = self.reflector.now();
            for (offset, queued) in self.queued[gone..gone + chunk].iter().enumerate() {
                let octets = &mut socket.reply_mut(offset)[..queued.answer.len];
                let again = gone + offset < stamped;
                self.reflector.stamp(queued, octets, t3, again);
            }
            stamped = stamped.max(gone + chunk);
            let result = socket.send(chunk);
            // After the call: nothing that can wait stands between T3 and the departure.
            self.reflector.tried(t3);
            match result {
                Ok(sent) => {
                    let left = &self.queued[gone..gone + sent];
                    self.reflector.sent(left.iter().map(Queued::replies).sum());
                    self.left();
                    gone += sent;
                }
                Err(error) if self.wait_for_room(&error) => {}
                Err(error) => {
                    let queued = self.queued[gone];
                    let replies = queued.replies();
                    if replies > 1 && refuses_trains(&error) {
                        self.send_unfolded(socket, queued);
                    } else {
                        self.refused(socket.send_call(), &error, queued.answer.session, replies);
                    }
                    socket.skip();
                    gone += 1;
                }
            }
        }
        self.queued.clear();
    }

    /// Sends the replies of a train that the system does not take as one.
    fn send_unfolded<M: Mirror>(&mut self, socket: &mut M, queued: Queued) {
        let Queued {
            index,
            answer,
            step,
        } = queued;
        let Some(route) = socket.route(index) else {
            return self.reflector.unsent(answer.session, queued.replies());
        };
        for at in (0..answer.len).step_by(step) {
            let len = step.min(answer.len - at);
            let mut send = || socket.send_part(index, at, len, &route, answer.tos);
            let result = match send() {
                Err(error) if self.wait_for_room(&error) => send(),
                result => result,
            };
            match result {
                Ok(()) => {
                    self.left();
                    self.reflector.sent(1);
                }
                Err(error) => self.refused(socket.send_call(), &error, answer.session, 1),
            }
        }
    }

    /// A reply left.
    #[inline]
    pub(in crate::engine) fn left(&mut self) {
        self.refusals.end();
        self.mute = false;
    }

    /// Replies of a session could not be sent.
    #[cold]
    pub(in crate::engine) fn refused(
        &mut self,
        call: &'static str,
        error: &io::Error,
        session: u64,
        replies: u64,
    ) {
        self.failure = self.failure.or(refused_call(error));
        self.refusals.note(call, error, os::monotonic_ns());
        let errno = failed_call(call, error).errno;
        self.unsent.note(errno, replies);
        self.reflector.unsent(session, replies);
    }

    /// Why no reply can be sent any more, as far as the last ones show. What may be of where they go says
    /// nothing of others.
    pub(in crate::engine) fn cannot_send(&self) -> Option<RefusedCall> {
        let refused = self.refusals.for_good(self.mute);
        let refused = refused.filter(|call| !is_of_destination(call.errno));
        self.failure.or(refused)
    }

    pub(in crate::engine) fn wait_for_room(&mut self, error: &io::Error) -> bool {
        if error.kind() != io::ErrorKind::WouldBlock || self.waited {
            return false;
        }
        // What ends it early is a request, or none where the thread looks for them.
        self.events.wait_until(os::monotonic_ns() + ROOM_NS);
        self.reflector.woken(self.events.ready());
        self.waited = true;
        self.woken = true;
        true
    }
}
