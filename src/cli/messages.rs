//! Messages: lines on standard error and in the log.
//!
//! A thread of their own writes them, so that a reader who stalls, or a disk that is full, stops nobody
//! who measures or serves. What waits is bounded; what finds no room is counted, and told as soon as
//! there is room again. At the end a moment is given to what waits, and no more.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clap::Args;

use super::error::{Error, usage};
use crate::os;

/// Standard error's writer; without a thread, lines are written where they are said.
static STDERR: OnceLock<Option<Writer>> = OnceLock::new();
/// The log's, where `--logfile` names another place.
static LOG: OnceLock<Writer> = OnceLock::new();

/// Octets that may wait; a terminal shows that many in a moment.
const MOST_WAITING: usize = 256 << 10;
/// Octets that are written at once: what a pipe takes whole.
const PIECE: usize = 4096;
/// A reader who takes nothing for so long is not waited for.
const STALLED: Duration = Duration::from_millis(300);
/// The longest time that is given to what waits, at the end.
const MOST_WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(super) struct LogArgs {
    /// No messages, only results
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Say what is done: sessions, and the replies that a sender gets; for one module alone set TWAMP_BLAST_LOG, such as
    /// twamp_blast::engine=debug
    #[arg(short, long, conflicts_with = "quiet")]
    pub(super) verbose: bool,
    /// Say everything; a sender shows packets field by field
    #[arg(short, long, conflicts_with_all = ["quiet", "verbose"])]
    pub(super) debug: bool,
    /// Write messages to a file (-: standard output); SIGHUP has a reflector and a server open it
    /// again [default: standard error]
    #[arg(short, long, value_name = "FILE")]
    pub(super) logfile: Option<PathBuf>,
}

/// One line to the user.
pub(super) fn complain(what: impl Display) {
    say(&format!("twamp-blast: {what}\n"));
}

