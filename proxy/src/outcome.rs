//! How each outcome of a call reads on each protocol: the one table all front doors share.

use coap_lite::ResponseType;
use hyper::StatusCode;
use sandbar_runtime::{Code, Outcome};

/// One row: an outcome on every protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Codes {
    /// CoAP response code to GET and FETCH, which read.
    pub(crate) coap_read: ResponseType,
    /// CoAP response code to POST and PUT, which change something.
    pub(crate) coap_write: ResponseType,
    /// HTTP status.
    pub(crate) http: StatusCode,
    /// The outcome's name where a program reads it, as serde writes it too.
    pub(crate) name: &'static str,
}

/// The row of an outcome.
pub(crate) const fn codes(outcome: Outcome) -> Codes {
    use ResponseType as Coap;
    match outcome {
        Outcome::Done => {
            Codes { coap_read: Coap::Content, coap_write: Coap::Changed, http: StatusCode::OK, name: "done" }
        }
        Outcome::Accepted => alike(Coap::Created, StatusCode::ACCEPTED, "accepted"),
        Outcome::BadRequest => alike(Coap::BadRequest, StatusCode::BAD_REQUEST, "bad-request"),
        Outcome::NotAllowed => alike(Coap::Forbidden, StatusCode::FORBIDDEN, "not-allowed"),
        Outcome::NotFound => alike(Coap::NotFound, StatusCode::NOT_FOUND, "not-found"),
        Outcome::TooLarge => alike(Coap::RequestEntityTooLarge, StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Outcome::Failed => alike(Coap::InternalServerError, StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        Outcome::Overloaded => alike(Coap::ServiceUnavailable, StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        Outcome::DeadlinePassed => alike(Coap::GatewayTimeout, StatusCode::GATEWAY_TIMEOUT, "deadline-passed"),
    }
}

/// A row whose CoAP code does not depend on the method.
const fn alike(coap: ResponseType, http: StatusCode, name: &'static str) -> Codes {
    Codes { coap_read: coap, coap_write: coap, http, name }
}

/// The outcome that a CoAP response code stands for, where the answer is from a server of any kind.
pub(crate) fn outcome_of(code: (u8, u8)) -> Outcome {
    match code {
        (2, _) => Outcome::Done,
        (4, 1 | 3) => Outcome::NotAllowed,
        (4, 4) => Outcome::NotFound,
        (4, 13) => Outcome::TooLarge,
        (4, 29) | (5, 3) => Outcome::Overloaded,
        (4, _) => Outcome::BadRequest,
        (5, 4) => Outcome::DeadlinePassed,
        _ => Outcome::Failed,
    }
}

/// The HTTP status for a code that a function has given (as RFC 8075, section 7, has them).
pub(crate) fn status_of(code: Code) -> StatusCode {
    let (class, detail) = (u16::from(code.byte() >> 5), u16::from(code.byte() & 0x1F));
    match (class, detail) {
        (2, 1) => StatusCode::CREATED,
        (2, 3) => StatusCode::NOT_MODIFIED,
        (4, 2) => StatusCode::BAD_REQUEST,
        (4 | 5, detail) => StatusCode::from_u16(class * 100 + detail).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        _ => StatusCode::OK,
    }
}

/// The diagnostic as it goes out: one line of printable text, cut to `bytes_max` bytes. A function's error
/// text is its own; it may hold line ends or terminal controls, and be of any length.
pub(crate) fn diagnostic_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    for character in text.trim().chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > bytes_max {
            break;
        }
        line.push(character);
    }
    line
}

#[cfg(test)]
mod tests {
    use coap_lite::MessageClass;

    use super::*;

    const ALL: [(Outcome, u8, u8, u16); 9] = [
        (Outcome::Done, 0x45, 0x44, 200),
        (Outcome::Accepted, 0x41, 0x41, 202),
        (Outcome::BadRequest, 0x80, 0x80, 400),
        (Outcome::NotAllowed, 0x83, 0x83, 403),
        (Outcome::NotFound, 0x84, 0x84, 404),
        (Outcome::TooLarge, 0x8D, 0x8D, 413),
        (Outcome::Failed, 0xA0, 0xA0, 500),
        (Outcome::Overloaded, 0xA3, 0xA3, 503),
        (Outcome::DeadlinePassed, 0xA4, 0xA4, 504),
    ];

    #[test]
    fn codes_of_functions_have_their_status() {
        let codes = [((2, 1), 201), ((2, 3), 304), ((2, 5), 200), ((4, 2), 400), ((4, 4), 404), ((4, 22), 422)];
        for ((class, detail), status) in codes.into_iter().chain([((4, 29), 429), ((5, 3), 503)]) {
            assert_eq!(status_of(Code::new(class, detail).unwrap()).as_u16(), status);
        }
    }

    #[test]
    fn every_outcome_has_its_codes() {
        for (outcome, read, write, http) in ALL {
            let row = codes(outcome);
            assert_eq!(u8::from(MessageClass::Response(row.coap_read)), read);
            assert_eq!(u8::from(MessageClass::Response(row.coap_write)), write);
            assert_eq!(row.http.as_u16(), http);
        }
    }

    #[test]
    fn a_code_stands_for_the_outcome_that_has_it() {
        for (outcome, read, write, _) in ALL {
            // Created, which a function may say too.
            let expected = if outcome == Outcome::Accepted { Outcome::Done } else { outcome };
            for code in [read, write] {
                assert_eq!(outcome_of((code >> 5, code & 0x1F)), expected);
            }
        }
        assert_eq!(
            [(4, 1), (4, 29), (4, 22), (5, 8)].map(outcome_of),
            [Outcome::NotAllowed, Outcome::Overloaded, Outcome::BadRequest, Outcome::Failed]
        );
    }

    #[test]
    fn names_are_those_of_serde() {
        for (outcome, ..) in ALL {
            let written = serde_json::to_string(&outcome).unwrap();
            assert_eq!(written, format!("\"{}\"", codes(outcome).name));
        }
    }

    #[test]
    fn diagnostics_become_one_short_line() {
        assert_eq!(diagnostic_line(" a\nb\u{1b}[1m \n", 80), "a b [1m");
        assert_eq!(diagnostic_line("ääää", 5), "ää");
    }
}
