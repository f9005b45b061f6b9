//! What ends a run from outside: signals, and a reader of the results who goes away.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::error::Error;
use super::messages::{self, say};
use crate::engine::Stop;

/// Where nothing wakes the thread, signals are looked for this often.
const LOOK: Duration = Duration::from_millis(50);

/// What SIGHUP asks for.
pub(super) enum Hangup {
    /// The end, as SIGTERM.
    Ends,
    /// The log's file anew; without one, the end.
    Reopens,
    /// The log's file anew, and what else this does.
    Reloads(Box<dyn Fn() + Send>),
}

/// What a second SIGINT or SIGTERM is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It ends the wait for the last replies; only a third one ends the program.
    EndsWait,
    /// It ends the program at once.
    EndsAll,
}

/// The first signal asks the run to finish.
///
/// Where SIGHUP is ignored already, as by nohup, it stays so, but for a Server.
pub(super) fn catch_signals(
    stop: &Stop,
    talk: bool,
    again: Again,
    hangup: Hangup,
) -> Result<(), Error> {
    let mut caught = vec![SIGINT, SIGTERM];
    if matches!(hangup, Hangup::Reloads(_)) || !hangup_is_ignored() {
        caught.push(SIGHUP);
    }
    let signals = Caught::new(&caught);
    let mut signals =
        signals.map_err(|error| Error::Runtime(format!("cannot catch signals: {error}")))?;
    let stop = stop.clone();
    let watch = move || {
        loop {
            let signal = signals.next();
            match (&hangup, signal) {
                (Hangup::Reloads(reload), SIGHUP) => {
                    messages::reopen();
                    reload();
                    continue;
                }
                (Hangup::Reopens, SIGHUP) if messages::has_log_file() => {
                    messages::reopen();
                    continue;
                }
                // A terminal that goes away may say so twice, and the report is still to be written.
                (_, SIGHUP) if stop.requested() => continue,
                _ if stop.requests() > u32::from(again == Again::EndsWait) => {
                    std::process::exit(130)
                }
                _ => {}
            }
            SIGNALLED.store(true, Ordering::Relaxed);
            let next = match again {
                Again::EndsWait if !stop.requested() => "ends any wait for the last replies",
                _ => "ends at once",
            };
            stop.request();
            if talk {
                say(&format!("twamp-blast: ending; Ctrl-C again {next}\n"));
            }
        }
    };
    spawn("signals", watch)
}

/// Signals that wait for the thread which looks after them.
///
/// It must live where a sandbox refuses calls, and where it does not, the program must end all the same:
/// signals then do what they do to a program that catches none.
struct Caught {
    /// Each signal, and whether it has come.
    signals: Vec<(i32, Arc<AtomicBool>)>,
    /// Has an octet for each that came; `None`: the system refuses that.
    woken: Option<PipeReader>,
    left: Arc<AtomicBool>,
}

impl Caught {
    fn new(caught: &[i32]) -> io::Result<Self> {
        let left = Arc::new(AtomicBool::new(false));
        let mut signals = Vec::new();
        // Before the flags: what comes after the thread has gone must not wait for it.
        for signal in caught {
            flag::register_conditional_default(*signal, Arc::clone(&left))?;
            let come = Arc::new(AtomicBool::new(false));
            flag::register(*signal, Arc::clone(&come))?;
            signals.push((*signal, come));
        }
        Ok(Self {
            signals,
            woken: wakes(caught).ok(),
            left,
        })
    }

    /// Waits for the next one.
    fn next(&mut self) -> i32 {
        loop {
            let mut signals = self.signals.iter();
            if let Some((signal, _)) = signals.find(|(_, come)| come.swap(false, Ordering::SeqCst))
            {
                return *signal;
            }
            self.wait();
        }
    }

    fn wait(&mut self) {
        let Some(pipe) = &mut self.woken else {
            return std::thread::park_timeout(LOOK);
        };
        match pipe.read(&mut [0; 64]) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => self.woken = None,
        }
    }
}

impl Drop for Caught {
    /// Nobody looks after signals any more.
    fn drop(&mut self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

/// A pipe into which these signals write.
fn wakes(caught: &[i32]) -> io::Result<PipeReader> {
    let (read, write) = io::pipe()?;
    for signal in caught {
        low_level::pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// Whether the program was started with SIGHUP ignored.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 has bit 0.
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// Nobody reads standard output any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// A signal asked for the end.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// Whether a run ended because the reader of standard output went away.
pub(super) fn ended_by_reader() -> bool {
    UNREAD.load(Ordering::Relaxed) && !SIGNALLED.load(Ordering::Relaxed)
}

/// A write told that the reader has gone away.
pub(super) fn note_unread() {
    UNREAD.store(true, Ordering::Relaxed);
}

/// Asks the run to finish as soon as the reader of its results goes away, as `head -1` does: also where
/// nothing is to be written for a while.
pub(super) fn stop_when_unread(stop: &Stop) -> Result<(), Error> {
    let output = io::stdout().as_raw_fd();
    let stop = stop.clone();
    // A file has no reader, and is refused.
    let Ok(mut poll) = Poll::new() else {
        return Ok(());
    };
    let registry = poll.registry();
    let registered = registry.register(&mut SourceFd(&output), Token(0), Interest::WRITABLE);
    if registered.is_err() {
        return Ok(());
    }
    let watch = move || {
        let mut events = Events::with_capacity(1);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
                // It is told too when a reader makes room.
                Ok(()) if events.iter().any(|e| e.is_error() || e.is_write_closed()) => {
                    note_unread();
                    // Nor is anything waited for that nobody will read.
                    stop.request();
                    return stop.request();
                }
                Ok(()) => {}
            }
        }
    };
    spawn("reader", watch)
}

fn spawn(name: &str, watch: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(watch).map(drop);
    spawned.map_err(|error| Error::Runtime(format!("cannot start the {name} thread: {error}")))
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGUSR1, SIGUSR2};

    use super::*;

    /// Also where the system refuses the pipe, or reading it.
    #[test]
    fn signals_are_told_once_each() {
        for woken in [true, false] {
            let mut caught = Caught::new(&[SIGUSR1, SIGUSR2]).unwrap();
            if !woken {
                caught.woken = None;
            }
            low_level::raise(SIGUSR2).unwrap();
            assert_eq!(caught.next(), SIGUSR2);
            low_level::raise(SIGUSR1).unwrap();
            low_level::raise(SIGUSR2).unwrap();
            assert_eq!([caught.next(), caught.next()], [SIGUSR1, SIGUSR2]);
            assert!(
                caught
                    .signals
                    .iter()
                    .all(|(_, come)| !come.load(Ordering::SeqCst))
            );
            // The handlers stay, and must not end the tests.
            std::mem::forget(caught);
        }
    }

    #[test]
    fn where_the_thread_is_gone_signals_end_the_program() {
        let caught = Caught::new(&[]).unwrap();
        let left = Arc::clone(&caught.left);
        let thread = std::thread::spawn(move || {
            let _caught = caught;
            panic!("as a thread does for which there was no other way");
        });
        assert!(thread.join().is_err());
        assert!(left.load(Ordering::SeqCst));
    }
}
