//! The command line: what the user typed, and the plan it means.
//!
//! Subcommands and flags with their help are clap structs, each beside the functions that turn them into
//! the structs of [`config`](crate::config), with every default resolved and every name looked up. What is
//! wrong gets one line. Output is joined to the engine here, and nowhere else.

mod address;
mod control;
mod control_client;
mod controller;
mod error;
mod find;
mod host;
mod messages;
mod print;
mod progress;
mod reflector;
mod results;
mod sender;
mod sender_args;
mod sender_plan;
mod server;
mod signals;
mod sizes;
mod values;
mod verdict;
mod watcher;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::error::exit_code;
use self::messages::{complain, say};
use self::print::print;
use crate::config::{dscp_table, dscp_table_json};

const EXIT_CODES: &str = "\
Exit codes:
  0    measured
  1    runtime failure (what was measured is printed)
  2    wrong usage
  4    refused by the peer (its code is shown)
  5    nothing came back
  130  interrupted, after the report";

const REFLECTOR_CODES: &str = "\
Exit codes:
  0    ended by Ctrl-C or SIGTERM, after the summary; a reflector also by SIGHUP, unless it has
       --logfile FILE, which SIGHUP has it open again
  1    runtime failure
  2    wrong usage
  130  ended at once, by a second Ctrl-C";

/// Measures what a network path really does: TWAMP Light sender and reflector.
#[derive(Debug, Parser)]
#[command(name = "twamp-blast", version, arg_required_else_help = true, after_help = EXIT_CODES)]
#[command(infer_long_args = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send test packets to a Session-Reflector and measure (TWAMP Light, RFC 5357 appendix I)
    #[command(after_help = format!("{}\n{EXIT_CODES}", sender::EXAMPLES))]
    Sender(Box<sender_args::SenderArgs>),
    /// Answer test packets (Session-Reflector)
    #[command(visible_alias = "responder", after_help = format!("{}\n{REFLECTOR_CODES}", reflector::EXAMPLES))]
    Reflector(Box<reflector::ReflectorArgs>),
    /// Agree with a TWAMP server on sessions, and measure (Control-Client and Session-Sender, RFC 5357)
    #[command(after_help = format!("{}\n{EXIT_CODES}", controller::EXAMPLES))]
    Controller(Box<controller::ControllerArgs>),
    /// Hold a session of a TWAMP server for a sender that runs elsewhere (Control-Client, RFC 5357)
    #[command(after_help = format!("{}\n{EXIT_CODES}", control_client::EXAMPLES))]
    Controlclient(Box<control_client::ClientArgs>),
    /// Serve Control-Clients, and answer the test packets that they ask for (Server and
    /// Session-Reflector, RFC 5357)
    #[command(after_help = format!("{}\n{REFLECTOR_CODES}", server::EXAMPLES))]
    Server(Box<server::ServerArgs>),
    /// List the names of the DSCPs
    Dscptable {
        /// Print one line of JSON instead of the table
        #[arg(long)]
        json: bool,
    },
}

/// The command line. A controller has the sender's arguments, of which the first one is another there.
fn command() -> clap::Command {
    Cli::command().mut_subcommand("controller", |controller| {
        let changed = controller.mut_arg("remote", |remote| {
            remote
                .index(1)
                .value_name("SERVER[:PORT]")
                .required(true)
                .help(controller::SERVER_HELP)
        });
        changed.mut_arg("local", |local| local.index(2))
    })
}

/// Runs a command line and returns its exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let code = run_command(args);
    messages::settle();
    ExitCode::from(code)
}

fn run_command(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return show_parse_error(&error),
    };
    let result = match cli.command {
        Command::Sender(args) if args.find.find_rate => find::run(&args),
        Command::Sender(args) => sender::run(&args),
        Command::Reflector(args) => reflector::run(&args),
        Command::Controller(args) => controller::run(&args),
        Command::Controlclient(args) => control_client::run(&args),
        Command::Server(args) => server::run(&args),
        Command::Dscptable { json } => {
            let table = if json {
                dscp_table_json() + "\n"
            } else {
                dscp_table()
            };
            print(&table).map(|()| 0)
        }
    };
    match result {
        // Who reads no further has what he wanted.
        Ok(130) if signals::ended_by_reader() => 0,
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            exit_code(&error)
        }
    }
}

/// Shows help as it is and an error as one line; returns the exit code.
fn show_parse_error(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let shown = print(&error.to_string());
            u8::from(shown.is_err())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say(&error.to_string());
            2
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // The first paragraph says what is wrong, a `tip:` what to do; usage is for --help.
            let lines = text.lines().map(str::trim);
            let what = lines.clone().take_while(|line| !line.is_empty());
            let tips = lines.filter(|line| line.starts_with("tip: ") && !line.contains("to pass"));
            let mut line: Vec<&str> = what.filter(|line| !line.starts_with("tip: ")).collect();
            line.extend(tips);
            line.dedup();
            complain(format!("{}; see --help", line.join(" ")));
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dscp;
    use crate::output::text;

    /// Flags whose value has no help, or help without an example and without a default that is one.
    fn unclear(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
        for argument in arguments.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            let help = argument
                .get_help()
                .map_or(String::new(), ToString::to_string);
            let takes_value = argument.get_action().takes_values();
            let example = ["[example", "default: ", "examples: "]
                .iter()
                .any(|e| help.contains(e))
                || !argument.get_default_values().is_empty();
            if help.is_empty() || takes_value && !example {
                found.push(format!("{path} {argument}: {help}"));
            }
        }
        for inner in command.get_subcommands() {
            unclear(inner, &path, found);
        }
    }

    #[test]
    fn a_dscp_has_one_name_in_what_is_typed_and_what_is_shown() {
        for value in 0..64_u8 {
            let name = Dscp::new(value).unwrap().to_string();
            let told = text::dscp(value);
            // What has no name of its own, and the usual one, is a number alone.
            let plain = value == 0 || name.starts_with("cp");
            let expected = if plain {
                value.to_string()
            } else {
                format!("{value} ({name})")
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn every_value_has_help_with_an_example_or_a_default() {
        let mut found = Vec::new();
        unclear(&command(), "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
