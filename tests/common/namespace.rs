//! Network namespaces, made by an ordinary user.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use super::{LIMIT, Outcome, Reflector, Running, binary, words};

/// A network namespace, which ends with the process that holds it: `cat` on a pipe of this test.
pub(crate) struct Namespace(Running);

impl Namespace {
    /// Waits until a command that makes a namespace and runs `cat` in it has got that far.
    pub(crate) fn hold(mut command: Command) -> Result<Self, String> {
        let told = format!("{command:?}");
        let holder = command
            .args(["sh", "-c", "echo ready && exec cat"])
            .stdin(Stdio::piped());
        let mut holder = Running::try_start(holder)?;
        let (tx, first) = channel();
        let stdout = BufReader::new(holder.0.stdout.take().unwrap());
        std::thread::spawn(move || tx.send(stdout.lines().next().and_then(Result::ok)));
        match first.recv_timeout(LIMIT) {
            Ok(Some(line)) if line == "ready" => Ok(Self(holder)),
            _ => Err(format!("no namespace by {told}")),
        }
    }

    /// A namespace of a new user namespace, with the loopback interface up.
    pub(crate) fn new() -> Result<Self, String> {
        let namespace = Self::hold(words(Command::new("unshare"), "-rn"))?;
        namespace.set_up("ip link set lo up")?;
        Ok(namespace)
    }

    /// A further one of the same user namespace.
    pub(crate) fn beside(&self) -> Result<Self, String> {
        let mut command = self.enter("unshare");
        command.arg("-n");
        let namespace = Self::hold(command)?;
        namespace.set_up("ip link set lo up")?;
        Ok(namespace)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// A command that runs in it.
    pub(crate) fn enter(&self, program: &str) -> Command {
        let line = format!("--preserve-credentials -t {} -U -n", self.pid());
        let mut command = words(Command::new("nsenter"), &line);
        // `ip` and `nft` are where an ordinary user does not look.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.arg(program);
        command
    }

    /// Runs shell commands in it.
    pub(crate) fn set_up(&self, script: &str) -> Result<(), String> {
        let mut command = self.enter("sh");
        let done = Running::try_start(command.args(["-ec", script]))?.finish();
        match done.code {
            0 => Ok(()),
            _ => Err(format!("{script}: {}", done.stderr.trim())),
        }
    }

    /// Runs `twamp-blast LINE` in it.
    pub(crate) fn run(&self, line: &str) -> Outcome {
        Running::start(&mut words(self.enter(&binary()), line)).finish()
    }

    pub(crate) fn reflector(&self, line: &str) -> Reflector {
        Reflector::start_by(self.enter(&binary()), line)
    }
}

/// Two namespaces and a cable: 10.9.0.1 and fd09::1 near, .2 and .3, ::2 and ::3 far.
pub(crate) struct Pair {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

impl Pair {
    pub(crate) fn new() -> Result<Self, String> {
        let near = Namespace::new()?;
        let far = near.beside()?;
        near.set_up(&format!(
            "ip link add near mtu 1500 type veth peer name far mtu 1500 netns {}",
            far.pid()
        ))?;
        let plug = |side: &Namespace, name: &str, hosts: &[u32]| {
            for host in hosts {
                side.set_up(&format!("ip address add 10.9.0.{host}/24 dev {name}"))?;
                side.set_up(&format!("ip address add fd09::{host}/64 dev {name} nodad"))?;
            }
            side.set_up(&format!("ip link set {name} up"))
        };
        plug(&near, "near", &[1])?;
        plug(&far, "far", &[2, 3])?;
        Ok(Self { near, far })
    }

    /// Waits until a reflector answers: links and neighbours take their time.
    pub(crate) fn warm_up(&self, remote: SocketAddr) {
        let line = format!("sender {remote} -c 1 --packet-timeout 100ms");
        let answered = (0..100).any(|_| self.near.run(&line).code == 0);
        assert!(answered, "{remote} never answers");
    }
}

/// Skips the rest of a test where its namespaces cannot be made.
macro_rules! or_skip {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(why) => return $crate::common::skip(&why),
        }
    };
}

pub(crate) use or_skip;
