//! What the engine asks of the operating system beside sockets: clocks, waiting for a moment, CPUs.
//!
//! Two clocks: [`realtime_ns`] is what timestamps are made of and what the kernel stamps with;
//! [`monotonic_ns`] paces departures and measures durations, and no step of the other disturbs it.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Registry, Token};
use nix::time::{ClockId, clock_gettime};

const NS: i64 = 1_000_000_000;
/// Ready sources that one wait tells of.
const EVENTS: usize = 64;

#[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
fn clock_ns(clock: ClockId) -> i64 {
    // Both clocks exist on every system that nix knows, and a call can fail for no other reason.
    let time = clock_gettime(clock).expect("the system has this clock");
    #[expect(
        clippy::useless_conversion,
        reason = "these types are narrower on some systems"
    )]
    let (seconds, nanoseconds) = (i64::from(time.tv_sec()), i64::from(time.tv_nsec()));
    seconds * NS + nanoseconds
}

/// Nanoseconds since the Unix epoch, UTC as this host knows it.
#[must_use]
pub(crate) fn realtime_ns() -> i64 {
    clock_ns(ClockId::CLOCK_REALTIME)
}

/// Nanoseconds of a clock that never steps.
#[must_use]
pub(crate) fn monotonic_ns() -> i64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// This moment by a clock that never steps, for who waits until another one.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// This moment by the system's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where clocks are read")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Whether something synchronises the system's clock, and the largest error in nanoseconds, where
/// the system tells.
#[must_use]
pub(crate) fn clock_quality() -> Option<(bool, u64)> {
    #[cfg(target_os = "linux")]
    {
        let (synchronised, microseconds) = crate::sys::clock_quality()?;
        Some((synchronised, microseconds.saturating_mul(1000)))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Lets waits of this thread end on time rather than within the default slack of 50 µs.
pub(crate) fn sharpen_timers() {
    #[cfg(target_os = "linux")]
    {
        // A refusal leaves the default, which costs precision of a sleep and nothing else.
        let _ = nix::sys::prctl::set_timerslack(1);
    }
}

/// Puts the calling thread under real-time scheduling (SCHED_FIFO).
///
/// # Errors
/// `PermissionDenied` without the right to it, `Unsupported` where there is no such thing.
pub(crate) fn set_realtime() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        crate::sys::set_realtime(10)
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}

/// Lets the calling thread do its work when nobody else has anything to do, as far as others want
/// the CPU.
pub(crate) fn lower_priority() {
    // A refusal leaves it as it was, which is no worse than any other thread.
    #[cfg(target_os = "linux")]
    let _ = crate::sys::set_nice(19);
}

/// Raises the limit of open files as far as this process may; returns what it then is, `None` where
/// the system does not tell.
pub(crate) fn raise_open_files(wanted: u64) -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let most = hard.max(wanted);
    // Above the hard limit it takes CAP_SYS_RESOURCE.
    if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
        // What is refused here too is left as it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft)
}

/// Has a listener keep the SYN of each connection, for [`syn_tos`].
#[cfg(target_os = "linux")]
pub(crate) fn keep_syns(listener: BorrowedFd<'_>) -> io::Result<()> {
    crate::sys::set_option(listener, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1)
}

/// TOS or Traffic Class octet of the SYN of a connection, where it was kept. It can be asked once.
#[cfg(target_os = "linux")]
pub(crate) fn syn_tos(connection: BorrowedFd<'_>) -> Option<u8> {
    let mut headers = [0; 512];
    let len = crate::sys::saved_syn(connection, &mut headers)?;
    tos_of(headers.get(..len)?)
}

/// Of an IPv4 or IPv6 header (RFC 791 §3.1, RFC 8200 §3).
#[cfg(target_os = "linux")]
fn tos_of(header: &[u8]) -> Option<u8> {
    match *header {
        [first, second, ..] if first >> 4 == 4 => Some(second),
        [first, second, ..] if first >> 4 == 6 => Some(first << 4 | second >> 4),
        _ => None,
    }
}

/// Sets the TOS or Traffic Class octet of all that a socket sends.
#[cfg(target_os = "linux")]
pub(crate) fn set_tos(socket: BorrowedFd<'_>, v6: bool, tos: u8) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TOS)
    };
    crate::sys::set_option(socket, level, name, tos.into())
}

/// CPUs that this process may use, ascending.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let mut cpus: Vec<usize> = ids.iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// Pins the calling thread; returns the CPUs that it is really confined to, `None` where it is not.
pub(crate) fn pin(cpu: usize) -> Option<Vec<usize>> {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    // The library's own answer is no proof: read back.
    let cpus = thread_cpus()?;
    (cpus == [cpu]).then_some(cpus)
}

/// Keeps the calling thread off these CPUs, as long as it may use any other one.
pub(crate) fn keep_off(cpus: &[usize]) {
    #[cfg(target_os = "linux")]
    {
        use nix::sched::{CpuSet, sched_setaffinity};

        let others = allowed_cpus().into_iter().filter(|cpu| !cpus.contains(cpu));
        let mut set = CpuSet::new();
        let known = others.filter(|cpu| set.set(*cpu).is_ok()).count();
        if known > 0 {
            // A refusal costs punctuality, which the report tells of.
            let _ = sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpus;
}

#[cfg(target_os = "linux")]
fn thread_cpus() -> Option<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
    let all = 0..nix::sched::CpuSet::count();
    Some(
        all.filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .collect(),
    )
}

#[cfg(not(target_os = "linux"))]
fn thread_cpus() -> Option<Vec<usize>> {
    None
}

/// CPU time of the whole process in seconds, user and system, and its peak memory in octets.
#[must_use]
pub(crate) fn usage() -> Option<(f64, f64, u64)> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of CPU time stay exact in an f64 for 285 years"
    )]
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    let kilobytes = u64::try_from(usage.max_rss()).ok()?;
    Some((
        seconds(usage.user_time()),
        seconds(usage.system_time()),
        kilobytes * 1024,
    ))
}

