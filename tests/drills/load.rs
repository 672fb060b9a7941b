//! Callers that must be answered: each in a thread of its own, one call after the other, over HTTP.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon a call is answered, one way or the other. The longest chain here has six seconds.
const PROMPT: Duration = Duration::from_secs(10);
const CONNECTION_MAX: Duration = Duration::from_secs(30);

/// What callers and those who kill share.
#[derive(Debug)]
pub(crate) struct Door {
    address: Mutex<SocketAddr>,
    /// Set before the agent is killed, and until it is back: only then may a call stay without an answer.
    down: AtomicBool,
    over: AtomicBool,
    pause: Duration,
}

/// Calls under way for one application, until told to stop.
#[derive(Debug)]
pub(crate) struct Caller {
    door: Arc<Door>,
    thread: JoinHandle<BTreeMap<String, u64>>,
}

/// Ends all callers of a door when it is dropped, lest they go on where a drill has failed.
#[derive(Debug)]
pub(crate) struct Closing(pub(crate) Arc<Door>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.goes_down();
    }
}

/// Which answers are right.
pub(crate) type Right = fn(&str) -> bool;

impl Door {
    pub(crate) fn new(address: SocketAddr, pause: Duration) -> Arc<Self> {
        let (down, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { address: Mutex::new(address), down, over, pause })
    }

    pub(crate) fn goes_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_up(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
        self.down.store(false, Ordering::SeqCst);
    }

    fn is_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }
}

impl Caller {
    /// Calls the application until [`finish`](Self::finish). `may_be_absent`: whether it comes and goes.
    pub(crate) fn start(door: &Arc<Door>, application: &'static str, right: Right, may_be_absent: bool) -> Self {
        let of_thread = Arc::clone(door);
        let thread = std::thread::spawn(move || {
            let mut counts = BTreeMap::new();
            while !of_thread.over.load(Ordering::Relaxed) {
                let told = call_once(&of_thread, application, right, may_be_absent);
                *counts.entry(told).or_insert(0) += 1;
                std::thread::sleep(of_thread.pause);
            }
            counts
        });
        Self { door: Arc::clone(door), thread }
    }

    /// Ends all callers of this door, and returns how often this one was told what.
    pub(crate) fn finish(self) -> BTreeMap<String, u64> {
        self.door.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|problem| std::panic::resume_unwind(problem))
    }
}

/// Makes a call, checks what comes back, and says in a word what it was.
fn call_once(door: &Door, application: &str, right: Right, may_be_absent: bool) -> String {
    // A call counts as made when the agent was there from its beginning to its end.
    if door.is_down() {
        std::thread::sleep(Duration::from_millis(2));
        return "waited".to_owned();
    }
    let (address, began) = (*door.address.lock().unwrap(), Instant::now());
    let answer = post(address, application);
    let took = began.elapsed();
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            assert!(door.is_down() || *door.address.lock().unwrap() != address, "{application}: no answer: {error}");
            return "the agent was killed".to_owned();
        }
    };
    assert!(took < PROMPT, "{application}: {status} {body:?} after {took:?}");
    match status {
        200 => assert!(right(&body), "{application}: {body:?}"),
        404 => assert!(may_be_absent, "{application}: {body:?}"),
        500 | 503 | 504 => assert!(body.len() > 10, "{application}: {status} without a reason: {body:?}"),
        _ => panic!("{application}: {status} {body:?}"),
    }
    status.to_string()
}

/// One call: status and body.
pub(crate) fn post(address: SocketAddr, application: &str) -> io::Result<(u16, String)> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(CONNECTION_MAX))?;
    let request =
        format!("POST /{application} HTTP/1.1\r\nhost: sandbar\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx");
    connection.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn parse(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (length == Some(body.len())).then(|| (status, body.to_owned()))
}
