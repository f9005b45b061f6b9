//! How good this host's clock is.

use crate::os;
use crate::wire::{ErrorEstimate, Format};

/// This host's Error Estimate at this moment (RFC 4656 §4.1.2).
pub(crate) fn error_estimate(format: Format) -> ErrorEstimate {
    match os::clock_quality() {
        Some((synchronised, error_ns)) => ErrorEstimate::new(synchronised, format, error_ns),
        None => {
            let unknown = ErrorEstimate::UNKNOWN.error_ns().unwrap_or(u64::MAX);
            ErrorEstimate::new(false, format, unknown)
        }
    }
}