/// An event loop that also wakes at a moment: [`mio`]'s own timeouts are whole milliseconds.
#[derive(Debug)]
pub(crate) struct EventLoop {
    poll: Poll,
    events: Events,
    #[cfg(target_os = "linux")]
    timer: nix::sys::timerfd::TimerFd,
}

/// Sleeps until a moment of the monotonic clock, whatever happens meanwhile.
pub(crate) fn sleep_until(moment_ns: i64) {
    while let Ok(left @ 1..) = u64::try_from(moment_ns.saturating_sub(monotonic_ns())) {
        rest(Duration::from_nanos(left));
    }
}

/// Sleeps for a while, or less. `std::thread::sleep` ends the thread where the system refuses it.
pub(crate) fn rest(time: Duration) {
    std::thread::park_timeout(time);
}

impl EventLoop {
    #[cfg(target_os = "linux")]
    const TIMER: Token = Token(usize::MAX);

    /// # Errors
    /// The system's, such as too many open files.
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let events = Events::with_capacity(EVENTS);
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::{AsFd, AsRawFd};

            use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let fd = timer.as_fd().as_raw_fd();
            let mut source = mio::unix::SourceFd(&fd);
            poll.registry()
                .register(&mut source, Self::TIMER, mio::Interest::READABLE)?;
            Ok(Self {
                poll,
                events,
                timer,
            })
        }
        #[cfg(not(target_os = "linux"))]
        Ok(Self { poll, events })
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Sleeps until an event, or a moment of the monotonic clock (`i64::MAX`: none), whichever
    /// comes first. It may wake for nothing.
    pub(crate) fn wait_until(&mut self, moment_ns: i64) {
        if moment_ns == i64::MAX {
            self.poll(None);
            return;
        }
        let remaining = moment_ns - monotonic_ns();
        if remaining <= 0 {
            self.events.clear();
            return;
        }
        #[cfg(target_os = "linux")]
        {
            use nix::sys::time::TimeSpec;
            use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

            let moment = TimeSpec::from_duration(Duration::from_nanos(
                u64::try_from(moment_ns).unwrap_or(0),
            ));
            let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
            if self.timer.set(Expiration::OneShot(moment), flags).is_ok() {
                // After another event the timer stays armed, and may end a later wait for nothing.
                self.poll(None);
                return;
            }
        }
        self.poll(Some(Duration::from_nanos(
            u64::try_from(remaining).unwrap_or(0),
        )));
    }

    /// Takes the events that are there, without waiting.
    pub(crate) fn look(&mut self) {
        self.poll(Some(Duration::ZERO));
    }

    /// What the last wait or look found ready; of more than [`EVENTS`] sources the next one tells.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Token> {
        self.events.iter().map(mio::event::Event::token)
    }

    fn poll(&mut self, timeout: Option<Duration>) {
        // An interrupted wait is a wake-up like any other: the caller looks at its queues.
        let result = self.poll.poll(&mut self.events, timeout);
        let refused = result.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        if refused && timeout != Some(Duration::ZERO) {
            // Where the system refuses to wait, as in a sandbox, nobody spins for it.
            rest(REFUSED_WAIT);
        }
    }
}

/// Between two looks where the system refuses to wait for events.
const REFUSED_WAIT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_its_moment_or_after() {
        let mut events = EventLoop::new().unwrap();
        for ahead in [-5, 0, 1_000, 300_000, 2_000_000] {
            let moment = monotonic_ns() + ahead;
            events.wait_until(moment);
            assert!(monotonic_ns() >= moment);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_tos_octet_is_found_in_either_header() {
        assert_eq!(tos_of(&[0x45, 0xb8, 0, 60]), Some(0xb8));
        assert_eq!(tos_of(&[0x6b, 0x8f, 0xff, 0xff]), Some(0xb8));
        for header in [&[][..], &[0x45], &[0x55, 0xb8]] {
            assert_eq!(tos_of(header), None);
        }
    }

    #[test]
    fn a_waker_ends_a_wait() {
        let mut events = EventLoop::new().unwrap();
        let waker = mio::Waker::new(events.registry(), Token(0)).unwrap();
        waker.wake().unwrap();
        let far = monotonic_ns() + 3_600 * NS;
        events.wait_until(far);
        assert!(monotonic_ns() < far);
        assert_eq!(events.ready().collect::<Vec<_>>(), [Token(0)]);
        // It is told once, by a wait or by a look.
        events.look();
        assert_eq!(events.ready().count(), 0);
        waker.wake().unwrap();
        events.look();
        assert_eq!(events.ready().count(), 1);
        events.wait_until(monotonic_ns());
        assert_eq!(events.ready().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_keeps_off_cpus_unless_there_is_no_other() {
        let cpus = allowed_cpus();
        let off = |off: Vec<usize>| {
            std::thread::spawn(move || {
                keep_off(&off);
                thread_cpus().unwrap()
            })
            .join()
            .unwrap()
        };
        assert_eq!(off(cpus.clone()), cpus);
        if cpus.len() > 1 {
            assert_eq!(off(vec![cpus[0]]), cpus[1..]);
        }
    }

    #[test]
    fn pinning_is_read_back() {
        let cpus = allowed_cpus();
        let last = *cpus.last().unwrap();
        std::thread::spawn(move || assert_eq!(pin(last), Some(vec![last])))
            .join()
            .unwrap();
    }
}
