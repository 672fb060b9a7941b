//! What is observed: of each function its newest output, of each accepted call that it has not ended, and who is to be told of what follows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sandbar_runtime::outputs::{Output, Watched, Watcher};

use crate::coap::block::Block;
use crate::coap::blockwise::download::{Tagger, is_cut};
use crate::coap::response::Response;
use coap_lite::ResponseType;

/// What an output looks like to whoever observes its function.
#[derive(Clone, Debug)]
pub(in crate::coap) struct Representation {
    /// Whole, without what differs from observer to observer.
    response: Response,
    /// Names it where it goes out in blocks, if its function has given it no name.
    tag: Box<[u8]>,
}

/// All functions and accepted calls that are observed.
#[derive(Debug)]
pub(super) struct Topics {
    watcher: Arc<Watcher>,
    numbers: HashMap<Arc<Watched>, u32>,
    topics: Vec<Option<Topic>>,
    free: Vec<u32>,
    /// Observers that are to be told of something new, by topic.
    rounds: VecDeque<Round>,
    /// Payload bytes of the newest outputs.
    bytes: usize,
    bytes_max: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) watched: Arc<Watched>,
    /// `None`: nothing was given out since it is observed; of an accepted call nothing ever is.
    pub(super) newest: Option<Representation>,
    /// Counts the outputs.
    pub(super) version: u32,
    /// Its observers' numbers, one for each observation.
    observers: Vec<u32>,
    /// Whether there is a round for it.
    in_round: bool,
    /// Whether another has to follow, as something was given out meanwhile.
    again: bool,
}

/// The observers of a topic, as they were when it changed.
#[derive(Debug)]
struct Round {
    topic: u32,
    observers: Vec<u32>,
}

impl Representation {
    pub(in crate::coap) fn new(output: Output, tagger: &Tagger) -> Self {
        let Output { payload, content_format, properties } = output;
        let tag = tagger.hash(&payload);
        // A notification is the answer to a GET, whatever the call was whose output it is (RFC 7641, section 3.2).
        let response = Response {
            content_format,
            max_age_s: properties.max_age_s,
            etag: properties.etag.map(Vec::into_boxed_slice),
            payload,
            ..Response::new(ResponseType::Content)
        };
        Self { response, tag }
    }

    /// As it goes to an observer that has asked for such blocks: still whole.
    pub(super) fn for_observer(&self, asked: Option<Block>) -> Response {
        let mut response = self.response.clone();
        if response.etag.is_none() && is_cut(&response, asked) {
            response.etag = Some(self.tag.clone());
        }
        response
    }

    pub(super) fn content_format(&self) -> Option<u16> {
        self.response.content_format
    }

    fn bytes(&self) -> usize {
        self.response.payload.len()
    }
}

impl Topics {
    pub(super) fn new(watcher: Arc<Watcher>, bytes_max: usize) -> Self {
        let (numbers, topics, free, rounds) = (HashMap::new(), Vec::new(), Vec::new(), VecDeque::new());
        Self { watcher, numbers, topics, free, rounds, bytes: 0, bytes_max }
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.topics.iter().all(Option::is_none) && self.rounds.is_empty() && self.bytes == 0
    }

