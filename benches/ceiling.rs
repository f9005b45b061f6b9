//! The ceiling: sender, reflector and receiver that make the system calls of the real thing and do
//! nothing else, over loopback. What the program achieves is a share of what this achieves.
//!
//! `cargo bench --bench ceiling -- --help`

#![allow(clippy::disallowed_methods, reason = "a benchmark takes times")]
#![allow(
    unsafe_code,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    missing_docs
)]

use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use core_affinity::CoreId;
use libc::{c_int, iovec, mmsghdr, sockaddr_in, sockaddr_storage, socklen_t};
use twamp_blast::config::Rate;

const SLOTS: usize = 64;
const SLOT: usize = 65_536;
const BUFFER: c_int = 32 << 20;

/// Roundtrips of a bare loop over loopback.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// UDP payload, bytes
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Packets of a segmentation train; 1: no offload
    #[arg(long, default_value_t = 32)]
    burst: usize,
    /// Packets a second; without it, the highest rate without loss is looked for
    #[arg(long)]
    rate: Option<Rate>,
    /// Length of each run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Without the kernel's receive timestamps
    #[arg(long)]
    no_timestamps: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Slots for one recvmmsg or sendmmsg.
struct Batch {
    octets: Vec<u8>,
    names: Vec<sockaddr_storage>,
    controls: Vec<[u64; 40]>,
    iovs: Vec<iovec>,
    heads: Vec<mmsghdr>,
}

impl Batch {
    fn new() -> Box<Self> {
        let mut batch = Box::new(Self {
            octets: vec![0; SLOTS * SLOT],
            names: vec![unsafe { zeroed() }; SLOTS],
            controls: vec![[0; 40]; SLOTS],
            iovs: vec![
                iovec {
                    iov_base: null_mut(),
                    iov_len: 0
                };
                SLOTS
            ],
            heads: (0..SLOTS).map(|_| unsafe { zeroed() }).collect(),
        });
        for i in 0..SLOTS {
            batch.iovs[i].iov_base = (&raw mut batch.octets[i * SLOT]).cast();
            let iov = &raw mut batch.iovs[i];
            let head = &mut batch.heads[i].msg_hdr;
            head.msg_iov = iov;
            head.msg_iovlen = 1;
        }
        batch
    }

    fn receive(&mut self, socket: &UdpSocket) -> usize {
        for i in 0..SLOTS {
            self.iovs[i].iov_len = SLOT;
            let head = &mut self.heads[i].msg_hdr;
            head.msg_name = (&raw mut self.names[i]).cast();
            head.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            head.msg_control = (&raw mut self.controls[i]).cast();
            head.msg_controllen = size_of::<[u64; 40]>();
        }
        let fd = socket.as_raw_fd();
        let flags = libc::MSG_DONTWAIT;
        let heads = self.heads.as_mut_ptr();
        let n = unsafe { libc::recvmmsg(fd, heads, SLOTS as _, flags, null_mut()) };
        usize::try_from(n).unwrap_or(0)
    }

    /// Octets and segment size of a received bundle.
    fn received(&self, i: usize) -> (usize, usize) {
        let len = self.heads[i].msg_len as usize;
        let mut segment = len;
        unsafe {
            let head = &raw const self.heads[i].msg_hdr;
            let mut next = libc::CMSG_FIRSTHDR(head);
            while !next.is_null() {
                if ((*next).cmsg_level, (*next).cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
                    segment = libc::CMSG_DATA(next).cast::<c_int>().read_unaligned() as usize;
                }
                next = libc::CMSG_NXTHDR(head, next);
            }
        }
        (len, segment.max(1))
    }

    /// Makes slot `i` a train of `len` octets.
    fn arm(&mut self, i: usize, len: usize, segment: usize) {
        self.iovs[i].iov_len = len;
        let control = (&raw mut self.controls[i]).cast();
        let head = &mut self.heads[i].msg_hdr;
        head.msg_control = null_mut();
        head.msg_controllen = 0;
        if len > segment {
            unsafe {
                head.msg_control = control;
                head.msg_controllen = libc::CMSG_SPACE(2) as usize;
                let message = libc::CMSG_FIRSTHDR(head);
                (*message).cmsg_level = libc::SOL_UDP;
                (*message).cmsg_type = libc::UDP_SEGMENT;
                (*message).cmsg_len = libc::CMSG_LEN(2) as usize;
                libc::CMSG_DATA(message)
                    .cast::<u16>()
                    .write_unaligned(segment as u16);
            }
        }
    }

    fn send(&mut self, socket: &UdpSocket, from: usize, to: usize) -> usize {
        let fd = socket.as_raw_fd();
        let heads = unsafe { self.heads.as_mut_ptr().add(from) };
        let n = unsafe { libc::sendmmsg(fd, heads, (to - from) as _, libc::MSG_DONTWAIT) };
        usize::try_from(n).unwrap_or(0)
    }
}

fn set(socket: &UdpSocket, level: c_int, name: c_int, value: c_int) {
    let fd = socket.as_raw_fd();
    let len = size_of::<c_int>() as socklen_t;
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    assert_eq!(done, 0, "socket option {name}");
}

