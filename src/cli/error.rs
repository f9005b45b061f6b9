//! Why a command ended without doing its work, and the exit code of that.

use std::fmt::Display;

use crate::engine::Failure;

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The user's: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The system's: exit code 1.
    #[error("{0}")]
    Runtime(String),
    /// The peer's: exit code 4.
    #[error("{0}")]
    Refused(String),
    /// By a signal, before anything was measured: exit code 130.
    #[error("interrupted before anything was measured")]
    Interrupted,
    #[error(transparent)]
    Failure(#[from] Failure),
}

pub(super) fn usage(text: impl Display) -> Error {
    Error::Usage(text.to_string())
}

pub(super) fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Runtime(_) | Error::Failure(_) => 1,
        Error::Refused(_) => 4,
        Error::Interrupted => 130,
    }
}
