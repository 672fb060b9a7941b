//! What is said of a request and of its answer beside their payloads.

use std::ffi::c_char;

use sandbar_bus::{Code, RequestProperties};

use super::{process, slice, string};

/// What was said of the request, as C reads it.
#[derive(Default)]
pub(super) struct Request {
    pub(super) method: i32,
    pub(super) path: Vec<u8>,
    pub(super) query: Vec<u8>,
    pub(super) accept: i32,
}

impl From<RequestProperties> for Request {
    fn from(said: RequestProperties) -> Self {
        Self {
            method: said.method as i32,
            path: said.path.into_bytes(),
            query: said.query.into_bytes(),
            accept: said.accept.map_or(-1, i32::from),
        }
    }
}

/// What the caller asked to be done: the method's code in CoAP (GET 1, POST 2, PUT 3, DELETE 4, FETCH 5, PATCH 6, iPATCH 7).
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_method() -> i32 {
    process().request.method
}

/// What the caller's path says after the function, percent-encoded: its start; its length goes to `len`. Valid while the process lives.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_path(len: *mut usize) -> *const u8 {
    let process = process();
    // SAFETY: the caller's word.
    unsafe { *len = process.request.path.len() };
    process.request.path.as_ptr()
}

/// The caller's query, percent-encoded, likewise.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_query(len: *mut usize) -> *const u8 {
    let process = process();
    // SAFETY: the caller's word.
    unsafe { *len = process.request.query.len() };
    process.request.query.as_ptr()
}

/// The format that the caller wants the answer in, -1 for none.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_accept() -> i32 {
    process().request.accept
}

/// Answers with this code: class times 100 and detail, such as 201 for 2.01. 0, or -1 if a function may not give that code.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_answer_code(code: i32) -> i32 {
    let part = |part: i32| u8::try_from(part).unwrap_or(u8::MAX);
    let code = Code::new(part(code / 100), part(code % 100));
    if code.is_some() {
        process().answer.code = code;
    }
    if code.is_some() { 0 } else { -1 }
}

/// Says for how many seconds others may be given the answer.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_answer_max_age(seconds: u32) {
    process().answer.max_age_s = Some(seconds);
}

/// Names the state that the answer shows: 1 to 8 bytes. 0, or -1 if there are more or fewer.
///
/// # Safety
/// `start..start + len` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_answer_etag(start: *const u8, len: usize) -> i32 {
    if !(1..=8).contains(&len) {
        return -1;
    }
    // SAFETY: the caller's word.
    process().answer.etag = Some(unsafe { slice(start, len) }.to_vec());
    0
}

/// Says where to find what was made: path and query, percent-encoded.
///
/// # Safety
/// `location` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_answer_location(location: *const c_char) {
    // SAFETY: the caller's word.
    process().answer.location = Some(unsafe { string(location) });
}
