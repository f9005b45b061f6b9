//! A `twamp-blast server` process, and Control-Clients and Session-Senders that talk to it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;
use twamp_blast::control::client::{Client, End, Event, Secrets, Wish};
use twamp_blast::control::crypto::Passphrase;
use twamp_blast::wire::control::{AcceptSession, Count, KeyId};
use twamp_blast::wire::protected::{self, Protection, ReflectorPacket, SenderPacket};
use twamp_blast::wire::{
    Accept, Ends, ErrorEstimate, Interval, Modes, SecurityMode, SessionRequest, Sid, TestFormat,
    Timestamp,
};
use zerocopy::IntoBytes;

use super::{LIMIT, Outcome, Running, binary, checked, ntp_now, read_all, words};

/// A file that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// With a name of its own, which only its owner may read.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let name = format!("twamp-blast-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = Self(path);
        file.write(text);
        file.permit(0o600);
        file
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn permit(&self, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The keys of the tests, as a file.
pub(crate) const KEYS: &str = "# test\nalice open sesame\nbob something else\n";

/// What `--mode` takes to have a server with keys serve those without one too.
pub(crate) const ALL_MODES: &str = "unauthenticated,authenticated,encrypted,mixed";

/// A server process.
pub(crate) struct Server {
    running: Running,
    /// Where it listens.
    pub(crate) addresses: Vec<SocketAddr>,
    stderr: Receiver<String>,
}

impl Server {
    /// Starts `twamp-blast server LINE --json` and waits until it listens.
    pub(crate) fn start(line: &str) -> Self {
        Self::start_by(Command::new(binary()), line)
    }

    /// The same by a command that runs the program.
    pub(crate) fn start_by(program: Command, line: &str) -> Self {
        let line = format!("server {line} --json");
        let mut running = Running::start(&mut words(program, &line));
        let pipe = BufReader::new(running.0.stderr.take().unwrap());
        let (tx, stderr) = channel();
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = tx.send(line);
            }
        });
        // What it does without comes before.
        let mut lines = std::iter::repeat_with(|| stderr.recv_timeout(LIMIT));
        let first = lines.find(|line| !line.as_ref().is_ok_and(|line| line.contains(" WARN ")));
        let first = first.and_then(Result::ok).expect("it says that it listens");
        let (_, list) = first
            .split_once("serving on ")
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

    /// Waits for a line on standard error with this part.
    pub(crate) fn wait_for(&self, part: &str) -> String {
        self.lines_until(part).pop().unwrap()
    }

    /// All lines on standard error up to one with this part.
    pub(crate) fn lines_until(&self, part: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.stderr.recv_timeout(LIMIT);
            let line = line.unwrap_or_else(|_| panic!("the server does not say {part}: {lines:?}"));
            let found = line.contains(part);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.running.0.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// Checks that it still serves, by a whole session, and ends it by Ctrl-C; its account.
    pub(crate) fn stop_well(self) -> Value {
        let mut peer = Peer::ready(self.address(), Modes::UNAUTHENTICATED, None);
        peer.whole_session();
        peer.leave();
        self.stop()
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Outcome {
        let stdout = read_all(self.running.0.stdout.take().unwrap());
        let stdout = stdout.recv_timeout(LIMIT).expect("the server ends");
        let code = self.running.0.wait().unwrap().code();
        let lines: Vec<String> = self.stderr.iter().collect();
        Outcome {
            code: code.unwrap_or_else(|| panic!("ended by a signal: {lines:?}")),
            stdout,
            stderr: lines.join("\n"),
        }
    }

    /// Ends it by Ctrl-C; its account.
    pub(crate) fn stop(mut self) -> Value {
        self.running.interrupt();
        let stdout = read_all(self.running.0.stdout.take().unwrap());
        let text = stdout.recv_timeout(LIMIT).expect("the server ends");
        let code = self.running.0.wait().unwrap().code();
        let rest: Vec<String> = self.stderr.iter().collect();
        assert_eq!(code, Some(0), "{text}{rest:?}");
        checked(&text, include_str!("../server.schema.json"))
    }
}

/// A connection that says what the test wants.
pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(crate) fn read_octets(stream: &mut impl Read, len: usize) -> Vec<u8> {
    let mut octets = vec![0; len];
    stream.read_exact(&mut octets).unwrap();
    octets
}

/// What comes until the server closes.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    // A reset is an end too.
    match stream.read_to_end(&mut octets) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => octets,
    }
}

/// A Control-Client.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) client: Client,
    /// Octets that are written at a time.
    pub(crate) piece: usize,
    begun: Instant,
}

impl Peer {
    /// Wants exactly these modes, as `key`: KeyID and passphrase.
    pub(crate) fn new(server: SocketAddr, modes: Modes, key: Option<(&str, &str)>) -> Self {
        let key = key.map(|(key_id, passphrase)| {
            let passphrase = Passphrase::new(passphrase.as_bytes().to_vec());
            (KeyId::new(key_id).unwrap(), passphrase)
        });
        let wish = Wish {
            mode: modes.security().ok(),
            features: modes & Modes::FEATURES,
            key,
            most_iterations: Count::DEFAULT_MOST.value(),
            most_sessions: 5000,
            answer_ns: i64::MAX,
        };
        Self {
            stream: connect(server),
            client: Client::new(0, wish, Secrets::random()),
            piece: usize::MAX,
            begun: Instant::now(),
        }
    }

    /// The same, after a set-up that went well.
    #[track_caller]
    pub(crate) fn ready(server: SocketAddr, modes: Modes, key: Option<(&str, &str)>) -> Self {
        let mut peer = Self::new(server, modes, key);
        peer.set_up().unwrap();
        assert_eq!(peer.client.modes(), Some(modes));
        peer
    }

