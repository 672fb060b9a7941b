//! The functions of the gallery, all in one executable.
//!
//! `look` checks the picture and hands it on as it came; `thumbnail` answers the caller with a small
//! JPEG; `metadata` says, in the log and as JSON, what the picture tells about itself.

use std::error::Error;

use gallery::picture::{self, Format};
use gallery::{metadata, thumbnail};
use sandbar_function::{Context, Functions};

/// `application/json` in the CoAP Content-Formats registry.
const JSON: u16 = 50;

fn look(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, String> {
    let picture = picture::inspect(event).map_err(|error| in_full(&error))?;
    context.set_content_format(picture.format.content_format());
    Ok(event.to_vec())
}

fn make_thumbnail(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, String> {
    let small = thumbnail::make(event).map_err(|error| in_full(&error))?;
    context.set_content_format(Format::Jpeg.content_format());
    Ok(small)
}

fn read_metadata(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, String> {
    let found = metadata::read(event).map_err(|error| in_full(&error))?;
    let found = serde_json::to_string(&found).map_err(|error| in_full(&error))?;
    context.log(&found);
    context.set_content_format(JSON);
    Ok(found.into_bytes())
}

/// The error with all its causes, in the one line a diagnostic has.
fn in_full(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

fn main() {
    Functions::new().add("look", look).add("thumbnail", make_thumbnail).add("metadata", read_metadata).serve()
}
