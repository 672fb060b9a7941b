//! The program that becomes PID 1 of a sandbox. Not to be started by hand: the host agent does.

use std::process::ExitCode;

fn main() -> ExitCode {
    // What went wrong has been told to the agent.
    match sandbar_supervisor::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
