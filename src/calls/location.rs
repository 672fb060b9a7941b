//! Where an accepted call is, as it is typed and printed: `/APP/.calls/TICKET`.

use std::fmt;
use std::str::FromStr;

use sandbar_runtime::{ACCEPTED_CALLS, AcceptedStatus, Ticket};

/// The location of an accepted call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallLocation {
    pub(crate) application: String,
    pub(crate) ticket: Ticket,
}

impl FromStr for CallLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut segments = text.strip_prefix('/').unwrap_or(text).split('/');
        let parts = (segments.next(), segments.next(), segments.next(), segments.next());
        let (Some(application), Some(ACCEPTED_CALLS), Some(ticket), None) = parts else {
            return Err("give a call's location, /APP/.calls/TICKET".to_owned());
        };
        let ticket = ticket.parse().map_err(|error| format!("`{ticket}` is {error}"))?;
        if application.is_empty() {
            return Err("the application is missing: give /APP/.calls/TICKET".to_owned());
        }
        Ok(Self { application: application.to_owned(), ticket })
    }
}

impl fmt::Display for CallLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ticket.location(&self.application))
    }
}

/// The location of a call that was listed.
pub(super) fn of(call: &AcceptedStatus) -> String {
    format!("/{}/{ACCEPTED_CALLS}/{}", call.application, call.ticket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_as_it_is_printed_with_or_without_the_slash() {
        let printed = "/porch/.calls/000000000000feed0000000000000007";
        for text in [printed, &printed[1..]] {
            let location: CallLocation = text.parse().unwrap();
            assert_eq!((location.application.as_str(), location.ticket.secret), ("porch", 7));
            assert_eq!(location.to_string(), printed);
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        let ticket = "000000000000feed0000000000000007";
        for (text, why) in [
            (String::new(), "/APP/.calls/TICKET"),
            (ticket.to_owned(), "/APP/.calls/TICKET"),
            (format!("porch/{ticket}"), "/APP/.calls/TICKET"),
            (format!("/porch/.calls/{ticket}/"), "/APP/.calls/TICKET"),
            (format!("//.calls/{ticket}"), "the application is missing"),
            ("/porch/.calls/feed".to_owned(), "32 hexadecimal digits"),
        ] {
            let told = text.parse::<CallLocation>().unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
