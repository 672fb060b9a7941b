//! The functions of the example `chain`, which do next to nothing: what a call of them costs is what
//! the way through the sandbox costs.

use std::convert::Infallible;

use sandbar_function::{CallError, Context, Functions};

/// Hands the event on with the function's name behind it: `x` becomes `x>first`.
fn append_name(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    Ok(with_name(event, context.function()))
}

fn with_name(event: &[u8], name: &str) -> Vec<u8> {
    let mut output = Vec::with_capacity(event.len() + 1 + name.len());
    output.extend_from_slice(event);
    output.push(b'>');
    output.extend_from_slice(name.as_bytes());
    output
}

/// Calls the chain that begins with `first` and answers what it answers.
fn caller(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, CallError> {
    context.call("first", event)
}

/// Sends the event to `first` and answers without waiting for the chain.
fn sender(event: &[u8], context: &Context<'_>) -> Result<&'static str, CallError> {
    context.send("first", event)?;
    Ok("sent")
}

fn main() {
    Functions::new()
        .add("first", append_name)
        .add("second", append_name)
        .add("third", append_name)
        .add("caller", caller)
        .add("sender", sender)
        .serve()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_up_in_the_order_of_the_chain() {
        let first = with_name(b"x", "first");
        let second = with_name(&first, "second");
        assert_eq!(with_name(&second, "third"), b"x>first>second>third");
    }

    #[test]
    fn any_bytes_are_kept() {
        assert_eq!(with_name(b"\0\xff", "first"), b"\0\xff>first");
    }
}
