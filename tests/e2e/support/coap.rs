//! A small CoAP client (RFC 7252) for what the others are too slow or too polite for: thousands of calls at once, and
//! messages that are none. It shares no code with the door.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// ACK_TIMEOUT and MAX_RETRANSMIT of RFC 7252, section 4.8.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const RETRANSMISSIONS_MAX: u32 = 4;

const URI_PATH: u16 = 11;
const MAX_AGE: u16 = 14;

/// Code of the method POST.
const POST: u8 = 0x02;

/// A client with a socket, and so an endpoint, of its own.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UdpSocket,
    message_id: u16,
}

/// A message, as far as answers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    kind: u8,
    code: u8,
    message_id: u16,
    pub(crate) token: Vec<u8>,
    options: Vec<(u16, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
}

const CONFIRMABLE: u8 = 0;
const NON_CONFIRMABLE: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 2;
const RESET: u8 = 3;

impl Message {
    /// The code as it is written: `2.04`.
    pub(crate) fn code(&self) -> String {
        format!("{}.{:02}", self.code >> 5, self.code & 0x1F)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.kind == RESET
    }

    /// All values of an option.
    pub(crate) fn values(&self, option: u16) -> Vec<&[u8]> {
        self.options.iter().filter(|(number, _)| *number == option).map(|(_, value)| value.as_slice()).collect()
    }

    fn number(&self, option: u16) -> Option<u32> {
        let (_, value) = self.options.iter().find(|(number, _)| *number == option)?;
        Some(value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    pub(crate) fn max_age(&self) -> Option<u32> {
        self.number(MAX_AGE)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, code, high, low, rest @ ..] = bytes else { return None };
        let token_bytes = usize::from(first & 0xF);
        let token = rest.get(..token_bytes)?.to_vec();
        let (options, payload) = parse_options(rest.get(token_bytes..)?)?;
        let message_id = u16::from_be_bytes([*high, *low]);
        (first >> 6 == 1).then_some(Self { kind: first >> 4 & 3, code: *code, message_id, token, options, payload })
    }
}

type Options = Vec<(u16, Vec<u8>)>;

fn parse_options(mut bytes: &[u8]) -> Option<(Options, Vec<u8>)> {
    let (mut options, mut number) = (Vec::new(), 0);
    loop {
        let [first, rest @ ..] = bytes else { return Some((options, Vec::new())) };
        if *first == 0xFF {
            return Some((options, rest.to_vec()));
        }
        bytes = rest;
        let delta = nibble(first >> 4, &mut bytes)?;
        let length = usize::from(nibble(first & 0xF, &mut bytes)?);
        number += delta;
        options.push((number, bytes.get(..length)?.to_vec()));
        bytes = &bytes[length..];
    }
}

fn nibble(value: u8, bytes: &mut &[u8]) -> Option<u16> {
    match value {
        13 => {
            let [more, rest @ ..] = *bytes else { return None };
            *bytes = rest;
            Some(u16::from(*more) + 13)
        }
        14 => {
            let [high, low, rest @ ..] = *bytes else { return None };
            *bytes = rest;
            u16::from_be_bytes([*high, *low]).checked_add(269)
        }
        15 => None,
        value => Some(value.into()),
    }
}

impl Client {
    pub(crate) fn new(door: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(door).unwrap();
        // Message ids need only differ on one endpoint, and each client is one.
        Self { socket, message_id: 0 }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    /// What comes next, if anything comes within the time.
    pub(crate) fn receive(&self, within: Duration) -> Option<Message> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 2048];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(Message::parse(&bytes[..length]).expect("the door sends well-formed messages"))
    }

    /// A confirmable POST; `None` when no answer came, however often it was repeated.
    pub(crate) fn post(&mut self, path: &str, payload: &[u8]) -> Option<Message> {
        self.ask(POST, path, &[], payload)
    }

    /// A confirmable request with more options, by rising numbers beyond that of the path; likewise.
    pub(crate) fn ask(&mut self, method: u8, path: &str, more: &[(u16, &[u8])], payload: &[u8]) -> Option<Message> {
        self.message_id = self.message_id.wrapping_add(1);
        let request = self.request(method, path, more, payload);
        for attempt in 0..=RETRANSMISSIONS_MAX {
            self.send(&request);
            let until = Instant::now() + ACK_TIMEOUT * 2u32.pow(attempt);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                let Some(message) = self.receive(left) else { break };
                if let Some(answer) = self.answer(message) {
                    return Some(answer);
                }
            }
        }
        None
    }

    /// Sends a confirmable POST, once, and does not wait; gives its token, by which [`next_answer`](Self::next_answer) is told apart.
    pub(crate) fn begin(&mut self, path: &str, payload: &[u8]) -> Vec<u8> {
        self.message_id = self.message_id.wrapping_add(1);
        self.send(&self.request(POST, path, &[], payload));
        self.message_id.to_be_bytes().to_vec()
    }

    /// The next answer to whatever was begun, if one comes within the time.
    pub(crate) fn next_answer(&self, within: Duration) -> Option<Message> {
        let until = Instant::now() + within;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let message = self.receive(left)?;
            self.acknowledge(&message);
            if message.code != 0 {
                return Some(message);
            }
        }
        None
    }

    fn request(&self, method: u8, path: &str, more: &[(u16, &[u8])], payload: &[u8]) -> Vec<u8> {
        let id = self.message_id.to_be_bytes();
        let mut bytes = vec![1 << 6 | CONFIRMABLE << 4 | 2, method, id[0], id[1], id[0], id[1]];
        let segments = path.split('/').map(|segment| (URI_PATH, segment.as_bytes()));
        let mut last = 0;
        for (number, value) in segments.chain(more.iter().copied()) {
            let delta = u8::try_from(number - last).ok().filter(|delta| *delta < 13).unwrap();
            let length = u8::try_from(value.len()).ok().filter(|length| *length < 13).unwrap();
            bytes.push(delta << 4 | length);
            bytes.extend_from_slice(value);
            last = number;
        }
        if !payload.is_empty() {
            bytes.push(0xFF);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    fn acknowledge(&self, message: &Message) {
        if message.kind == CONFIRMABLE {
            let id = message.message_id.to_be_bytes();
            self.send(&[1 << 6 | ACKNOWLEDGEMENT << 4, 0, id[0], id[1]]);
        }
    }

    /// The message, if it is the answer to the request under way. Separate answers are acknowledged, old ones as well.
    fn answer(&self, message: Message) -> Option<Message> {
        self.acknowledge(&message);
        let current = self.message_id.to_be_bytes();
        let answers = match message.kind {
            CONFIRMABLE | NON_CONFIRMABLE => message.token == current,
            RESET => message.message_id == self.message_id,
            _ => message.token == current && message.code != 0,
        };
        answers.then_some(message)
    }
}
