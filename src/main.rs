//! `sandbar`: host agent, front door and command line in one program.
//!
//! What was typed ([`arguments`]) becomes one subcommand, each in a file of its own; what goes wrong in any of them
//! comes back here as one [`Failure`](failure::Failure), is printed once and becomes one exit code ([`exit`]).
//! Everything of substance happens in the libraries.

#![forbid(unsafe_code)]

mod answer;
mod arguments;
mod bench;
mod calls;
mod check;
mod counts;
mod demo;
mod deploy;
mod doors;
mod exit;
mod failure;
mod identity;
mod init;
mod invoke;
mod key;
mod list;
mod logs;
mod notify;
mod output;
mod remove;
mod rest;
mod secure;
mod serve;
mod url;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use exit::Exit;

fn main() -> ExitCode {
    let exit = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(usage) => {
            // Help and version are "errors" here as well, but print to stdout and end well.
            usage.print().ok();
            if usage.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    exit.into()
}

fn run(arguments: Arguments) -> Exit {
    match arguments.command.run() {
        Ok(()) => Exit::Done,
        // Whoever read our output has read enough.
        Err(failure) if failure.is_closed_output() => Exit::Done,
        Err(failure) => {
            output::note(&output::visible_lines(&failure::chain(&failure)));
            failure.exit()
        }
    }
}
