//! Exit codes: one for each way a command can end, so that scripts need not read what it prints.

use std::process::ExitCode;

use sandbar_runtime::Outcome;

/// The codes, as `--help` lists them.
pub(crate) const TABLE: &str = "\
Exit codes:
   0  done
   1  something else went wrong; standard error says what
   2  the command was not understood
   3  no such application, function or accepted call
   4  the call was a bad request
   5  the caller may not make this call
   6  the payload is too large
   7  the function failed, crashed or was killed
   8  overloaded; the same call may succeed later
   9  the call's deadline passed
  10  no host agent at the socket
  11  the accepted call has not ended yet";

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    BadRequest = 4,
    NotAllowed = 5,
    TooLarge = 6,
    FunctionFailed = 7,
    Overloaded = 8,
    DeadlinePassed = 9,
    NoHostAgent = 10,
    NotEnded = 11,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done | Outcome::Accepted => Self::Done,
            Outcome::BadRequest => Self::BadRequest,
            Outcome::NotAllowed => Self::NotAllowed,
            Outcome::NotFound => Self::NotFound,
            Outcome::TooLarge => Self::TooLarge,
            Outcome::Failed => Self::FunctionFailed,
            Outcome::Overloaded => Self::Overloaded,
            Outcome::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: [Outcome; 9] = [
        Outcome::Done,
        Outcome::Accepted,
        Outcome::BadRequest,
        Outcome::NotAllowed,
        Outcome::NotFound,
        Outcome::TooLarge,
        Outcome::Failed,
        Outcome::Overloaded,
        Outcome::DeadlinePassed,
    ];

    #[test]
    fn a_call_that_did_not_succeed_has_a_code_of_its_own() {
        let mut codes: Vec<u8> = OUTCOMES[2..].iter().map(|it| Exit::from(*it) as u8).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), OUTCOMES.len() - 2);
        assert!(codes[0] > Exit::Usage as u8, "told apart from the command's own failures");
    }

    #[test]
    fn every_code_is_in_the_help() {
        for code in 0..=Exit::NotEnded as u8 {
            let line = format!("\n{code:4}  ");
            assert_eq!(TABLE.matches(&line).count(), 1, "code {code}");
        }
    }
}
