//! One attack, as the tables of the groups hold it.

use std::time::Duration;

/// What runs a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Shell,
    Native,
}

impl Language {
    /// The function of a group's application that runs its probes in this language.
    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Shell => "shell",
            Self::Native => "native",
        }
    }
}

/// How a probe's call must end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// Done: the probe says that all it tried was refused.
    Held,
    /// Done, with an answer that begins with this.
    Answer(&'static str),
    /// Failed, with a diagnostic that has this in it.
    Failed(&'static str),
    /// Cut off at its deadline.
    DeadlinePassed,
    /// Done or not: what it does cannot be told from what is done to it.
    Any,
}

/// What a probe may do to its own application, as far as that is what an application may do to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// None: the functions beside it do not notice.
    None,
    /// While it runs, functions beside it may go short of what all of the application share.
    Starves,
    /// It takes memory that no process's death gives back at once: the kernel may take a worker after it, which is made again.
    Exhausts,
    /// It writes to the message memory, which all of its application map: the sandbox may be ended and made again.
    Scribbles,
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    pub(crate) told: Told,
    pub(crate) harm: Harm,
    /// How long its call may take.
    pub(crate) timeout: Duration,
    /// How many calls of it are made, one after another: more than one where it goes for a moment that is seldom met.
    pub(crate) times: usize,
}

/// What there is to most probes: the call ends with a report, soon.
const TIMEOUT: Duration = Duration::from_secs(6);

const fn probe(language: Language, name: &'static str) -> Probe {
    Probe { name, language, told: Told::Held, harm: Harm::None, timeout: TIMEOUT, times: 1 }
}

pub(crate) const fn python(name: &'static str) -> Probe {
    probe(Language::Python, name)
}

pub(crate) const fn shell(name: &'static str) -> Probe {
    probe(Language::Shell, name)
}

pub(crate) const fn native(name: &'static str) -> Probe {
    probe(Language::Native, name)
}

impl Probe {
    pub(crate) const fn told(self, told: Told) -> Self {
        Self { told, ..self }
    }

    pub(crate) const fn failed(self, diagnostic: &'static str) -> Self {
        self.told(Told::Failed(diagnostic))
    }

    /// It goes on until it is cut off.
    pub(crate) const fn cut_off_after_ms(self, ms: u64) -> Self {
        Self { told: Told::DeadlinePassed, timeout: Duration::from_millis(ms), ..self }
    }

    pub(crate) const fn within_ms(self, ms: u64) -> Self {
        Self { timeout: Duration::from_millis(ms), ..self }
    }

    pub(crate) const fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    pub(crate) const fn harms(self, harm: Harm) -> Self {
        Self { harm, ..self }
    }
}
