//! What is measured, and in what order: a round has a slice of everything, so that noise hits all alike.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::arguments::{Arguments, Part};
use crate::bus::{Calls, FunctionQueue};
use crate::copying::{self, Rates};
use crate::floor::eventfd::Eventfds;
use crate::floor::futex::{Futex, Ring};
use crate::floor::pipe::{Pipes, Stream};
use crate::floor::unix_socket::UnixSocket;
use crate::flow::{self, Flow, SHAPES, Shape};
use crate::iceoryx::{self, Home, Iceoryx};
use crate::nats::{self, Nats};
use crate::pinning::Placement;
use crate::round_trip::{self, Amount, Transport};

/// Payloads of round trips, and how many a slice measures. The warm-up uses every buffer that the bus has of the size.
pub(crate) const AMOUNTS: [Amount; 3] = [
    Amount { payload_bytes: 64, warm_up: 600, count: 1500 },
    Amount { payload_bytes: 4096, warm_up: 200, count: 800 },
    Amount { payload_bytes: 1 << 20, warm_up: 24, count: 80 },
];

/// Payload of a message in a stream, in bytes.
pub(crate) const STREAM_BYTES: usize = 64;

/// Who makes a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Futex,
    Eventfd,
    Pipe,
    UnixSocket,
    IceoryxEvent,
    IceoryxWaitSet,
    IceoryxSample,
    Nats,
    Bus,
}

pub(crate) const WAYS: [Way; 9] = [
    Way::Futex,
    Way::Eventfd,
    Way::Pipe,
    Way::UnixSocket,
    Way::IceoryxEvent,
    Way::IceoryxWaitSet,
    Way::IceoryxSample,
    Way::Nats,
    Way::Bus,
];

/// What the bench `claims` shows beside a hop.
const PEERS: [Way; 5] = [Way::Futex, Way::IceoryxEvent, Way::IceoryxSample, Way::Nats, Way::Bus];

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Futex => "futex and shared memory (floor)",
            Self::Eventfd => "eventfd and shared memory",
            Self::Pipe => "pipe",
            Self::UnixSocket => "Unix socket",
            Self::IceoryxEvent => "iceoryx2 event, no payload",
            Self::IceoryxWaitSet => "iceoryx2 wait set, no payload",
            Self::IceoryxSample => "iceoryx2 sample and event",
            Self::Nats => "NATS request and reply",
            Self::Bus => "application bus",
        }
    }

    /// Whether a payload of this length can go this way. The ways without payloads stand beside the smallest; NATS has its server.
    pub(crate) fn takes(self, payload_bytes: usize) -> bool {
        match self {
            Self::IceoryxEvent | Self::IceoryxWaitSet => payload_bytes == AMOUNTS[0].payload_bytes,
            Self::Nats => payload_bytes <= nats::PAYLOAD_BYTES_MAX && nats::is_installed(),
            Self::Futex | Self::Eventfd | Self::Pipe | Self::UnixSocket | Self::IceoryxSample | Self::Bus => true,
        }
    }

    fn transport(self, home: &Home, placement: Placement, payload_bytes: usize) -> Box<dyn Transport> {
        let iceoryx = |way| Box::new(Iceoryx::new(home, way, payload_bytes));
        match self {
            Self::Futex => Box::new(Futex::new(payload_bytes)),
            Self::Eventfd => Box::new(Eventfds::new(payload_bytes)),
            Self::Pipe => Box::new(Pipes::new(payload_bytes)),
            Self::UnixSocket => Box::new(UnixSocket::new(payload_bytes)),
            Self::IceoryxEvent => iceoryx(iceoryx::Way::Event),
            Self::IceoryxWaitSet => iceoryx(iceoryx::Way::WaitSet),
            Self::IceoryxSample => iceoryx(iceoryx::Way::Sample),
            Self::Nats => Box::new(Nats::new(placement)),
            Self::Bus => Box::new(Calls::new()),
        }
    }
}

/// What a stream flows through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Futex,
    Pipe,
    Bus,
}

pub(crate) const CHANNELS: [Channel; 3] = [Channel::Futex, Channel::Pipe, Channel::Bus];

impl Channel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Futex => "futex and shared ring (floor)",
            Self::Pipe => "pipe",
            Self::Bus => "application bus",
        }
    }

    /// The ring of the floor has one producer and one consumer.
    pub(crate) fn takes(self, shape: Shape) -> bool {
        self != Self::Futex || shape == SHAPES[0]
    }

    fn flow(self, shape: Shape) -> Box<dyn Flow> {
        match self {
            Self::Futex => Box::new(Ring::new(STREAM_BYTES)),
            Self::Pipe => Box::new(Stream::new(STREAM_BYTES)),
            Self::Bus => Box::new(FunctionQueue::new(shape)),
        }
    }
}

/// Nanoseconds of round trips.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub(crate) round_trip: Histogram<u64>,
    pub(crate) one_way: Histogram<u64>,
}

impl Default for Distribution {
    fn default() -> Self {
        let [round_trip, one_way] = [(); 2].map(|()| Histogram::new(3).unwrap());
        Self { round_trip, one_way }
    }
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// By placement and payload, in bytes.
    pub(crate) round_trips: BTreeMap<(Placement, usize, Way), Distribution>,
    /// Messages a second, one number a round.
    pub(crate) streams: BTreeMap<(Placement, Shape, Channel), Vec<f64>>,
    /// Several a round.
    pub(crate) copies: BTreeMap<Placement, Vec<Rates>>,
}

impl Measured {
    /// A slice of everything.
    pub(crate) fn round(&mut self, home: &Home, arguments: &Arguments) {
        for placement in
            [Placement::OneCore, Placement::TwoCores].into_iter().filter(|placement| placement.is_possible())
        {
            if arguments.wants(Part::RoundTrips) {
                self.round_trips(home, placement);
            }
            if arguments.wants(Part::Copies) {
                self.copies.entry(placement).or_default().extend(copying::measure(placement));
            }
        }
        for placement in [Placement::OneCore, Placement::AllCores] {
            if arguments.wants(Part::Streams) {
                self.streams(placement);
            }
        }
    }

    /// Of each peer, the smallest payload on one core.
    pub(crate) fn peers(&mut self, home: &Home) {
        for way in PEERS.into_iter().filter(|way| way.takes(AMOUNTS[0].payload_bytes)) {
            self.round_trip(home, Placement::OneCore, AMOUNTS[0], way);
        }
    }

    fn round_trips(&mut self, home: &Home, placement: Placement) {
        for amount in AMOUNTS {
            for way in WAYS.into_iter().filter(|way| way.takes(amount.payload_bytes)) {
                self.round_trip(home, placement, amount, way);
            }
        }
    }

    fn round_trip(&mut self, home: &Home, placement: Placement, amount: Amount, way: Way) {
        let transport = way.transport(home, placement, amount.payload_bytes);
        let times = round_trip::measure(way.name(), transport.as_ref(), placement, amount);
        let all = self.round_trips.entry((placement, amount.payload_bytes, way)).or_default();
        times.round_trip.iter().for_each(|ns| all.round_trip.record(*ns).unwrap());
        times.one_way.iter().for_each(|ns| all.one_way.record(*ns).unwrap());
    }

    fn streams(&mut self, placement: Placement) {
        for shape in SHAPES {
            for channel in CHANNELS.into_iter().filter(|channel| channel.takes(shape)) {
                let flow = channel.flow(shape);
                let rate = flow::measure(channel.name(), flow.as_ref(), placement, shape, STREAM_BYTES);
                self.streams.entry((placement, shape, channel)).or_default().push(rate);
            }
        }
    }
}