    pub(super) fn number(&self, watched: &Watched) -> Option<u32> {
        self.numbers.get(watched).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Topic> {
        self.topics.get(number as usize)?.as_ref()
    }

    pub(super) fn watched(&self, number: u32) -> Option<&Arc<Watched>> {
        self.get(number).map(|topic| &topic.watched)
    }

    pub(super) fn version(&self, number: u32) -> u32 {
        self.get(number).map_or(0, |topic| topic.version)
    }

    /// One of those who observe this, if anybody does: the topic's number, and his.
    pub(super) fn an_observer(&self, watched: &Watched) -> Option<(u32, u32)> {
        let number = self.number(watched)?;
        Some((number, *self.get(number)?.observers.last()?))
    }

    /// Enters an observer, and gives the topic's number and the observer's place in it.
    pub(super) fn join(&mut self, watched: Watched, observer: u32) -> (u32, u32) {
        let number = self.number(&watched).unwrap_or_else(|| self.begin(Arc::new(watched)));
        let place = self.topics.get_mut(number as usize).and_then(Option::as_mut).map_or(0, |topic| {
            topic.observers.push(observer);
            topic.observers.len() - 1
        });
        (number, u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn begin(&mut self, watched: Arc<Watched>) -> u32 {
        let topic = Topic {
            watched: Arc::clone(&watched),
            newest: None,
            version: 0,
            observers: Vec::new(),
            in_round: false,
            again: false,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.topics.push(None);
            // No more than there may be observers.
            u32::try_from(self.topics.len() - 1).unwrap_or(u32::MAX)
        });
        self.topics[number as usize] = Some(topic);
        self.watcher.watch(&watched);
        self.numbers.insert(watched, number);
        number
    }

    /// Takes the observer at this place out. Gives the one that has the place now, if another had to move there, and where it was.
    pub(super) fn leave(&mut self, number: u32, place: u32) -> Option<(u32, u32)> {
        let topic = self.topics.get_mut(number as usize)?.as_mut()?;
        if (place as usize) < topic.observers.len() {
            topic.observers.swap_remove(place as usize);
        }
        let moved = topic.observers.get(place as usize).map(|observer| (*observer, topic.observers.len()));
        if topic.observers.capacity() > 64 && topic.observers.len() < topic.observers.capacity() / 8 {
            topic.observers.shrink_to(topic.observers.len() * 2);
        }
        if topic.observers.is_empty() {
            self.end(number);
        }
        moved.map(|(observer, before)| (observer, u32::try_from(before).unwrap_or(u32::MAX)))
    }

    fn end(&mut self, number: u32) {
        let Some(topic) = self.topics.get_mut(number as usize).and_then(Option::take) else { return };
        self.watcher.unwatch(&topic.watched);
        self.numbers.remove(&topic.watched);
        self.bytes -= topic.newest.map_or(0, |newest| newest.bytes());
        self.rounds.retain(|round| round.topic != number);
        self.free.push(number);
        if self.numbers.is_empty() {
            (self.topics, self.free, self.rounds) = (Vec::new(), Vec::new(), VecDeque::new());
            self.numbers.shrink_to_fit();
        }
    }

    /// Keeps a topic's newest output, and begins a round. False if there is no room for it: then nobody is told.
    pub(super) fn publish(&mut self, watched: &Watched, newest: Representation, given: u32) -> bool {
        let Some(number) = self.number(watched) else { return true };
        let Some(topic) = self.topics.get_mut(number as usize).and_then(Option::as_mut) else { return true };
        let bytes = self.bytes - topic.newest.as_ref().map_or(0, Representation::bytes) + newest.bytes();
        if bytes > self.bytes_max {
            return false;
        }
        self.bytes = bytes;
        topic.newest = Some(newest);
        topic.version = topic.version.wrapping_add(given);
        topic.again = topic.in_round;
        if !topic.in_round {
            topic.in_round = true;
            self.rounds.push_back(Round { topic: number, observers: topic.observers.clone() });
        }
        true
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// The next observer of a round. It may be one no more.
    pub(super) fn next_turn(&mut self) -> Option<u32> {
        loop {
            let round = self.rounds.front_mut()?;
            if let Some(observer) = round.observers.pop() {
                return Some(observer);
            }
            let ended = self.rounds.pop_front()?.topic;
            let Some(topic) = self.topics.get_mut(ended as usize).and_then(Option::as_mut) else { continue };
            topic.in_round = topic.again;
            if std::mem::take(&mut topic.again) {
                self.rounds.push_back(Round { topic: ended, observers: topic.observers.clone() });
            }
        }
    }
}
