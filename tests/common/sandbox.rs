//! A system that refuses some calls, as the sandboxes of containers and service managers do: a seccomp
//! filter, which an ordinary user may set up for a program that it starts.

use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, c_uint, c_ulong, sock_filter};

/// A call that is refused, by this errno; with errno 0 nothing happens and the call says that all went
/// well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    call: c_long,
    /// The second and the third argument that it is refused with; `None`: any.
    arguments: Option<(i32, i32)>,
    errno: i32,
}

/// A call that is refused whatever it is asked.
pub(crate) fn refused(call: c_long, errno: i32) -> Refused {
    Refused {
        call,
        arguments: None,
        errno,
    }
}

/// A socket option that is refused.
pub(crate) fn option(level: i32, name: i32, errno: i32) -> Refused {
    Refused {
        call: libc::SYS_setsockopt,
        arguments: Some((level, name)),
        errno,
    }
}

/// Has a program that is not started yet run in such a system.
pub(crate) fn confine(mut program: Command, calls: &[Refused]) -> Command {
    let filter = filter(calls);
    let confine = move || {
        let rules = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or(0),
            filter: filter.as_ptr().cast_mut(),
        };
        let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
        #[expect(unsafe_code, reason = "no library that is used here offers this")]
        // SAFETY: the filter outlives the call, which copies it.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const rules, 0, 0),
            ]
        };
        match results {
            [0, 0] => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    #[expect(unsafe_code, reason = "the filter is of the program, not of the test")]
    // SAFETY: between fork and exec there are two system calls, and no allocation.
    unsafe {
        program.pre_exec(confine)
    };
    program
}

fn filter(calls: &[Refused]) -> Vec<sock_filter> {
    // Where the number of the call stands in `seccomp_data`, and the low half of its second and third
    // argument on hosts that have the low half first.
    const NUMBER: u32 = 0;
    const ARGUMENTS: [u32; 2] = [24, 32];

    let load = |at| command(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, at);
    // Where it is not this, so many commands are passed over.
    let only = |value, over| command(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, over, value);
    let end = |action| command(libc::BPF_RET | libc::BPF_K, 0, action);
    let word = |value: i32| u32::from_ne_bytes(value.to_ne_bytes());

    let mut filter = Vec::new();
    for refused in calls {
        let over = if refused.arguments.is_some() { 5 } else { 1 };
        filter.push(load(NUMBER));
        filter.push(only(u32::try_from(refused.call).unwrap(), over));
        if let Some((first, second)) = refused.arguments {
            filter.extend([load(ARGUMENTS[0]), only(word(first), 3)]);
            filter.extend([load(ARGUMENTS[1]), only(word(second), 1)]);
        }
        filter.push(end(libc::SECCOMP_RET_ERRNO | word(refused.errno)));
    }
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    filter
}

fn command(code: c_uint, over: u8, value: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf: over,
        k: value,
    }
}
