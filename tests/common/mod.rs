//! What the end-to-end tests share: the real binary, run and bounded, and its reports checked.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test crate uses a part, and no two the same one"
)]
#![allow(clippy::disallowed_methods, reason = "a test has a limit of time")]

pub(crate) mod host;
pub(crate) mod namespace;
pub(crate) mod pcap;
#[cfg(target_os = "linux")]
pub(crate) mod sandbox;
pub(crate) mod server;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// No child process lives longer than a test waits for it; this is far above what any needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program under test: `TWAMP_BLAST_BIN`, where the built tests were copied elsewhere.
pub(crate) fn binary() -> String {
    std::env::var("TWAMP_BLAST_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_twamp-blast").into())
}

/// Says that a test could not run here, past the harness, which would swallow it.
pub(crate) fn skip(why: &str) {
    let line = format!("SKIPPED: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The octets that lower-case hexadecimal digits stand for, as in the files of `tests/vectors`.
pub(crate) fn octets(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

/// A child process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::try_start(command).unwrap_or_else(|why| panic!("{why}"))
    }

    /// For programs that a host need not have.
    pub(crate) fn try_start(command: &mut Command) -> Result<Self, String> {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = piped.spawn();
        spawned.map(Self).map_err(|e| format!("{command:?}: {e}"))
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let kill = format!("kill -INT {}", self.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Outcome {
        let stderr = self.0.stderr.take().unwrap();
        self.finish_with(stderr)
    }

    /// The same where the test has begun to read standard error.
    pub(crate) fn finish_with(mut self, stderr: impl Read + Send + 'static) -> Outcome {
        let stdout = match self.0.stdout.take() {
            Some(stdout) => read_all(stdout),
            // The test has read what it wanted.
            None => read_all(std::io::empty()),
        };
        let stderr = read_all(stderr);
        let text = |of: &Receiver<String>| of.recv_timeout(LIMIT).expect("the program ends");
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        // Both pipes are closed: it has ended or is about to.
        let code = self.0.wait().unwrap().code();
        Outcome {
            code: code.unwrap_or_else(|| panic!("ended by a signal: {stderr}")),
            stdout,
            stderr,
        }
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        // The test may have given up.
        let _ = tx.send(text);
    });
    rx
}

/// What a program that ended left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The report of a `--json` run, which must be one line that the schema allows.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        checked(&self.stdout, include_str!("../report.schema.json"))
    }

    /// The report of a run that measured.
    #[track_caller]
    pub(crate) fn measured(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.report()
    }

    /// What `--find-rate --json` found: lines that the schema allows, one a size.
    #[track_caller]
    pub(crate) fn found_rates(&self) -> Vec<Value> {
        let schema = include_str!("../find-rate.schema.json");
        let lines = self.stdout.lines();
        lines.map(|line| checked(line, schema)).collect()
    }

    /// The one line on standard error.
    #[track_caller]
    pub(crate) fn complaint(&self) -> &str {
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("twamp-blast: "), "{self:?}");
        assert!(self.stderr.ends_with('\n'), "{self:?}");
        self.stderr.trim_end()
    }
}

/// One line of JSON, which the schema must allow.
#[track_caller]
fn checked(line: &str, schema: &str) -> Value {
    assert_eq!(line.lines().count(), 1, "{line}");
    let value: Value = serde_json::from_str(line).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let mut errors = String::new();
    for error in validator.iter_errors(&value) {
        writeln!(errors, "{}: {error}", error.instance_path()).unwrap();
    }
    assert!(errors.is_empty(), "{errors}{value:#}");
    value
}

/// A command of words without blanks inside.
pub(crate) fn words(mut command: Command, line: &str) -> Command {
    command.args(line.split_whitespace());
    command
}

/// Runs `twamp-blast LINE` to its end.
pub(crate) fn run(line: &str) -> Outcome {
    Running::start(&mut words(Command::new(binary()), line)).finish()
}

/// Checks that every packet came back, and nothing else; returns how many.
#[track_caller]
pub(crate) fn assert_no_loss(report: &Value, sent: u64) {
    let packets = &report["packets"];
    assert_eq!(packets["sent"], sent, "{report:#}");
    assert_eq!(packets["received"], sent, "{report:#}");
    assert_eq!(packets["lost"], 0, "{report:#}");
}

/// A reflector process.
pub(crate) struct Reflector {
    running: Running,
    /// Where it listens.
    pub(crate) addresses: Vec<SocketAddr>,
    stderr: Receiver<String>,
}

impl Reflector {
    /// Starts `twamp-blast reflector LINE` and waits until it listens.
    pub(crate) fn start(line: &str) -> Self {
        Self::start_by(Command::new(binary()), line)
    }

