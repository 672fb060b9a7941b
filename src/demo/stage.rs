//! Calls over CoAP: what is printed of each, and whether it ended as it should.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use sandbar_proxy::client::{Client, Method, Request, Response};
use sandbar_proxy::coap::ASYNC_QUERY;
use sandbar_runtime::Answer;

use super::host::OpenHost;
use crate::failure::Failure;
use crate::output;

/// How long an answer is waited for; no function of the examples may run longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a function that nobody waits for may take until its log has a line.
const SIDE_BRANCH_PATIENCE: Duration = Duration::from_secs(5);
/// The pause before it is asked again whether an accepted call has ended.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
/// Longer text is told by its length.
const SHOWN_BYTES_MAX: usize = 320;

/// A code as class and detail: (4, 4) for 4.04.
type Code = (u8, u8);

/// One call, and what must come of it.
#[derive(Debug)]
pub(super) struct Act<'a> {
    pub(super) path: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) code: Code,
    pub(super) content_format: Option<u16>,
    /// What the answer must contain: a code alone would not tell a crash from an exception.
    pub(super) says: &'a str,
    /// The functions that must have served it, in order; none where none came to its end.
    pub(super) hops: &'a [&'a str],
}

impl<'a> Act<'a> {
    pub(super) fn new(path: &'a str, payload: &'a [u8], code: Code) -> Self {
        Self { path, payload, code, content_format: None, says: "", hops: &[] }
    }
}

/// One function's part in a call, as the host's log tells it.
#[derive(Debug, PartialEq, Eq)]
struct Hop {
    function: String,
    pid: String,
    /// "waited 20.7 µs, ran 4784.7 µs"
    times: String,
}

#[derive(Debug)]
pub(super) struct Stage<'a> {
    host: &'a OpenHost,
    coap: Client,
    colour: bool,
    /// The process of every hop so far.
    pids: HashSet<String>,
    /// Expectations that did not hold.
    wrong: usize,
}

impl<'a> Stage<'a> {
    pub(super) async fn new(host: &'a OpenHost) -> Result<Self, Failure> {
        let coap = Client::connect(host.coap, PATIENCE).await?;
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Self { host, coap, colour, pids: HashSet::new(), wrong: 0 })
    }

    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        if self.colour { output::line(&format!("\n\x1b[1m{text}\x1b[0m")) } else { output::line(&format!("\n{text}")) }
    }

    /// Notes what must hold, and says so if it does not.
    pub(super) fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong += 1;
            output::note(&format!("  WRONG     it should be that {what}"));
        }
    }

    /// Calls over CoAP; prints what was sent, the answer, and the path of the call with the times of each hop.
    pub(super) async fn call(&mut self, act: &Act<'_>) -> Result<Response, Failure> {
        output::line(&format!("  sent      /{}: {}", act.path, summary(act.payload)))?;
        let Act { path, payload, content_format, .. } = *act;
        let began = Instant::now();
        let response = self.coap.request(&Request { method: Method::Post, path, payload, content_format }).await?;
        self.answered(act, began, response).await
    }

    /// Has a call accepted over CoAP, and asks at its location until it has ended; prints both, and the path of the call.
    pub(super) async fn accept(&mut self, act: &Act<'_>) -> Result<Response, Failure> {
        let path = format!("{}?{ASYNC_QUERY}", act.path);
        output::line(&format!("  sent      /{path}: {}", summary(act.payload)))?;
        let Act { payload, content_format, .. } = *act;
        let began = Instant::now();
        let request = Request { method: Method::Post, path: &path, payload, content_format };
        let Response { code: (class, detail), location, .. } = self.coap.request(&request).await?;
        let location = location.unwrap_or_default();
        output::line(&format!("  accepted  {class}.{detail:02} in {:.1} ms: {location}", millis(began)))?;
        self.expect((class, detail) == (2, 1) && !location.is_empty(), "the call is accepted, and its location told");
        let question = Request { method: Method::Get, path: &location, payload: b"", content_format: None };
        let until = began + PATIENCE;
        loop {
            let response = self.coap.request(&question).await?;
            if response.payload != Answer::not_ended().payload || Instant::now() > until {
                return self.answered(act, began, response).await;
            }
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
        }
    }

    /// Prints an answer and its call's path, and checks both.
    async fn answered(&mut self, act: &Act<'_>, began: Instant, response: Response) -> Result<Response, Failure> {
        let (class, detail) = response.code;
        let (took_ms, said) = (millis(began), summary(&response.payload));
        output::line(&format!("  answered  {class}.{detail:02} in {took_ms:.1} ms: {said}"))?;
        // What is refused as a client's error has not become a call.
        let hops = if class == 4 { Vec::new() } else { self.path_of_last_call(act.path).await? };
        for Hop { function, pid, times } in &hops {
            output::line(&format!("            {:<18} {times}", format!("{function}[{pid}]")))?;
        }
        self.check(act, &response, hops);
        Ok(response)
    }

    fn check(&mut self, act: &Act<'_>, response: &Response, hops: Vec<Hop>) {
        let (class, detail) = act.code;
        self.expect(response.code == act.code, &format!("the answer is {class}.{detail:02}"));
        let said = String::from_utf8_lossy(&response.payload);
        self.expect(said.contains(act.says), &format!("the answer says \"{}\"", act.says));
        let served: Vec<&str> = hops.iter().map(|hop| hop.function.as_str()).collect();
        self.expect(served == act.hops, &format!("the path is \"{}\"", act.hops.join(" > ")));
        for hop in hops {
            let new = self.pids.insert(hop.pid);
            self.expect(new, "no process serves two calls");
        }
    }

    /// Shows what became of a message to a function that nobody waits for.
    pub(super) async fn side_branch(&mut self, application: &str, function: &str) -> Result<(), Failure> {
        let mut records = self.host.client.logs(application, Some(function), true).await?;
        let until = tokio::time::Instant::now() + SIDE_BRANCH_PATIENCE;
        let mut found = false;
        while !found {
            let Ok(record) = tokio::time::timeout_at(until, records.next()).await else { break };
            let Some(record) = record? else { break };
            output::line(&format!("  {function} logged {}", output::visible(&record.text)))?;
            // The host's own line on how the call ended comes by another way, at times first.
            found = serde_json::from_str::<serde_json::Value>(&record.text).is_ok();
        }
        self.expect(found, &format!("{function} runs on its own, and logs what it finds"));
        Ok(())
    }

    /// How many processes served; a failure if anything was not as expected.
    pub(super) fn end(self) -> Result<usize, Failure> {
        if self.wrong > 0 { Err(Failure::Demonstration(self.wrong)) } else { Ok(self.pids.len()) }
    }

    /// The functions that the last call to an application passed through. The host writes them down before it answers.
    async fn path_of_last_call(&self, path: &str) -> Result<Vec<Hop>, Failure> {
        let application = path.split('/').next().unwrap_or(path);
        let mut records = self.host.client.logs(application, None, false).await?;
        let mut last = None;
        while let Some(record) = records.next().await? {
            let is_path = record.function.is_empty() && record.text.starts_with("call ");
            last = is_path.then_some(record.text).or(last);
        }
        Ok(last.as_deref().map(hops).unwrap_or_default())
    }
}

