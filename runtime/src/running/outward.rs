//! Requests of an application's functions to other applications: up to the host bus, and the answer down again.
//!
//! ```text
//!  instance of A ──▶ queue out of A ──▶ Running of A ──▶ HostBus ──▶ Running of B ──▶ … instance of B
//!        ▲                                    │  ▲                                          │
//!        └──── its mailbox ◀── AgentSide::reply  └───────────────── answer ◀────────────────┘
//! ```
//!
//! What the request says of itself is an allegation. Who asks is known from the segment it lies in; what may be asked for is an
//! index into the manifest's own list; how many applications the call has come through is kept in the agent's table of calls.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbar_bus::agent::{PostError, Received};
use sandbar_bus::clock::now_ns;
use sandbar_bus::{Address, Envelope, RequestProperties, Verdict};

use super::Running;
use crate::call::{Answer, CallId, Mode, Origin, Outcome, Request};
use crate::host_bus::Caller;
use crate::manifest::Target;

/// Pause before an answer that found no room is handed to its instance again.
const AGAIN: Duration = Duration::from_millis(5);

/// A request to another application, checked.
struct Outward {
    target: Target,
    request: Request,
    /// How many calls from one application into another led to the one it is made in.
    depth: u32,
    envelope: Envelope,
}

impl Running {
    /// Takes up a request that came out of the sandbox: it is made beside all others, and its answer handed back.
    pub(super) fn call_out(self: &Arc<Self>, received: Received) {
        let outward = match self.outward(received) {
            Ok(outward) => outward,
            Err((envelope, reason)) => {
                self.end_outward(&envelope, "another application", Answer::refused(Outcome::NotFound, reason));
                return;
            }
        };
        let Ok(permit) = Arc::clone(&self.outward).try_acquire_owned() else {
            let max = self.application.limits.calls;
            let reason = format!("the application has {max} calls to others under way, as many as it makes");
            let refused = Answer::refused(Outcome::Overloaded, reason);
            self.end_outward(&outward.envelope, &outward.target.to_string(), refused);
            return;
        };
        let running = Arc::downgrade(self);
        let (bus, application) = (Weak::clone(&self.bus), Arc::clone(&self.application));
        tokio::spawn(async move {
            let _permit = permit;
            let Outward { target, request, depth, envelope } = outward;
            let Some(bus) = bus.upgrade() else { return };
            let answer = bus.call(Caller::Application { name: &application.name, depth }, request).await;
            if let Some(running) = running.upgrade() {
                running.end_outward(&envelope, &target.to_string(), answer);
            }
        });
    }

    /// What the request asks for, as far as the manifest allows it.
    fn outward(&self, received: Received) -> Result<Outward, (Envelope, &'static str)> {
        let Received { envelope, payload, .. } = received;
        let Some(target) = self.application.calls.get(envelope.function).cloned() else {
            return Err((envelope, "the application's manifest lists no such function of another application"));
        };
        let known = self.calls().as_ref().map(|calls| calls.origin(envelope.call)).unwrap_or_default();
        let waits = matches!(envelope.reply_to, Address::Instance { .. });
        let deadline_ns = known.deadline_ns.unwrap_or(u64::MAX).min(envelope.deadline_ns);
        let request = Request {
            application: target.application.as_str().to_owned(),
            function: target.function.as_ref().map(|function| function.as_str().to_owned()),
            payload: payload.into(),
            content_format: envelope.content_format,
            timeout: waits.then(|| Duration::from_nanos(deadline_ns.saturating_sub(now_ns()))),
            properties: RequestProperties::default(),
            trace: false,
            mode: Mode::Synchronous,
            origin: Origin::Known,
        };
        Ok(Outward { target, request, depth: known.depth, envelope })
    }

    /// A request has come to its end: who waits for it gets the answer, and the log says what nobody else would hear.
    fn end_outward(self: &Arc<Self>, envelope: &Envelope, target: &str, answer: Answer) {
        let call = CallId(envelope.call);
        let inner = answer.call.map_or_else(String::new, |inner| format!(" (call {inner} there)"));
        let waits = matches!(envelope.reply_to, Address::Instance { .. });
        if answer.outcome != Outcome::Done {
            self.log.add("", &format!("call {call}: {target}{inner}: {}: {}", answer.outcome, answer.diagnostic));
        } else if !waits {
            let bytes = answer.payload.len();
            self.log.add("", &format!("call {call}: {target}{inner}: done, {bytes} bytes that nobody waits for"));
        }
        self.hand_in(envelope, answer);
    }

    /// Hands an answer to the instance that waits for it, if one does.
    fn hand_in(self: &Arc<Self>, envelope: &Envelope, answer: Answer) {
        let payload_bytes_max = self.sandbox.bus.layout().geometry.payload_bytes_max;
        let (verdict, payload) = if answer.outcome == Outcome::Done && answer.payload.len() > payload_bytes_max {
            let limit = format!("the answer is larger than this application's limit of {payload_bytes_max} bytes");
            (Verdict::TooLarge, limit.into())
        } else if answer.outcome == Outcome::Done {
            (Verdict::Done, answer.payload)
        } else {
            (verdict(answer.outcome), answer.diagnostic.into())
        };
        let content_format = answer.content_format;
        let reply = Envelope { verdict: Some(verdict), content_format, sent_ns: now_ns(), ..*envelope };
        if self.try_to_hand_in(&payload, &reply) {
            return;
        }
        // Others hold all buffers of answers for now. Who waits does so until its deadline.
        let running = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let Some(running) = running.upgrade() else { return };
                if now_ns() >= reply.deadline_ns || running.try_to_hand_in(&payload, &reply) {
                    return;
                }
            }
        });
    }

    /// False if there is no room for now.
    fn try_to_hand_in(&self, payload: &[u8], reply: &Envelope) -> bool {
        match self.sandbox.bus.reply(payload, reply) {
            Ok(()) => true,
            Err(PostError::NoBuffer | PostError::QueueFull) => false,
            Err(PostError::Corrupt(_)) => {
                self.corrupt.notify_one();
                true
            }
        }
    }
}

/// How the outcome of a call travels on an application's bus.
fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Done => Verdict::Done,
        Outcome::NotFound => Verdict::NotFound,
        Outcome::NotAllowed => Verdict::NotAllowed,
        Outcome::TooLarge => Verdict::TooLarge,
        Outcome::Overloaded => Verdict::Overloaded,
        Outcome::DeadlinePassed => Verdict::DeadlinePassed,
        Outcome::Failed | Outcome::BadRequest | Outcome::Accepted => Verdict::Failed,
    }
}
