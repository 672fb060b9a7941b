//! The instance: one process, one call. It takes a message, lets the handler run, hands the output over and is gone.

use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use sandbar_bus::clock::now_ns;
use sandbar_bus::trace::HopReport;
use sandbar_bus::{
    Actor, Address, AnswerProperties, Bus, Destination, Draft, Envelope, Function, Payload, RequestProperties, Taken,
    Verdict,
};

use crate::callee::{CallError, Callee};
use crate::linger::Lingering;
use crate::output::Output;
use crate::process;
use crate::worker::descriptors;

/// Functions that a call may pass through, by `next` or by calls of one another.
pub(crate) const HOPS_MAX: u32 = 256;
/// Bytes of stack that are touched before a call comes.
const STACK_TOUCHED: usize = 8 << 10;

/// An instance. Its methods are to be called in the order [`take`](Self::take), any number of [`call`](Self::call) and
/// [`send`](Self::send), [`answer`](Self::answer) or [`fail`](Self::fail).
#[derive(Debug)]
pub struct Instance {
    bus: &'static Bus,
    function_index: usize,
    function: Function,
    slot: usize,
    generation: u32,
}

/// The call an instance serves.
#[derive(Debug)]
pub struct Served {
    taken: Taken<'static>,
    envelope: Envelope,
    taken_ns: u64,
    /// Until when this instance may run.
    deadline_ns: u64,
}

impl Instance {
    /// The first thing the new process does: it takes the identity of its slot.
    pub(crate) fn begin(bus: &'static Bus, function_index: usize, function: Function, slot: usize) -> Self {
        if let Err(error) = process::become_instance(slot, descriptors::RULES) {
            crate::worker::give_up(&format_args!("the instance cannot take its own identity: {error}"));
        }
        let generation = bus.slots()[slot].state().map_or(0, |state| state.generation);
        Self { bus, function_index, function, slot, generation }
    }

    /// The application's name.
    #[must_use]
    pub fn application(&self) -> String {
        self.bus.application()
    }