/// Text on standard error, soon.
pub(super) fn say(text: &str) {
    match STDERR.get_or_init(|| Writer::start(Sink::Stderr)) {
        Some(writer) => writer.hand_over(text.as_bytes()),
        // Nobody is left to be told that this failed.
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until what was said has been written, but not for a reader who stalls: before something is
/// written that must come after it, and at the end.
pub(super) fn settle() {
    let stderr = STDERR.get().and_then(Option::as_ref);
    for writer in LOG.get().into_iter().chain(stderr) {
        writer.settle();
    }
}

/// Whether the log is in a file, which [`reopen`] makes anew.
pub(super) fn has_log_file() -> bool {
    LOG.get().is_some_and(|writer| writer.file)
}

/// Opens the log's file again, under its name: whoever rotates logs has moved the old one away.
pub(super) fn reopen() {
    if let Some(writer) = LOG.get() {
        let mut state = writer.shared.lock();
        state.reopen = true;
        writer.shared.changed.notify_all();
    }
}

/// Refuses log lines among lines of JSON.
pub(super) fn check_log(args: &LogArgs, json: bool) -> Result<(), Error> {
    let stdout = args
        .logfile
        .as_ref()
        .is_some_and(|path| path.as_os_str() == "-");
    if json && stdout {
        return Err(usage(
            "--logfile -: with --json, standard output is for JSON alone; name a file",
        ));
    }
    Ok(())
}

/// Has log lines written where the user wants them.
pub(super) fn open_log(args: &LogArgs) -> Result<(), Error> {
    let level = match args {
        LogArgs { quiet: true, .. } => log::LevelFilter::Off,
        LogArgs { debug: true, .. } => log::LevelFilter::Debug,
        LogArgs { verbose: true, .. } => log::LevelFilter::Info,
        _ => log::LevelFilter::Warn,
    };
    let sink = match &args.logfile {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Sink::Stdout),
        Some(path) => {
            let file = open(path);
            let file =
                file.map_err(|error| usage(format!("--logfile {}: {error}", path.display())))?;
            let path = path.clone();
            Some(Sink::File { file, path })
        }
    };
    let lines = match sink.map(Writer::start) {
        None => Lines::Said,
        Some(Some(writer)) => {
            LOG.get_or_init(|| writer);
            Lines::Logged
        }
        Some(None) => {
            return Err(Error::Runtime(
                "cannot start the log's thread; raise the limit of threads: ulimit -u".to_owned(),
            ));
        }
    };
    env_logger::Builder::new()
        .filter_level(level)
        // More or less of one module: TWAMP_BLAST_LOG=twamp_blast::engine=debug
        .parse_env("TWAMP_BLAST_LOG")
        .format_timestamp_micros()
        .target(env_logger::Target::Pipe(Box::new(lines)))
        .init();
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Where `env_logger` writes, a whole line at a time.
enum Lines {
    Said,
    Logged,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match (&self, LOG.get()) {
            (Self::Logged, Some(writer)) => writer.hand_over(line),
            _ => say(&String::from_utf8_lossy(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines go in the end.
enum Sink {
    Stderr,
    Stdout,
    File {
        file: File,
        path: PathBuf,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(piece),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(piece).and_then(|()| out.flush())
            }
            Self::File { file, .. } => file.write_all(piece),
            #[cfg(test)]
            Self::Test(to) => to.write_all(piece),
        }
    }

    /// Says what is wrong with the log; of standard output and error nobody is left to be told.
    fn complain(&self, what: &str, error: &io::Error) {
        if let Self::File { path, .. } = self {
            complain(format!("--logfile {}: {what}: {error}", path.display()));
        }
    }
}

/// A thread that writes, and what waits for it.
struct Writer {
    shared: Arc<Shared>,
    file: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told of lines, of a wish to reopen, and of each piece that was written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that found no room since the last one was told.
    not_shown: u64,
    /// Pieces written so far.
    written: u64,
    /// The thread has taken something that it has not written yet.
    busy: bool,
    /// `written` when somebody waited in vain.
    stalled_at: Option<u64>,
    reopen: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// `None`: the system has no thread to spare.
    fn start(sink: Sink) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let file = matches!(sink, Sink::File { .. });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("messages".to_owned());
        let started = thread.spawn(move || write(&of_thread, sink));
        started.is_ok().then_some(Self { shared, file })
    }

    /// Never waits for a reader.
    fn hand_over(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        if state.waiting.len() + line.len() > MOST_WAITING {
            state.not_shown += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        self.shared.changed.notify_all();
    }

    fn settle(&self) {
        let begun = os::now();
        let mut state = self.shared.lock();
        let mut seen = state.written;
        while (state.busy || !state.waiting.is_empty()) && begun.elapsed() < MOST_WAIT {
            if state.stalled_at == Some(state.written) {
                return;
            }
            let changed = self.shared.changed.wait_timeout(state, STALLED);
            let timed_out;
            (state, timed_out) = changed.unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() && state.written == seen {
                state.stalled_at = Some(seen);
            }
            seen = state.written;
        }
    }
}

/// Writes what waits, as long as the program runs.
fn write(shared: &Shared, mut sink: Sink) {
    let mut failing = false;
    loop {
        let mut state = shared.lock();
        state.busy = false;
        shared.changed.notify_all();
        while state.waiting.is_empty() && state.not_shown == 0 && !state.reopen {
            let waited = shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let mut text = std::mem::take(&mut state.waiting);
        let not_shown = std::mem::take(&mut state.not_shown);
        let reopen = std::mem::take(&mut state.reopen);
        state.busy = true;
        drop(state);
        if not_shown > 0 {
            // These came after what waited.
            let lines = match not_shown {
                1 => "1 line was not shown: what was before it was".to_owned(),
                n => format!("{n} lines were not shown: those before them were"),
            };
            text.extend(format!("twamp-blast: {lines} not read in time\n").bytes());
        }
        if reopen && let Sink::File { file, path } = &mut sink {
            match open(path) {
                Ok(anew) => *file = anew,
                Err(error) => sink.complain("the old file is still in use", &error),
            }
        }
        for piece in text.chunks(PIECE) {
            let done = sink.write(piece);
            if let Err(error) = &done
                && !failing
            {
                sink.complain("lines are lost", error);
            }
            failing = done.is_err();
            shared.lock().written += 1;
            shared.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A reader that takes a piece whenever it is allowed to, and passes it on.
    struct Reader {
        allowed: Receiver<()>,
        took: Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            if self.allowed.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let text = String::from_utf8(piece.to_vec()).unwrap();
            self.took.send(text).map_err(io::Error::other)?;
            Ok(piece.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer() -> (Writer, Sender<()>, Receiver<String>) {
        let (allow, allowed) = channel();
        let (took, taken) = channel();
        let sink = Sink::Test(Box::new(Reader { allowed, took }));
        (Writer::start(sink).unwrap(), allow, taken)
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (writer, allow, taken) = writer();
        for _ in 0..3 {
            allow.send(()).unwrap();
        }
        for number in 0..3 {
            writer.hand_over(format!("line {number}\n").as_bytes());
        }
        let mut text = String::new();
        while text != "line 0\nline 1\nline 2\n" {
            text += &taken.recv_timeout(Duration::from_secs(30)).expect("a line");
        }
    }

    #[test]
    fn a_reader_who_stalls_stops_nobody_and_is_told_how_much_is_missing() {
        let (writer, allow, taken) = writer();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        // Far more than may wait: this would hang if it waited for the reader.
        let handed = 10 * MOST_WAITING / line.len();
        for _ in 0..handed {
            writer.hand_over(&line);
        }
        assert!(writer.shared.lock().waiting.len() <= MOST_WAITING);
        // Nobody reads: it is waited for once, and then no more.
        writer.settle();
        assert!(writer.shared.lock().stalled_at.is_some());
        writer.settle();

        let (mut shown, mut not_shown) = (0, 0);
        while shown + not_shown < handed {
            allow.send(()).unwrap();
            let piece = taken.recv_timeout(Duration::from_secs(30)).expect("more");
            shown += piece.matches('\n').count();
            for told in piece.lines().filter(|line| line.contains("not shown")) {
                shown -= 1;
                let number = told.split(' ').nth(1).unwrap();
                not_shown += number.parse::<usize>().unwrap();
            }
        }
        assert!(not_shown > 0);
        assert_eq!(shown + not_shown, handed);
    }
}
