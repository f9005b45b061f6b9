//! The HdrHistogram log: one line for each direction, which the tools of that family read and merge.
//!
//! Opened before the run, so that a file that cannot be written costs no measurement. Values are
//! nanoseconds with three significant digits up to one hour, the same in every run: logs add up.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::figures::delay;
use super::text::one_way_doubt;
use crate::report::{self, Report};

/// A file that takes the histograms of one run.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Opens `path` for writing, and makes it where it is not there; what it holds is kept until
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// The system's: no such folder, no permission.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        file.map(Self)
    }

    /// Writes the run, in place of what the file held, and returns a sentence for each direction
    /// that had to be left out: no HdrHistogram holds a negative delay.
    ///
    /// # Errors
    /// The system's, such as a full disk.
    pub fn write(self, report: &Report) -> io::Result<Vec<String>> {
        if self.0.metadata()?.is_file() {
            self.0.set_len(0)?;
        }
        let mut out = BufWriter::new(self.0);
        let left_out = write(report, &mut out)?;
        out.flush()?;
        Ok(left_out)
    }
}

fn write(report: &Report, out: &mut impl Write) -> io::Result<Vec<String>> {
    let (delays, cells) = (&report.delay_ns, &report.histograms);
    let directions = [
        ("roundtrip", &delays.roundtrip, &cells.roundtrip),
        ("outbound", &delays.outbound, &cells.outbound),
        ("inbound", &delays.inbound, &cells.inbound),
    ];
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    // The base of the intervals' times; to the millisecond, as the log has them.
    let start = started(report).unwrap_or(SystemTime::UNIX_EPOCH);
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[twamp-blast {}]", report.version))
        .add_comment("[values in nanoseconds, Interval_Max in milliseconds]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(NS_A_MS);
    if one_way_doubt(report).is_some() {
        builder.add_comment("[outbound and inbound contain the offset of the two clocks]");
    }
    let mut log = builder.begin_log_with(out, &mut serializer)?;
    let duration = Duration::from_nanos(report.duration_ns.unwrap_or(0));
    let mut left_out = Vec::new();
    for (name, figures, cells) in directions {
        let Some(figures) = figures else {
            log.write_comment(&format!("[{name}: no samples]"))?;
            continue;
        };
        match histogram(figures, cells) {
            Ok(histogram) => log
                .write_histogram(&histogram, Duration::ZERO, duration, Tag::new(name))
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                })?,
            Err(why) => {
                let why = format!("{name} is left out: {why}");
                log.write_comment(&format!("[{why}]"))?;
                left_out.push(why);
            }
        }
    }
    Ok(left_out)
}

fn started(report: &Report) -> Option<SystemTime> {
    humantime::parse_rfc3339(report.started.as_ref()?).ok()
}

/// The same samples as an HdrHistogram, or why there is none.
fn histogram(figures: &report::Delay, cells: &report::Histogram) -> Result<Histogram<u64>, String> {
    if figures.min < 0 {
        return Err(format!(
            "its smallest delay, {}, is negative, and an HdrHistogram holds none",
            delay(figures.min as f64)
        ));
    }
    let too_long = || {
        let longest = delay(figures.max as f64);
        format!("its largest delay, {longest}, is over one hour")
    };
    let mut histogram = Histogram::new_with_bounds(1, BOUND_NS, 3).expect("constant, valid bounds");
    for cell in &cells.cells {
        let value = cell.highest.unsigned_abs();
        if value > BOUND_NS || histogram.record_n(value, cell.count).is_err() {
            return Err(too_long());
        }
    }
    if histogram.len() < figures.samples {
        return Err(too_long());
    }
    Ok(histogram)
}

/// Largest value of the log's histograms: one hour.
const BOUND_NS: u64 = 3_600_000_000_000;
const NS_A_MS: f64 = 1e6;