    /// The function that this is an instance of.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// The largest payload of the application, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.bus.layout().geometry.payload_bytes_max
    }

    /// Sleeps until there is a call, and takes it. `None`: the instance has nothing to serve, and is to end. It was dismissed, or its
    /// call's deadline had passed while that waited, which is answered here.
    #[must_use]
    pub fn take(&self) -> Option<Served> {
        self.stand_ready();
        let taken = self.bus.wait_for_call(self.slot, self.function_index)?;
        let taken_ns = now_ns();
        let envelope = taken.envelope();
        let deadline_ns = envelope.deadline_ns.min(taken_ns.saturating_add(self.function.timeout_ns));
        self.bus.slots()[self.slot].serve(taken_ns, deadline_ns);
        if envelope.deadline_ns <= taken_ns {
            let diagnostic = "the deadline passed before the function could start";
            self.bus.answer_error(taken, Verdict::DeadlinePassed, diagnostic);
            return None;
        }
        Some(Served { taken, envelope, taken_ns, deadline_ns })
    }

    /// Touches what every call will touch, while there is none yet: pages that a fork has left shared or absent cost a fault each, which
    /// nobody has to wait for now. A rehearsal of the way that a call takes, with a message that is given back.
    fn stand_ready(&self) {
        self.bus.populate(self.function_index, &self.function.next);
        if self.bus.waiting(self.function_index) > 0 {
            return;
        }
        let scratch = std::hint::black_box([now_ns().to_le_bytes(); STACK_TOUCHED / 8]);
        let output = std::hint::black_box(scratch[..8].concat());
        let to = self.function.next.first().map_or(Destination::Out, |next| Destination::Function(*next));
        if let Some(mut draft) = self.bus.draft(Actor::instance(self.slot), to, output.len()) {
            draft.write(&output);
        }
    }

    /// Hands the handler's output over: to the next functions, or as the answer, which then has these properties.
    pub fn answer(
        &self,
        served: Served,
        output: &Output<'_>,
        content_format: Option<u16>,
        properties: &AnswerProperties,
    ) {
        let len = output.bytes(served.event()).len();
        if len > self.payload_bytes_max() {
            let limit = self.payload_bytes_max();
            let diagnostic = format!("the function's output of {len} bytes is larger than the limit of {limit} bytes");
            self.end(served, Verdict::TooLarge, &diagnostic);
            return;
        }
        self.report_hop(&served);
        let content_format = content_format.or(self.function.content_format);
        let hops = served.envelope.hops;
        let envelope = Envelope { content_format, sent_ns: now_ns(), ..served.envelope };
        let Some((first, others)) = self.function.next.split_first() else {
            match properties.encode() {
                Ok(properties) => self.answer_caller(served.taken, &properties, output, envelope),
                Err(error) => self.bus.answer_error(served.taken, Verdict::Failed, &error.to_string()),
            }
            return self.linger().after_an_answer();
        };
        // Written before the output is handed on, with which its memory may go; sent after, as nobody waits for them.
        let bytes = output.bytes(served.event());
        let asides: Vec<_> = others.iter().map(|next| (*next, self.write_aside(&served, bytes, *next))).collect();
        self.pass_on(served.taken, output, *first, envelope);
        let aside =
            Envelope { reply_to: Address::Log, traced: false, deadline_ns: self.detached_deadline(), ..envelope };
        for (next, draft) in asides {
            self.send_aside(draft, next, Envelope { function: next, hops: envelope.hops + 1, ..aside });
        }
        self.linger().after_a_hop(hops);
    }

    /// The handler raised an error.
    pub fn fail(&self, served: Served, diagnostic: &str) {
        self.end(served, Verdict::Failed, diagnostic);
    }

    /// There was no room to run the handler.
    pub fn refuse(&self, served: Served, diagnostic: &str) {
        self.end(served, Verdict::Overloaded, diagnostic);
    }

    /// Ends the call with the error that its program was killed for want of memory.
    pub fn out_of_memory(&self, served: Served, diagnostic: &str) {
        self.end(served, Verdict::OutOfMemory, diagnostic);
    }

    fn end(&self, served: Served, verdict: Verdict, diagnostic: &str) {
        self.report_hop(&served);
        self.bus.answer_error(served.taken, verdict, diagnostic);
        self.linger().after_an_answer();
    }

    /// The chain ends here: the output is the answer.
    fn answer_caller(&self, taken: Taken<'static>, properties: &[u8], output: &Output<'_>, envelope: Envelope) {
        let Some(to) = self.bus.way_back(envelope.reply_to) else { return };
        let answer = Envelope { verdict: Some(Verdict::Done), function: self.function_index, ..envelope };
        if properties.is_empty() || matches!(output, Output::Bytes(_)) {
            return self.hand_over(taken, properties, output, to, &answer);
        }
        // What is said of the answer has no room in the event's own message.
        let written = output.bytes(taken.bytes()).to_vec();
        self.hand_over(taken, properties, &Output::Bytes(&written), to, &answer);
    }

    fn pass_on(&self, taken: Taken<'static>, output: &Output<'_>, next: usize, envelope: Envelope) {
        if envelope.hops >= HOPS_MAX {
            self.bus.answer_error(taken, Verdict::Loop, &CallError::Loop.to_string());
            return;
        }
        let request = Envelope { function: next, hops: envelope.hops + 1, ..envelope };
        // All functions of a chain are told what was asked for.
        let properties = taken.properties().to_vec();
        self.hand_over(taken, &properties, output, Destination::Function(next), &request);
    }

    /// A part of the event is handed on in the event's own message: no byte moves.
    fn hand_over(
        &self,
        taken: Taken<'static>,
        properties: &[u8],
        output: &Output<'_>,
        to: Destination,
        envelope: &Envelope,
    ) {
        let full = |taken| self.bus.answer_error(taken, Verdict::Overloaded, "the queue of the next function is full");
        let bytes = match output {
            Output::Bytes(bytes) => *bytes,
            Output::Event(part) => {
                if let Err(taken) = taken.forward(Payload::Part(part.clone()), to, envelope) {
                    full(taken);
                }
                return;
            }
        };
        let Some(mut draft) = self.bus.draft_with(Actor::instance(self.slot), to, properties, bytes.len()) else {
            self.bus.answer_error(taken, Verdict::Overloaded, "the application's message buffers are full");
            return;
        };
        draft.write(bytes);
        if let Err((taken, draft)) = taken.answer_with(draft, to, envelope) {
            drop(draft);
            full(taken);
        }
    }

    fn write_aside(&self, served: &Served, output: &[u8], next: usize) -> Option<Draft<'static>> {
        let (properties, to) = (served.taken.properties(), Destination::Function(next));
        let mut draft = self.bus.draft_with(Actor::instance(self.slot), to, properties, output.len())?;
        draft.write(output);
        Some(draft)
    }

    /// Sends the output to a function that runs on its own.
    fn send_aside(&self, draft: Option<Draft<'_>>, next: usize, envelope: Envelope) {
        let sent = match draft {
            Some(_) if envelope.hops > HOPS_MAX => Err(CallError::Loop),
            Some(draft) => draft.send(Destination::Function(next), &envelope).map_err(|_draft| CallError::Overloaded),
            None => Err(CallError::Overloaded),
        };
        if let Err(error) = sent {
            let name = self.bus.function(next).map_or_else(String::new, |function| function.name);
            log(&format_args!("call {:016x}: nothing was handed to {name}: {error}", envelope.call));
        }
    }

    fn post(&self, to: Destination, payload: &[u8], envelope: Envelope) -> Result<(), CallError> {
        if payload.len() > self.payload_bytes_max() {
            return Err(CallError::TooLarge(self.payload_bytes_max()));
        }
        if envelope.hops > HOPS_MAX {
            return Err(CallError::Loop);
        }
        let draft = self.bus.draft(Actor::instance(self.slot), to, payload.len());
        let mut draft = draft.ok_or(CallError::Overloaded)?;
        draft.write(payload);
        draft.send(to, &envelope).map_err(|_draft| CallError::Overloaded)
    }

    /// Calls another function and waits for the answer: of the application, by its name, or of another one, by its path.
    ///
    /// # Errors
    /// When it did not end with done.
    pub fn call(
        &self,
        served: &Served,
        function: &str,
        payload: &[u8],
        content_format: Option<u16>,
    ) -> Result<(Vec<u8>, Option<u16>), CallError> {
        let reply_to = Address::Instance { slot: self.slot, generation: self.generation };
        let callee = self.find(function)?;
        let envelope = self.request(served, callee.index(), content_format, reply_to, served.deadline_ns);
        self.post(callee.destination(), payload, envelope)?;
        let reply = self.bus.wait_for_reply(self.slot, self.generation, served.deadline_ns);
        let reply = reply.ok_or(CallError::DeadlinePassed)?;
        let envelope = reply.envelope();
        match envelope.verdict {
            Some(Verdict::Done) => Ok((reply.bytes().to_vec(), envelope.content_format)),
            verdict => {
                let diagnostic = String::from_utf8_lossy(reply.bytes()).into_owned();
                Err(CallError::Ended(verdict.unwrap_or(Verdict::Failed), diagnostic))
            }
        }
    }

    /// Sends to another function and does not wait: returns once the message is in its queue, or on its way to the agent.
    ///
    /// # Errors
    /// When it could not be put there.
    pub fn send(
        &self,
        served: &Served,
        function: &str,
        payload: &[u8],
        content_format: Option<u16>,
    ) -> Result<(), CallError> {
        let callee = self.find(function)?;
        let envelope = self.request(served, callee.index(), content_format, Address::Log, self.detached_deadline());
        self.post(callee.destination(), payload, Envelope { traced: false, ..envelope })
    }

    fn find(&self, function: &str) -> Result<Callee, CallError> {
        if function.starts_with('/') {
            let index = self.bus.target_index(function);
            return index.map(Callee::Elsewhere).ok_or_else(|| CallError::NotListed(function.to_owned()));
        }
        let index = self.bus.function_index(function);
        index.map(Callee::Here).ok_or_else(|| CallError::NoSuchFunction(function.to_owned()))
    }

    fn request(
        &self,
        served: &Served,
        function: usize,
        content_format: Option<u16>,
        reply_to: Address,
        deadline_ns: u64,
    ) -> Envelope {
        let Envelope { call, traced, hops, .. } = served.envelope;
        Envelope {
            call,
            deadline_ns,
            sent_ns: now_ns(),
            reply_to,
            content_format,
            verdict: None,
            function,
            traced,
            hops: hops + 1,
        }
    }

    /// What runs on its own may take as long as all functions of the application after one another; each still has its own
    /// time-out.
    fn detached_deadline(&self) -> u64 {
        let functions = (0..self.bus.layout().geometry.functions).filter_map(|index| self.bus.function(index));
        now_ns().saturating_add(functions.map(|function| function.timeout_ns).sum())
    }

    #[allow(unsafe_code, reason = "a send to a descriptor that was inherited by number")]
    fn report_hop(&self, served: &Served) {
        if !served.envelope.traced {
            return;
        }
        let report = HopReport {
            call: served.envelope.call,
            function: self.function_index as u64,
            sent_ns: served.envelope.sent_ns,
            taken_ns: served.taken_ns,
            done_ns: now_ns(),
        }
        .to_bytes();
        let fd: RawFd = descriptors::TRACE;
        // SAFETY: the bytes are ours and as long as said. A full socket loses the report, never the call.
        unsafe { libc::send(fd, report.as_ptr().cast(), report.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    }

    fn linger(&self) -> Lingering<'static> {
        Lingering::new(self.bus, self.slot, self.function_index)
    }

    /// The instance has served: ends the process, when nobody minds. What is to be torn down is torn down by its end.
    pub fn exit(&self) -> ! {
        self.linger().last();
        process::exit_now(0)
    }
}

impl Served {
    /// The input, where it lies in shared memory.
    #[must_use]
    pub fn event(&self) -> &[u8] {
        self.taken.bytes()
    }

    /// Which part of the event these bytes are, if they lie in it.
    pub(crate) fn part(&self, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        self.taken.part(bytes)
    }

    /// The call's id.
    #[must_use]
    pub fn call_id(&self) -> u64 {
        self.envelope.call
    }

    /// What was said of the request that the call began with.
    #[must_use]
    pub fn properties(&self) -> RequestProperties {
        RequestProperties::decode(self.taken.properties())
    }

    /// The input's format (CoAP Content-Formats registry).
    #[must_use]
    pub fn content_format(&self) -> Option<u16> {
        self.envelope.content_format
    }

    /// How long the instance may still run.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.deadline_ns.saturating_sub(now_ns()))
    }
}

/// Writes one line to the application's log.
pub fn log(text: &dyn fmt::Display) {
    let line = format!("{text}\n");
    // Whoever closes standard error does not want to be heard.
    let _closed = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
