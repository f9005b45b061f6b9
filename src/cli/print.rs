//! Results on standard output.

use std::io::Write;

use super::error::Error;
use super::{messages, signals};

/// Prints a result. A reader that has gone away is no failure.
pub(super) fn print(text: &str) -> Result<(), Error> {
    // What was said before comes before.
    messages::settle();
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            signals::note_unread();
            Ok(())
        }
        Err(error) => Err(Error::Runtime(format!(
            "cannot write the report to standard output: {error}"
        ))),
        Ok(()) => Ok(()),
    }
}
