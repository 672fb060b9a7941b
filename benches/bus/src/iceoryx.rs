//! iceoryx2, the peer: a zero-copy bus between processes, measured in the ways its users have to block on it.
//!
//! Its event services wake through a Unix datagram socket; payloads go by publish-subscribe, loaned, written once and read in place.
//! Each side has a node of its own. What iceoryx2 keeps in the file system is under a folder and a prefix of this bench's own,
//! and removed with them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;

use crate::round_trip::{Answerer, Caller, Transport};
use crate::shared::{SharedMemory, stamp_of, touch};

type Node = iceoryx2::node::Node<ipc::Service>;
type Payload = [u8];

/// Where iceoryx2 keeps its files. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Home {
    folder: PathBuf,
    prefix: String,
    made: AtomicU64,
}

/// What the names of all such files begin with; the bench's process id follows.
const PREFIX: &str = "sandbar_bench_";
/// Where the system keeps shared memory that has a name.
const SHARED_MEMORY: &str = "/dev/shm";

impl Home {
    pub(crate) fn new() -> Self {
        remove(|name| {
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
            pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
        });
        let prefix = format!("{PREFIX}{}_", std::process::id());
        let folder = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder, prefix, made: AtomicU64::new(0) }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.global.set_root_path(&Path::new(self.folder.as_os_str().as_encoded_bytes()).unwrap());
        config.global.prefix = FileName::new(self.prefix.as_bytes()).unwrap();
        config
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(|name| name.starts_with(&self.prefix));
    }
}

/// Removes what iceoryx2 has left under such names: of this bench, or of one that was killed.
fn remove(these: impl Fn(&str) -> bool) {
    let folders = [std::env::temp_dir(), PathBuf::from(SHARED_MEMORY)];
    for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&these) {
            let path = entry.path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).ok()
            } else {
                std::fs::remove_file(path).ok()
            };
        }
    }
}

/// In which way the two sides block, and whether a payload goes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A listener's blocking wait; no payload.
    Event,
    /// A wait set with the listener attached; no payload.
    WaitSet,
    /// A sample published, then an event; the receiver waits as in `Event`.
    Sample,
}

/// A pair of services, one for each direction.
#[derive(Debug)]
pub(crate) struct Iceoryx {
    config: Config,
    way: Way,
    payload_bytes: usize,
    name: String,
    /// Time of sending, for the ways without a payload.
    stamp: SharedMemory,
}

impl Iceoryx {
    pub(crate) fn new(home: &Home, way: Way, payload_bytes: usize) -> Self {
        let number = home.made.fetch_add(1, Ordering::Relaxed);
        let stamp = SharedMemory::new(0, 1, 0);
        Self { config: home.config(), way, payload_bytes, name: format!("bench-{number}"), stamp }
    }

    fn node(&self) -> Node {
        set_log_level(LogLevel::Error);
        let builder = NodeBuilder::new().config(&self.config).signal_handling_mode(SignalHandlingMode::Disabled);
        builder.create::<ipc::Service>().unwrap()
    }

    fn out(&self, node: &Node, direction: &str) -> Out {
        let name = ServiceName::new(&format!("{}-{direction}", self.name)).unwrap();
        let event = node.service_builder(&name).event().open_or_create().unwrap();
        let publisher = (self.way == Way::Sample).then(|| {
            let samples = node.service_builder(&name).publish_subscribe::<Payload>().open_or_create().unwrap();
            samples.publisher_builder().initial_max_slice_len(self.payload_bytes).create().unwrap()
        });
        Out { notifier: event.notifier_builder().create().unwrap(), publisher }
    }

    fn input(&self, node: &Node, direction: &str) -> Input {
        let name = ServiceName::new(&format!("{}-{direction}", self.name)).unwrap();
        let event = node.service_builder(&name).event().open_or_create().unwrap();
        let subscriber = (self.way == Way::Sample).then(|| {
            let samples = node.service_builder(&name).publish_subscribe::<Payload>().open_or_create().unwrap();
            samples.subscriber_builder().create().unwrap()
        });
        Input { listener: event.listener_builder().create().unwrap(), subscriber }
    }

