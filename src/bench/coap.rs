//! Calls over CoAP: one socket, one request at a time (RFC 7252, 4.7), with all its blocks, by the client of the front doors' crate.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sandbar_proxy::client::{Client, ClientError, Credentials, Method, PreparedRequest, Request, Response};

use super::tally::End;
use crate::url::Url;

/// Messages from one socket: an id is not used again while the server may remember it.
const SOCKET_MESSAGES_MAX: u32 = 60_000;

/// What is called.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) to: SocketAddr,
    /// Over coaps, who we are: each lane opens a session.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// One socket of a load.
#[derive(Debug)]
pub(crate) struct CoapLane {
    server: Rc<Server>,
    request: Rc<PreparedRequest>,
    /// How long a call is waited for.
    timeout: Duration,
    /// Until it is needed, and after an error.
    client: Option<Client>,
}

/// The request that all lanes send.
///
/// # Errors
/// When it does not fit a message.
pub(crate) fn request(url: &Url, payload: &[u8], confirmable: bool) -> Result<PreparedRequest, ClientError> {
    let request = Request { method: Method::Post, path: &url.path, payload, content_format: None };
    let request = PreparedRequest::new(&request)?;
    if confirmable { Ok(request) } else { request.not_confirmable() }
}

impl CoapLane {
    pub(crate) fn new(server: Rc<Server>, request: Rc<PreparedRequest>, timeout: Duration) -> Self {
        Self { server, request, timeout, client: None }
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        let Server { to, credentials } = &*self.server;
        match credentials {
            Some(credentials) => Client::connect_secure(*to, Arc::clone(credentials), self.timeout).await,
            None => Client::connect(*to, self.timeout).await,
        }
    }

    /// Makes one call.
    pub(crate) async fn call(&mut self) -> End {
        let kept = self.client.take().filter(|client| client.messages() < SOCKET_MESSAGES_MAX);
        let mut client = match kept {
            Some(client) => client,
            None => match self.connect().await {
                Ok(client) => client,
                Err(error) => return failed(&error),
            },
        };
        match client.send(&self.request).await {
            Ok(response) => {
                self.client = Some(client);
                answered(&response)
            }
            // A later call could take for its own what comes late to this one's blocks.
            Err(error) => failed(&error),
        }
    }
}

fn answered(response: &Response) -> End {
    match response.code {
        (2, _) => End::Done,
        (5, 3) => End::Refused,
        (class, detail) => End::Error(format!("code {class}.{detail:02}")),
    }
}

fn failed(error: &ClientError) -> End {
    match error {
        ClientError::NoAnswer { .. } => End::Lost,
        ClientError::Socket { source, .. } => End::of(source),
        ClientError::Session { source, .. } => End::Error(format!("no session: {source}")),
        ClientError::Reset { .. } => End::Error("reset".to_owned()),
        // One kind, whatever the numbers in it.
        ClientError::TooLong { .. } => End::Error("payload too long for the server's blocks".to_owned()),
        ClientError::Uri { .. } | ClientError::Encode(_) | ClientError::Blocks => End::Error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use coap_lite::{CoapOption, MessageType, Packet};
    use tokio::net::UdpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn lane(server: &UdpSocket, payload: &[u8], confirmable: bool, timeout: Duration) -> CoapLane {
        let url = Url { authority: String::new(), path: "/a/f%20g?q=%31".to_owned() };
        let request = Rc::new(request(&url, payload, confirmable).unwrap());
        let server = Server { to: server.local_addr().unwrap(), credentials: None };
        CoapLane::new(Rc::new(server), request, timeout)
    }

    async fn received(server: &UdpSocket) -> (Packet, SocketAddr) {
        let mut buffer = [0; 2048];
        let (len, from) = server.recv_from(&mut buffer).await.unwrap();
        (Packet::from_bytes(&buffer[..len]).unwrap(), from)
    }

    /// Answers as the server of a text that stands in two blocks of 16 bytes and takes any blocks; tells what it was sent.
    async fn serve(server: &UdpSocket, messages: usize) -> Vec<Packet> {
        let mut all = Vec::new();
        while all.len() < messages {
            let (request, from) = received(server).await;
            let mut answer = request.clone();
            answer.clear_all_options();
            answer.header.set_type(MessageType::Acknowledgement);
            let block = |option| request.get_first_option(option).cloned();
            let (code, option, payload) = match (block(CoapOption::Block1), block(CoapOption::Block2)) {
                (Some(value), _) if value.last().is_some_and(|bits| bits & 8 != 0) => {
                    ("2.31", Some((CoapOption::Block1, value)), vec![])
                }
                (_, Some(_)) => ("2.04", Some((CoapOption::Block2, vec![0x10])), b"end".to_vec()),
                (_, None) => ("2.04", Some((CoapOption::Block2, vec![0x08])), vec![b'x'; 16]),
            };
            answer.header.set_code(code);
            option.into_iter().for_each(|(option, value)| answer.add_option(option, value));
            answer.payload = payload;
            server.send_to(&answer.to_bytes().unwrap(), from).await.unwrap();
            all.push(request);
        }
        all
    }

    #[tokio::test]
    async fn a_call_is_all_blocks_of_its_request_and_of_its_answer() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut lane = lane(&server, &[7; 1025], true, PATIENCE);
        let (end, requests) = tokio::join!(lane.call(), serve(&server, 3));
        assert_eq!(end, End::Done);
        let lengths: Vec<_> = requests.iter().map(|request| request.payload.len()).collect();
        assert_eq!(lengths, [1024, 1, 0], "two blocks there, and one more from there");
        for request in &requests {
            let values = |option| request.get_option(option).unwrap().iter().cloned().collect::<Vec<_>>();
            assert_eq!(values(CoapOption::UriPath), [b"a".to_vec(), b"f g".to_vec()]);
            assert_eq!(values(CoapOption::UriQuery), [b"q=1".to_vec()]);
        }
    }

    /// Else a server that guards against repeated messages would give the second the first one's answer.
    #[tokio::test]
    async fn calls_that_are_lost_are_in_time_and_differ() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut heads = std::collections::BTreeSet::new();
        let mut lane = lane(&server, b"x", false, Duration::from_millis(20));
        for _ in 0..3 {
            assert_eq!(lane.call().await, End::Lost);
            let (request, _) = received(&server).await;
            assert_eq!(request.header.get_type(), MessageType::NonConfirmable);
            heads.insert((request.header.message_id, request.get_token().to_vec()));
        }
        assert_eq!(heads.len(), 3);
    }

    #[tokio::test]
    async fn nobody_there_and_a_reset_are_errors_by_their_names() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut lane = lane(&server, b"x", true, PATIENCE);
        let reset = async {
            let (request, from) = received(&server).await;
            let [high, low] = request.header.message_id.to_be_bytes();
            server.send_to(&[0x70, 0, high, low], from).await.unwrap();
        };
        assert_eq!(tokio::join!(lane.call(), reset).0, End::Error("reset".to_owned()));
        drop(server);
        assert_eq!(lane.call().await, End::Error("connection refused".to_owned()));
    }

    #[test]
    fn codes_say_how_it_ended() {
        let of = |code| {
            answered(&Response {
                code,
                payload: vec![],
                content_format: None,
                max_age: None,
                size1: None,
                location: None,
            })
        };
        assert_eq!((of((2, 5)), of((5, 3))), (End::Done, End::Refused));
        assert_eq!(of((4, 4)), End::Error("code 4.04".to_owned()));
    }
}