fn socket(args: &Args) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let fd = socket.as_raw_fd();
    let len = size_of::<c_int>() as socklen_t;
    let octets = BUFFER;
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        let value = (&raw const octets).cast();
        if unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, force, value, len) } != 0 {
            set(&socket, libc::SOL_SOCKET, plain, BUFFER);
        }
    }
    if args.burst > 1 {
        set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    if !args.no_timestamps {
        let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags as _);
    }
    socket
}

/// The cores of the process, as they were before any thread was pinned: a thread that is sees its own
/// one only.
static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();

fn pin(index: usize) {
    let cores = CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if cores.len() > 1 {
        core_affinity::set_for_current(cores[index.min(cores.len() - 1)]);
    }
}

/// Offered, sent and received packets of one run, and its seconds.
fn run(args: &Args, rate: f64) -> (u64, u64, f64) {
    let (near, far) = (socket(args), socket(args));
    let far_addr = far.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let ready = Arc::new(Barrier::new(3));
    let receiving = near.try_clone().unwrap();

    let reflector = {
        let (stop, ready) = (Arc::clone(&stop), Arc::clone(&ready));
        std::thread::spawn(move || {
            pin(1);
            let mut batch = Batch::new();
            ready.wait();
            while !stop.load(Ordering::Relaxed) {
                let n = batch.receive(&far);
                for i in 0..n {
                    let (len, segment) = batch.received(i);
                    batch.arm(i, len, segment);
                }
                let mut from = 0;
                while from < n {
                    let sent = batch.send(&far, from, n);
                    from += sent.max(1);
                }
                if n == 0 {
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        })
    };
    let receiver = {
        let (stop, ready) = (Arc::clone(&stop), Arc::clone(&ready));
        let received = Arc::clone(&received);
        std::thread::spawn(move || {
            pin(1);
            let mut batch = Batch::new();
            ready.wait();
            while !stop.load(Ordering::Relaxed) {
                let n = batch.receive(&receiving);
                let mut packets = 0;
                for i in 0..n {
                    let (len, segment) = batch.received(i);
                    packets += len.div_ceil(segment) as u64;
                }
                received.fetch_add(packets, Ordering::Relaxed);
                if n == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        })
    };

    pin(0);
    let mut batch = Batch::new();
    let SocketAddr::V4(to) = far_addr else {
        unreachable!()
    };
    let mut name: sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as _;
    name.sin_port = to.port().to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    for i in 0..SLOTS {
        batch.arm(i, args.payload * args.burst, args.payload);
        batch.heads[i].msg_hdr.msg_name = (&raw mut name).cast();
        batch.heads[i].msg_hdr.msg_namelen = size_of::<sockaddr_in>() as socklen_t;
    }
    ready.wait();
    let begin = Instant::now();
    let burst = args.burst as f64;
    let mut sent = 0_u64;
    loop {
        let elapsed = begin.elapsed().as_secs_f64();
        if elapsed >= args.seconds {
            break;
        }
        let due = (elapsed * rate / burst) as u64 - sent;
        if due == 0 {
            std::hint::spin_loop();
            continue;
        }
        sent += batch.send(&near, 0, SLOTS.min(due as usize)) as u64;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let sent = sent * args.burst as u64;
    let patience = Instant::now();
    while received.load(Ordering::Relaxed) < sent && patience.elapsed() < Duration::from_millis(300)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.store(true, Ordering::Relaxed);
    reflector.join().unwrap();
    receiver.join().unwrap();
    (sent, received.load(Ordering::Relaxed), seconds)
}

/// Whether a rate was held: offered within 1 %, nothing lost.
fn held(args: &Args, rate: f64) -> bool {
    let (sent, received, seconds) = run(args, rate);
    let achieved = sent as f64 / seconds;
    eprintln!(
        "  {rate:>10.0}/s: sent {achieved:.0}/s, lost {}",
        sent - received
    );
    received == sent && achieved > 0.99 * rate
}

fn main() {
    let args = Args::parse();
    assert!(
        args.payload * args.burst <= 65_507,
        "a train has at most 65,507 bytes"
    );
    if let Some(rate) = args.rate {
        let (sent, received, seconds) = run(&args, rate.per_second());
        let lost = sent - received;
        let achieved = received as f64 / seconds;
        println!(
            "{{\"sent\":{sent},\"received\":{received},\"lost\":{lost},\"pps\":{achieved:.0}}}"
        );
        return;
    }
    // The highest rate that is held: doubled until it fails, then halved in on, to 3 %.
    let (mut low, mut high) = (0.0, 50_000.0);
    while held(&args, high) {
        low = high;
        high *= 2.0;
    }
    while high - low > 0.03 * high {
        let middle = (low + high) / 2.0;
        if held(&args, middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    println!(
        "{{\"payload\":{},\"burst\":{},\"ceiling_pps\":{low:.0}}}",
        args.payload, args.burst
    );
}
