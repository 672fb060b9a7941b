//! Greets whoever the payload names.

use std::str::{self, Utf8Error};

use sandbar_function::Context;

/// `text/plain` in the CoAP Content-Formats registry.
const TEXT: u16 = 0;

/// Runs in a process of its own for each call. An error makes the call fail, with the error as the reason.
fn hello(event: &[u8], context: &Context<'_>) -> Result<String, Utf8Error> {
    let name = match str::from_utf8(event)?.trim() {
        "" => "world",
        name => name,
    };
    context.log(format_args!("greeting {name}"));
    context.set_content_format(TEXT);
    Ok(format!("hello, {name}\n"))
}

fn main() {
    // What stands here runs once, when the worker starts: the place for what takes long to load.
    sandbar_function::serve(hello)
}
