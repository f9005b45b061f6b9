//! What every run has: what ends it, why it did not come about, and its threads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;

use super::hint::{self, End};
use crate::io::RefusedCall;
use crate::report::FailedCall;

/// Progress is shown this often.
pub(crate) const PROGRESS: Duration = Duration::from_millis(200);

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A socket could not be opened.
    #[error("cannot open {what}: {}{}", plain(source), hint::hint(*end, source))]
    Open {
        /// Which address, and towards which.
        what: String,
        /// The one that the error is of.
        end: End,
        /// The system's error.
        source: io::Error,
    },
    /// A thread could not be set up.
    #[error("cannot start the {thread} thread: {}{}", plain(source), limit(source))]
    Start {
        /// Which thread.
        thread: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A thread panicked: a bug of this program.
    #[error("the {thread} thread ended by a bug of this program; please report it")]
    Bug {
        /// Which thread.
        thread: &'static str,
    },
}

/// The system's words for an error, without its number.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// What to do where it is a limit of this process.
fn limit(error: &io::Error) -> &'static str {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => "; raise the limit of open files: ulimit -n",
        Some(Errno::EAGAIN) => "; raise the limit of threads: ulimit -u",
        _ => "",
    }
}

/// Ends runs early. Clones end the same runs.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    requested: AtomicBool,
    /// How often.
    requests: AtomicU32,
    /// Threads to be woken, as long as they are there; never touched on a packet path.
    wakers: Mutex<Vec<Weak<Waker>>>,
    /// What ends with this one.
    parts: Mutex<Vec<Weak<Self>>>,
}

impl StopInner {
    fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.requested.store(true, Ordering::Relaxed);
        if let Ok(wakers) = self.wakers.lock() {
            for waker in wakers.iter().filter_map(Weak::upgrade) {
                // A thread that has gone needs no waking.
                let _ = waker.wake();
            }
        }
        if let Ok(parts) = self.parts.lock() {
            for part in parts.iter().filter_map(Weak::upgrade) {
                part.request();
            }
        }
    }
}

impl Stop {
    /// Asks every run to end: a session stops sending and waits for the replies under way; one that waits
    /// for them already, as after another request, waits no longer.
    pub fn request(&self) {
        self.0.request();
    }

    /// One that ends runs of its own, and them also where this one is [requested](Self::request).
    #[must_use]
    pub fn part(&self) -> Self {
        let part = Self::default();
        if let Ok(mut parts) = self.0.parts.lock() {
            parts.retain(|part| part.strong_count() > 0);
            parts.push(Arc::downgrade(&part.0));
        }
        if self.requested() {
            part.request();
        }
        part
    }

    /// Whether [`request`](Self::request) was called.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// How often [`request`](Self::request) was called.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.0.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0.requested
    }

    /// Has a thread woken by [`request`](Self::request) for as long as the result is kept.
    #[must_use]
    pub(crate) fn wakes(&self, waker: impl Into<Arc<Waker>>) -> Arc<Waker> {
        let waker = waker.into();
        if let Ok(mut wakers) = self.0.wakers.lock() {
            // Many runs one after the other can have one `Stop`.
            wakers.retain(|waker| waker.strong_count() > 0);
            wakers.push(Arc::downgrade(&waker));
        }
        if self.requested() {
            let _ = waker.wake();
        }
        waker
    }
}

pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| start(name, source))
}

pub(crate) fn start(thread: &'static str, source: io::Error) -> Failure {
    Failure::Start { thread, source }
}

pub(crate) fn join<T>(thread: &'static str, handle: JoinHandle<T>) -> Result<T, Failure> {
    handle.join().map_err(|_| Failure::Bug { thread })
}

/// A call that failed, as reports have it.
pub(crate) fn failed(call: RefusedCall) -> FailedCall {
    FailedCall::new(call.call, call.errno)
}