/// Reads `call ID: OUTCOME: FIRST[PID] waited …, ran … > SECOND[PID] …`; what is not of this form is no hop.
fn hops(line: &str) -> Vec<Hop> {
    let hops = line.splitn(3, ": ").nth(2).unwrap_or_default();
    let hops = hops.split(" > ").filter_map(|hop| {
        let (process, times) = hop.split_once(' ')?;
        let (function, pid) = process.strip_suffix(']')?.split_once('[')?;
        Some(Hop { function: function.to_owned(), pid: pid.to_owned(), times: times.to_owned() })
    });
    hops.collect()
}

/// Milliseconds since then.
fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// A payload in a line: text as it is, anything else by its length.
fn summary(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok("") => "nothing".to_owned(),
        Ok(text) if text.len() <= SHOWN_BYTES_MAX => output::visible(text.trim()).into_owned(),
        _ => format!("{} bytes", payload.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read_from_the_log_and_nothing_else_is() {
        let line = "call 5e68: done: look[1299] waited 1.9 µs, ran 2.8 µs > thumbnail[1301] waited 3.0 µs, ran 4.8 µs";
        let read = hops(line);
        assert_eq!(read.len(), 2);
        let times = "waited 3.0 µs, ran 4.8 µs".to_owned();
        assert_eq!(read[1], Hop { function: "thumbnail".into(), pid: "1301".into(), times });
        assert_eq!(hops("call 5e68: deadline passed: "), []);
        assert_eq!(hops("call 5e68: failed: out of memory"), []);
        assert_eq!(hops("anything"), []);
    }

    #[test]
    fn a_payload_is_shown_in_a_line_and_steers_no_terminal() {
        assert_eq!(summary(b""), "nothing");
        assert_eq!(summary(b"a\x1b[2J\n"), "a\\u{1b}[2J");
        assert_eq!(summary(&[0xFF; 3]), "3 bytes");
        assert_eq!(summary(&[b'x'; 1000]), "1000 bytes");
    }
}