    /// Sets a side up and lends it out.
    fn with_side(&self, [from, to]: [&str; 2], work: impl FnOnce(&mut Side<'_, '_>)) {
        let node = self.node();
        let (input, out) = (self.input(&node, from), self.out(&node, to));
        let set = WaitSetBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
        let set = set.create::<ipc::Service>().unwrap();
        let guard = (self.way == Way::WaitSet).then(|| set.attach_notification(&input.listener).unwrap());
        let attached = guard.as_ref().map(|guard| (&set, guard));
        work(&mut Side { input: &input, out: &out, attached, stamp: &self.stamp.numbers()[0], sample: None });
    }
}

struct Out {
    notifier: Notifier<ipc::Service>,
    publisher: Option<Publisher<ipc::Service, Payload, ()>>,
}

struct Input {
    listener: Listener<ipc::Service>,
    subscriber: Option<Subscriber<ipc::Service, Payload, ()>>,
}

type Attached<'a, 'set> = (&'a WaitSet<ipc::Service>, &'a WaitSetGuard<'set, 'set, ipc::Service>);

struct Side<'a, 'set> {
    input: &'a Input,
    out: &'a Out,
    attached: Option<Attached<'a, 'set>>,
    stamp: &'a AtomicU64,
    /// What was received and not yet answered.
    sample: Option<Sample<ipc::Service, Payload, ()>>,
}

impl Side<'_, '_> {
    fn send(&self, payload: &[u8]) {
        match &self.out.publisher {
            Some(publisher) => {
                let sample = publisher.loan_slice_uninit(payload.len()).unwrap();
                let receivers = sample.write_from_slice(payload).send().unwrap();
                assert_eq!(receivers, 1);
            }
            None => self.stamp.store(stamp_of(payload), Ordering::Relaxed),
        }
        let woken = self.out.notifier.notify().unwrap();
        assert_eq!(woken, 1);
    }

    /// Sleeps until the other side has sent.
    fn wait(&self) {
        match self.attached {
            None => while self.input.listener.blocking_wait(|_| {}).unwrap() == 0 {},
            Some((set, guard)) => {
                let mut events = 0;
                while events == 0 {
                    let progress = |attachment: WaitSetAttachmentId<ipc::Service>| {
                        if attachment.has_event_from(guard) {
                            events += self.input.listener.try_wait(|_| {}).unwrap();
                        }
                        CallbackProgression::Continue
                    };
                    set.wait_and_process_once(progress).unwrap();
                }
            }
        }
    }

    /// Takes the sample that came with the event, if samples are sent at all.
    fn take(&self) -> Option<Sample<ipc::Service, Payload, ()>> {
        self.wait();
        let subscriber = self.input.subscriber.as_ref()?;
        Some(subscriber.receive().unwrap().expect("a sample with the event"))
    }
}

impl Caller for Side<'_, '_> {
    fn round_trip(&mut self, payload: &[u8]) {
        self.send(payload);
        if let Some(answer) = self.take() {
            touch(answer.payload());
        }
    }
}

impl Answerer for Side<'_, '_> {
    fn receive(&mut self) -> u64 {
        self.sample = self.take();
        match &self.sample {
            Some(sample) => stamp_of(sample.payload()),
            None => self.stamp.load(Ordering::Relaxed),
        }
    }

    fn answer(&mut self, payload: &[u8]) {
        if let Some(request) = &self.sample {
            touch(request.payload());
        }
        self.send(payload);
        self.sample = None;
    }
}

impl Transport for Iceoryx {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        self.with_side(["answer", "request"], |side| asking(side));
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        self.with_side(["request", "answer"], |side| serving(side));
    }
}
