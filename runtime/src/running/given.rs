//! What functions have given out, told to whoever watches.

use bytes::Bytes;
use sandbar_bus::AnswerProperties;

use super::Running;
use crate::call::Answer;
use crate::outputs::Output;

/// The class of codes by which a function says that it has served.
const SUCCESS: u8 = 2;

impl Running {
    /// Tells the output of these functions: the one that was called, and the one that answered. Costs one load while nobody watches.
    /// If either is not to be observed, nobody is told: it is an answer of the one, and made by the other.
    ///
    /// Which function answered is the sandbox's word: it can put one of its own in another's place, and no other application's.
    pub(super) fn tell_given(&self, functions: [usize; 2], output: impl FnOnce() -> Output) {
        if !self.outputs.is_watched() {
            return;
        }
        let functions_of = &self.application.functions;
        if functions.iter().any(|index| functions_of.get(*index).is_some_and(|function| !function.observe)) {
            return;
        }
        let output = output();
        // One that says it has failed has not given what it is asked for.
        if output.properties.code.is_some_and(|code| code.byte() >> 5 != SUCCESS) {
            return;
        }
        let [called, answered] = functions;
        let both = [Some(called), Some(answered).filter(|answered| *answered != called)];
        for index in both.into_iter().flatten() {
            if let Some(function) = self.application.functions.get(index) {
                let entry = index == self.application.entry;
                self.outputs.publish(self.application.name.as_str(), function.name.as_str(), entry, &output);
            }
        }
    }
}

/// An answer's output; it shares the answer's bytes.
pub(super) fn output_of(answer: &Answer) -> Output {
    let Answer { payload, content_format, properties, .. } = answer;
    Output { payload: payload.clone(), content_format: *content_format, properties: properties.clone() }
}

/// The output of a message that nobody waits for.
pub(super) fn output(payload: Vec<u8>, content_format: Option<u16>, properties: &[u8]) -> Output {
    Output { payload: Bytes::from(payload), content_format, properties: AnswerProperties::decode(properties) }
}
