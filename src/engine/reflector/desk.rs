//! The desk of a thread that reflects: datagrams of a batch are answered, and their replies are
//! queued, get their T3, and leave.
//!
//! T3 is the last thing that happens to a reply, right before the call that sends.

use std::io;

use super::book::Book;
use super::light::Light;
use super::ready::Ready;
use super::reflect::Reflector;
use super::run::run_in;
use super::train::Answer;
use crate::engine::trains::refuses_trains;
use crate::io::{
    BATCH, Mirror, Refusals, RefusedCall, Request, failed_call, is_of_destination, refused_call,
};
use crate::os::{self, EventLoop};
use crate::report::unsent::Unsent;

/// How long a batch of replies waits for room in a full socket.
const ROOM_NS: i64 = 500_000;

/// What a reflector's thread works with beside its sockets.
pub(in crate::engine) struct Desk<B = Light> {
    pub(in crate::engine) reflector: Reflector<B>,
    pub(in crate::engine) events: EventLoop,
    /// What was queued: whose request it answers, by the index in the batch.
    indices: Vec<usize>,
    queued: Vec<Answer>,
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
    /// Sockets with datagrams, as far as was noticed.
    pub(in crate::engine) ready: Ready,
}

impl<B: Book> Desk<B> {
    /// # Errors
    /// The system's, from setting up the event loop.
    pub(in crate::engine) fn new(reflector: Reflector<B>) -> io::Result<Self> {
        Ok(Self {
            reflector,
            events: EventLoop::new()?,
            indices: Vec::with_capacity(BATCH),
            queued: Vec::with_capacity(BATCH),
            waited: false,
            failure: None,
            refusals: Refusals::default(),
            mute: true,
            unsent: Unsent::default(),
            woken: false,
            ready: Ready::default(),
        })
    }

    /// Answers a batch of datagrams on a port.
    pub(in crate::engine) fn answer<M: Mirror>(
        &mut self,
        port: usize,
        socket: &mut M,
        batch: usize,
        now: i64,
    ) {
        self.begin_batch(now);
        for index in 0..batch {
            self.reflect(port, socket, index, now);
        }
        self.flush(socket);
    }

    /// Answers a datagram or bundle of a batch.
    pub(in crate::engine) fn reflect<M: Mirror>(
        &mut self,
        port: usize,
        socket: &mut M,
        index: usize,
        now: i64,
    ) {
        let reflector = &mut self.reflector;
        let mut request = socket.request(index);
        let segment = request.segment.unwrap_or(request.len).max(1);
        let Some(visit) = reflector.admit(port, &request, segment) else {
            return;
        };
        let looks = reflector.book.looks(B::session(&visit));
        let octets = &request.slot[..request.len];
        let run = looks.and_then(|looks| run_in(octets, segment, looks.format, &reflector.guard));
        let answer = if let Some(run) = run {
            let facts = Request {
                slot: &mut [],
                ..request
            };
            match socket.move_ahead(index, run.ahead) {
                Some(octets) => reflector.answer_run(octets, &facts, visit, &run, now),
                None => {
                    let request = &mut socket.request(index);
                    reflector.answer_each(request, visit, segment, now)
                }
            }
        } else {
            reflector.answer_each(&mut request, visit, segment, now)
        };
        if let Some(answer) = answer {
            self.queue(socket, index, answer);
        }
    }

    /// Before the datagrams of a batch are answered.
    pub(in crate::engine) fn begin_batch(&mut self, now: i64) {
        self.waited = false;
        self.reflector.refresh_estimates(now);
    }

    pub(in crate::engine) fn queue<M: Mirror>(
        &mut self,
        socket: &mut M,
        index: usize,
        answer: Answer,
    ) {
        let segment = (answer.len > answer.step).then_some(answer.step);
        socket.queue(index, answer.len, answer.tos, segment);
        self.indices.push(index);
        self.queued.push(answer);
        self.reflector.book.queued(answer.session, answer.replies());
    }

    /// Sends what is queued on this socket.
    pub(in crate::engine) fn flush<M: Mirror>(&mut self, socket: &mut M) {
        let (mut gone, mut stamped) = (0, 0);
        while socket.queued() > 0 {
            let chunk = self.reflector.chunk(&self.queued[gone..]);
            let t3 = Reflector::<B>::now();
            for (offset, answer) in self.queued[gone..gone + chunk].iter().enumerate() {
                let octets = &mut socket.reply_mut(offset)[..answer.len];
                let again = gone + offset < stamped;
                self.reflector.stamp(answer, octets, t3, again);
            }
            stamped = stamped.max(gone + chunk);
            let result = socket.send(chunk);
            // After the call: nothing that can wait stands between T3 and the departure.
            self.reflector.tried(t3);
            match result {
                Ok(sent) => {
                    let left = &self.queued[gone..gone + sent];
                    self.left(left.iter().map(Answer::replies).sum());
                    gone += sent;
                }
                Err(error) if self.wait_for_room(&error) => {}
                Err(error) => {
                    let answer = self.queued[gone];
                    let replies = answer.replies();
                    if replies > 1 && refuses_trains(&error) {
                        self.send_unfolded(socket, self.indices[gone], answer);
                    } else {
                        self.refused(socket.send_call(), &error, answer.session, replies);
                    }
                    socket.skip();
                    gone += 1;
                }
            }
        }
        self.indices.clear();
        self.queued.clear();
    }

    /// Sends the replies of a train that the system does not take as one.
    fn send_unfolded<M: Mirror>(&mut self, socket: &mut M, index: usize, answer: Answer) {
        let Some(route) = socket.route(index) else {
            return self.reflector.unsent(answer.session, answer.replies());
        };
        for at in (0..answer.len).step_by(answer.step) {
            let len = answer.step.min(answer.len - at);
            let mut send = || socket.send_part(index, at, len, &route, answer.tos);
            let result = match send() {
                Err(error) if self.wait_for_room(&error) => send(),
                result => result,
            };
            match result {
                Ok(()) => self.left(1),
                Err(error) => self.refused(socket.send_call(), &error, answer.session, 1),
            }
        }
    }

    /// So many replies left.
    #[inline]
    pub(in crate::engine) fn left(&mut self, replies: u64) {
        self.reflector.totals.counts.reflected += replies;
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
        for token in self.events.ready() {
            self.ready.push(token.0);
        }
        self.waited = true;
        self.woken = true;
        true
    }
}
