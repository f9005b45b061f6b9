//! System calls that this host refuses.

use serde::Serialize;

/// A system call that failed whatever it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedCall {
    /// Its name.
    pub call: String,
    /// The error's name, such as `EPERM`.
    pub errno: String,
    /// The error in words.
    pub error: String,
}

impl FailedCall {
    /// A call that failed with an error of this number.
    #[must_use]
    pub fn new(call: &str, errno: i32) -> Self {
        let errno = nix::errno::Errno::from_raw(errno);
        Self {
            call: call.to_owned(),
            errno: format!("{errno:?}"),
            error: errno.desc().to_owned(),
        }
    }
}