    /// The same by a command that runs the program elsewhere.
    pub(crate) fn start_by(program: Command, line: &str) -> Self {
        let mut running = Running::start(&mut words(program, &format!("reflector {line}")));
        let pipe = BufReader::new(running.0.stderr.take().unwrap());
        let (tx, stderr) = channel();
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = tx.send(line);
            }
        });
        let first = stderr.recv_timeout(LIMIT).expect("it says that it listens");
        let (_, list) = first
            .split_once("reflecting on ")
            .unwrap_or_else(|| panic!("{first}"));
        let addresses = list.split(" and ").map(|a| a.parse().unwrap()).collect();
        Self {
            running,
            addresses,
            stderr,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.running.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// The next line on standard error.
    pub(crate) fn next_line(&mut self) -> String {
        let line = self.stderr.recv_timeout(LIMIT);
        line.expect("the reflector says more")
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Outcome {
        let stdout = read_all(self.running.0.stdout.take().unwrap());
        let stdout = stdout.recv_timeout(LIMIT).expect("the reflector ends");
        let code = self.running.0.wait().unwrap().code();
        let lines: Vec<String> = self.stderr.iter().collect();
        Outcome {
            code: code.unwrap_or_else(|| panic!("ended by a signal: {lines:?}")),
            stdout,
            stderr: lines.join("\n"),
        }
    }

    /// Ends it by Ctrl-C; what it counted.
    pub(crate) fn stop(mut self) -> Summary {
        self.running.interrupt();
        let stdout = read_all(self.running.0.stdout.take().unwrap());
        let text = stdout.recv_timeout(LIMIT).expect("the reflector ends");
        let code = self.running.0.wait().unwrap().code();
        let rest: Vec<String> = self.stderr.iter().collect();
        assert_eq!(code, Some(0), "{text}{rest:?}");
        Summary(text)
    }
}

/// What a reflector prints at its end.
pub(crate) struct Summary(pub(crate) String);

impl Summary {
    /// The account that a reflector with `--json` prints, checked by its schema.
    #[track_caller]
    pub(crate) fn account(&self) -> Value {
        checked(&self.0, include_str!("../reflector.schema.json"))
    }

    /// The number behind a label.
    #[track_caller]
    pub(crate) fn count(&self, label: &str) -> u64 {
        let fields = self.0.lines().flat_map(|line| line.split("  "));
        let mut values = fields.filter_map(|f| f.strip_prefix(label)?.strip_prefix(' '));
        let value = values
            .next()
            .unwrap_or_else(|| panic!("{label}: {}", self.0));
        let digits = value.split(' ').next().unwrap().replace(',', "");
        digits
            .parse()
            .unwrap_or_else(|e| panic!("{label}: {e}: {}", self.0))
    }
}

/// A reflector inside the test, which answers with what a closure makes of each request.
pub(crate) struct FakeReflector {
    pub(crate) address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

const STOP: &[u8] = b"stop";

impl FakeReflector {
    /// `answer` gets each request and gives the datagrams to send back, in their order.
    pub(crate) fn start(mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::start_with_peer(move |request, _| answer(request))
    }

    /// The same, where the answer depends on who asks.
    pub(crate) fn start_with_peer(
        answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::start_on(UdpSocket::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// The same on a socket of the test's.
    pub(crate) fn start_on(
        socket: UdpSocket,
        mut answer: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        // A busy machine may not come to it for a while. What the system grants has to do.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        let address = socket.local_addr().unwrap();
        let serve = move || {
            let mut buffer = [0; 65_536];
            loop {
                // An ICMP error of a peer that has gone is no reason to end.
                let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if &buffer[..len] == STOP {
                    break;
                }
                for datagram in answer(&buffer[..len], from) {
                    let _ = socket.send_to(&datagram, from);
                }
            }
        };
        Self {
            address,
            thread: Some(std::thread::spawn(serve)),
        }
    }
}

impl Drop for FakeReflector {
    fn drop(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(STOP, self.address).unwrap();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Now, as NTP writes it.
pub(crate) fn ntp_now() -> [u8; 8] {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seconds = unix.as_secs() + 2_208_988_800;
    let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
    ((seconds << 32) | fraction).to_be_bytes()
}

/// A request without padding (RFC 4656 §4.1.2).
pub(crate) fn request(seq: u32) -> Vec<u8> {
    [&seq.to_be_bytes()[..], &ntp_now(), &[0, 1]].concat()
}

/// The 38 octets of a reply before the Sender TTL (RFC 5357 §4.2.1), with T2 = T3.
pub(crate) fn short_reply(request: &[u8], number: u32) -> Vec<u8> {
    let now = ntp_now();
    let head = [&number.to_be_bytes()[..], &now, &[0, 1, 0, 0], &now];
    [&head.concat(), &request[..14]].concat()
}
