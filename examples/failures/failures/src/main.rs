//! The native functions of the example `failures`: two that work, and two that go wrong on purpose.

use std::convert::Infallible;
use std::os::unix::process::parent_id;
use std::process;

use sandbar_function::{Context, Functions};

/// `application/json` in the CoAP Content-Formats registry.
const JSON: u16 = 50;

/// Hands the payload back as it came.
fn echo(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    if let Some(content_format) = context.content_format() {
        context.set_content_format(content_format);
    }
    Ok(event.to_vec())
}

/// Answers the instance's process id and its parent's, as seen in the sandbox.
fn pids(_event: &[u8], context: &Context<'_>) -> Result<String, Infallible> {
    context.set_content_format(JSON);
    Ok(pids_as_json(process::id(), parent_id()))
}

fn pids_as_json(pid: u32, parent: u32) -> String {
    format!(r#"{{"pid":{pid},"parent":{parent}}}"#)
}

/// Dies of a signal (SIGABRT) with the call in hand.
fn crash(_event: &[u8], _context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    process::abort()
}

/// Ends as if all were well, without an answer.
#[expect(clippy::exit, reason = "leaving without an answer is what this function is for")]
fn silent(_event: &[u8], _context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    process::exit(0)
}

fn main() {
    Functions::new().add("echo", echo).add("pids", pids).add("crash", crash).add("silent", silent).serve()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_written_as_json() {
        assert_eq!(pids_as_json(7, 1), r#"{"pid":7,"parent":1}"#);
    }
}
