//! `average`: smooths the readings of a resolved SenML pack and sums each sensor up.
//!
//! Event: the JSON array that `ingest` hands on. Answer: a JSON array with an object per sensor, see
//! [`summary::Summary`]; Content-Format 50.

mod smoothing;
mod summary;

use sandbar_function::Context;

/// `application/json` in the CoAP Content-Formats registry.
const JSON: u16 = 50;

fn average(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, summary::SummaryError> {
    let answer = summary::summarise(event)?;
    context.set_content_format(JSON);
    Ok(answer)
}

fn main() {
    sandbar_function::serve(average)
}