    pub(crate) fn set_up(&mut self) -> Result<(), End> {
        match self.event()? {
            Event::Ready { .. } => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn now_ns(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }

    /// Writes what there is to be said.
    pub(crate) fn flush(&mut self) {
        let octets = self.client.output().to_vec();
        self.client.sent(octets.len());
        for piece in octets.chunks(self.piece) {
            // A server that has closed says why in what can be read.
            let _ = self.stream.write_all(piece);
        }
    }

    /// The next thing that happens.
    pub(crate) fn event(&mut self) -> Result<Event, End> {
        let mut buffer = [0; 4096];
        loop {
            self.flush();
            match self.client.next_event() {
                Some(Event::Derive(job)) => {
                    let now_ns = self.now_ns();
                    self.client.derived(now_ns, &job.run());
                    continue;
                }
                Some(event) => return Ok(event),
                None => {}
            }
            if let Some(end) = self.client.ended() {
                return Err(*end);
            }
            let now_ns = self.now_ns();
            match self.stream.read(&mut buffer) {
                Ok(0) => self.client.disconnected(),
                Ok(len) => self.client.receive(now_ns, &buffer[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    self.client.disconnected();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &SessionRequest) -> Result<AcceptSession, End> {
        self.client.request(self.now_ns(), request).unwrap();
        match self.event()? {
            Event::Session(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    /// A request from this socket, to any port.
    pub(crate) fn request(&self, sender: &UdpSocket) -> SessionRequest {
        let sender = sender.local_addr().unwrap();
        let receiver = SocketAddr::new(self.stream.peer_addr().unwrap().ip(), 0);
        let padding = TestFormat::new(self.client.modes().unwrap(), 0, [0; 2]);
        SessionRequest {
            ends: Ends::new(sender, receiver).unwrap(),
            padding_len: u32::try_from(padding.unwrap().even_padding()).unwrap(),
            start_time: Timestamp::from_raw(0),
            timeout: Interval::from_ns(0),
            dscp: 0,
            reflect: None,
        }
    }

    /// The address of this side, and a socket at it.
    pub(crate) fn socket(&self) -> UdpSocket {
        socket(self.stream.local_addr().unwrap().ip())
    }

    /// A session that was granted.
    #[track_caller]
    pub(crate) fn session(&mut self) -> Session {
        let socket = self.socket();
        let answer = self.ask(&self.request(&socket)).unwrap();
        assert_eq!(answer.accept(), Accept::Ok, "{answer:?}");
        self.granted(socket, &answer)
    }

    /// The same where the answer is known.
    pub(crate) fn granted(&self, socket: UdpSocket, answer: &AcceptSession) -> Session {
        let server = self.stream.peer_addr().unwrap().ip();
        let modes = self.client.modes().unwrap();
        let mode = match modes.security().unwrap() {
            SecurityMode::Authenticated => Some(protected::Mode::Authenticated),
            SecurityMode::Encrypted => Some(protected::Mode::Encrypted),
            _ => None,
        };
        let protection = mode.map(|mode| {
            let keys = self.client.keys().unwrap().of_session(&answer.sid);
            Protection::new(mode, &keys)
        });
        socket
            .connect(SocketAddr::new(server, answer.port.get()))
            .unwrap();
        Session {
            sid: answer.sid,
            socket,
            protection,
            sent: 0,
        }
    }

    pub(crate) fn start(&mut self) -> Accept {
        self.client.start(self.now_ns()).unwrap();
        match self.event() {
            Ok(Event::Started(accept)) => accept,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn stop(&mut self) {
        self.client.stop(Accept::Ok).unwrap();
        self.flush();
    }

    /// Closes, and waits until the server has done all that it was told: nothing answers a
    /// Stop-Sessions.
    pub(crate) fn leave(mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(read_to_end(&mut self.stream).is_empty());
    }

    /// Asks, starts, has packets reflected, and stops.
    #[track_caller]
    pub(crate) fn whole_session(&mut self) -> Sid {
        let mut session = self.session();
        assert_eq!(self.start(), Accept::Ok);
        for _ in 0..3 {
            session.exchange();
        }
        self.stop();
        session.sid
    }
}

pub(crate) fn socket(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A Session-Sender.
pub(crate) struct Session {
    pub(crate) sid: Sid,
    pub(crate) socket: UdpSocket,
    protection: Option<Protection>,
    sent: u32,
}

impl Session {
    /// Sends a packet and checks its reply.
    #[track_caller]
    pub(crate) fn exchange(&mut self) {
        let number = self.sent;
        self.sent += 1;
        let time = Timestamp::from_raw(u64::from_be_bytes(ntp_now()));
        let mut octets = match &self.protection {
            None => [super::request(number), vec![0; 27]].concat(),
            Some(protection) => {
                let head = protected::Head::new(number.into(), time, ErrorEstimate::UNKNOWN);
                let packet = SenderPacket {
                    head,
                    hmac: [0; 16],
                };
                let mut octets = [packet.as_bytes(), &[0; 64]].concat();
                let step = octets.len();
                protection.prepare::<SenderPacket>(&mut octets, step);
                protection.stamp::<SenderPacket>(&mut octets, step, time);
                octets
            }
        };
        self.socket.send(&octets).unwrap();
        let sent = octets.clone();
        octets.resize(65_536, 0);
        let len = self.socket.recv(&mut octets).expect("a reply");
        octets.truncate(len);
        assert_eq!(len, sent.len());
        match &self.protection {
            None => assert_eq!(octets[24..38], sent[..14]),
            Some(protection) => {
                let mut told = None;
                protection.open::<ReflectorPacket>(&mut octets, len, |_, reply| {
                    told = Some(reply.unwrap().sender.seq.get());
                });
                assert_eq!(told, Some(number));
            }
        }
    }
}
