//! The C interface, as `include/sandbar.h` declares it: for functions in C, and for the Python worker.
//!
//! A process is one worker and at most one instance, so the state is a single static that only the process's one thread
//! touches before the handler runs.
#![allow(unsafe_code, reason = "a C interface")]

pub mod callee;
pub mod interpreter;
pub mod said;

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbar_bus::{AnswerProperties, Method};

use self::said::Request;
use crate::instance::{Instance, Served};
use crate::output::Output;
use crate::template::Wanted;
use crate::worker::{Worker, give_up};

#[derive(Default)]
struct Process {
    worker: Option<Worker>,
    instance: Option<Instance>,
    served: Option<Served>,
    application: Vec<u8>,
    request: Request,
    answer: AnswerProperties,
    wanted: Option<Wanted>,
    /// Whether there is no call, but all is as if there were.
    rehearsal: bool,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    worker: None,
    instance: None,
    served: None,
    application: Vec::new(),
    request: Request { method: Method::Post as i32, path: Vec::new(), query: Vec::new(), accept: -1 },
    answer: AnswerProperties { code: None, max_age_s: None, etag: None, location: None },
    wanted: None,
    rehearsal: false,
});

fn process() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The event of a rehearsal: long enough that whoever copies it needs memory to do so.
const REHEARSED_EVENT: &[u8] = &[b' '; 64];

/// # Safety
/// `start..start + len` is readable, or `len` is 0.
unsafe fn slice<'a>(start: *const u8, len: usize) -> &'a [u8] {
    if len == 0 || start.is_null() {
        return &[];
    }
    // SAFETY: the caller's word.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// # Safety
/// `text` is a C string.
unsafe fn string(text: *const c_char) -> String {
    // SAFETY: the caller's word.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn format(content_format: i32) -> Option<u16> {
    u16::try_from(content_format).ok()
}

/// Joins the bus and says that the code is loaded. Does not return when the process was not started by a sandbox.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_worker_ready() {
    let worker = Worker::join().unwrap_or_else(|error| give_up(&error));
    flush_stdio();
    if let Err(error) = worker.ready() {
        give_up(&error);
    }
    process().worker = Some(worker);
}

/// Says why this process will never be a worker, and ends it.
///
/// # Safety
/// `reason` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_worker_give_up(reason: *const c_char) -> ! {
    // SAFETY: the caller's word.
    give_up(&unsafe { string(reason) })
}

/// Sleeps until another instance is wanted: its slot.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_worker_next_slot() -> u32 {
    let process = process();
    let slot = process.worker.as_ref().map_or(0, Worker::next_slot);
    u32::try_from(slot).unwrap_or(u32::MAX)
}

/// Forks an instance into a slot: 1 in the instance, 0 in the worker, -1 if there was no room for a process.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_worker_fork(slot: u32) -> i32 {
    let mut process = process();
    let Some(worker) = process.worker.as_ref() else { return -1 };
    match worker.fork_into(slot as usize) {
        Ok(Some(instance)) => {
            process.application = instance.application().into_bytes();
            process.instance = Some(instance);
            1
        }
        Ok(None) => 0,
        Err(_) => -1,
    }
}

/// Forks instances whenever some are wanted: returns in each of them, never in the worker.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_worker_next_instance() {
    let mut process = process();
    let Some(worker) = process.worker.as_ref() else { give_up(&"there is no worker before its code is loaded") };
    let instance = worker.next_instance();
    process.application = instance.application().into_bytes();
    process.instance = Some(instance);
}

/// Begins (1) or ends (0) a rehearsal, in which what belongs to a call can be called without one, for all that this leaves in place for
/// the call: there is always an event, and an answer goes nowhere.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_instance_rehearse(begins: i32) {
    process().rehearsal = begins != 0;
}

/// Sleeps until there is a call: 1 with a call, 0 when it was over before it could start.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_instance_take() -> i32 {
    let mut process = process();
    if process.rehearsal {
        return 1;
    }
    process.served = process.instance.as_ref().and_then(Instance::take);
    process.request = process.served.as_ref().map(Served::properties).unwrap_or_default().into();
    i32::from(process.served.is_some())
}

/// The event: its start; its length goes to `len`. Valid until the instance answers.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_event(len: *mut usize) -> *const u8 {
    let process = process();
    let without = if process.rehearsal { REHEARSED_EVENT } else { &[] };
    let event = process.served.as_ref().map_or(without, Served::event);
    // SAFETY: the caller's word.
    unsafe { *len = event.len() };
    event.as_ptr()
}

/// The call's id.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_call_id() -> u64 {
    process().served.as_ref().map_or(0, Served::call_id)
}

/// The application's name: its start; its length goes to `len`.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_application(len: *mut usize) -> *const u8 {
    let process = process();
    // SAFETY: the caller's word.
    unsafe { *len = process.application.len() };
    process.application.as_ptr()
}

/// The event's content format, -1 for none.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_content_format() -> i32 {
    process().served.as_ref().and_then(Served::content_format).map_or(-1, i32::from)
}

/// Nanoseconds the handler may still run.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_remaining_ns() -> u64 {
    let remaining = process().served.as_ref().map(Served::remaining).unwrap_or_default();
    u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX)
}

/// Hands the output over; `content_format` is -1 for none.
///
/// # Safety
/// `start..start + len` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_answer(start: *const u8, len: usize, content_format: i32) {
    let mut process = process();
    let served = process.served.take();
    if let (Some(instance), Some(served)) = (process.instance.as_ref(), served) {
        // SAFETY: the caller's word.
        let output = unsafe { slice(start, len) };
        let output = served.part(output).map_or(Output::Bytes(output), Output::Event);
        instance.answer(served, &output, format(content_format), &process.answer);
    }
}

/// Hands the event over as the output: no byte moves. `content_format` is -1 for none.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_answer_event(content_format: i32) {
    let mut process = process();
    let served = process.served.take();
    if let (Some(instance), Some(served)) = (process.instance.as_ref(), served) {
        let whole = 0..served.event().len();
        instance.answer(served, &Output::Event(whole), format(content_format), &process.answer);
    }
}

/// Ends the call with an error; the text is for the caller.
///
/// # Safety
/// `start..start + len` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_fail(start: *const u8, len: usize) {
    let mut process = process();
    let served = process.served.take();
    if let (Some(instance), Some(served)) = (process.instance.as_ref(), served) {
        // SAFETY: the caller's word.
        instance.fail(served, &String::from_utf8_lossy(unsafe { slice(start, len) }));
    }
}

/// Writes out what the C library holds back, so that it is neither lost at the end of an instance nor repeated by each.
fn flush_stdio() {
    // SAFETY: a null stream stands for all of them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Ends the instance's process.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_instance_exit() -> ! {
    flush_stdio();
    let process = process();
    match process.instance.as_ref() {
        Some(instance) if process.served.is_none() => instance.exit(),
        // Without an answer: the supervisor finds the call, and tells its caller.
        Some(_) | None => crate::process::exit_now(0),
    }
}
