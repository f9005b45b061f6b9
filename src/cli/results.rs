//! Where a run's figures go.

use std::path::{Path, PathBuf};

use super::error::{Error, usage};
use super::messages::complain;
use super::print::print;
use super::sender_args::ResultArgs;
use crate::output::{histogram, hlog, text};
use crate::report::Report;

/// Where a run's figures go, ready before it starts.
pub(super) struct Results<'a> {
    args: &'a ResultArgs,
    hlog: Option<(&'a Path, hlog::Log)>,
}

impl<'a> Results<'a> {
    pub(super) fn open(args: &'a ResultArgs) -> Result<Self, Error> {
        let open = |path: &'a PathBuf| match hlog::Log::create(path) {
            Ok(log) => Ok((path.as_path(), log)),
            Err(error) => Err(usage(format!(
                "--hlog {}: {error}; use a file in a folder that exists and may be written",
                path.display()
            ))),
        };
        if args
            .hlog
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-")
        {
            return Err(usage(
                "--hlog -: standard output has the report; use a file",
            ));
        }
        let hlog = args.hlog.as_ref().map(open).transpose()?;
        Ok(Self { args, hlog })
    }

    /// Prints the report; what fails after that fails with the report printed.
    pub(super) fn show(self, report: &Report, talk: bool) -> Result<(), Error> {
        if self.args.json {
            print(&(report.to_json_line() + "\n"))?;
        } else {
            print(&text::summary(report, self.args.detail()))?;
        }
        if self.args.histogram {
            print(&format!("\n{}", histogram::show(report)))?;
        }
        let Some((path, log)) = self.hlog else {
            return Ok(());
        };
        let path = path.display();
        let left_out = log.write(report);
        let left_out =
            left_out.map_err(|error| Error::Runtime(format!("--hlog {path}: {error}")))?;
        if talk {
            for why in left_out {
                complain(format!("--hlog {path}: {why}"));
            }
        }
        Ok(())
    }
}
