//! What this host lets any application ask for, whatever its manifest says.

use sandbar_supervisor::identity::Network;

use crate::manifest::quantity::show_size;
use crate::manifest::{Application, Ready};

/// The most that a manifest may ask for. What is not given is bounded by the manifest's own ranges only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ceiling {
    /// Memory and swap of one application, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of one application.
    pub processes: Option<u32>,
    /// Processor time of one application, in processors.
    pub cpus: Option<f64>,
    /// Instances of one function that stand ready. A manifest that leaves the number to Sandbar is kept below, one that names a higher one
    /// is refused.
    pub ready: Option<u32>,
    /// Whether an application may have the host's network.
    pub host_network: bool,
}

/// What an application asks for beyond that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CeilingError {
    /// A limit that is too high for this host.
    #[error(
        "{what} = {asked} is more than this host lets an application have, {most}: ask for less, or raise `sandbar serve {flag}`"
    )]
    Limit {
        /// The field of the manifest.
        what: &'static str,
        /// What the manifest asks for.
        asked: String,
        /// The ceiling.
        most: String,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// The host's network.
    #[error("network = \"host\" is not allowed on this host: `sandbar serve --allow-host-network` would allow it")]
    HostNetwork,
}

impl Ceiling {
    /// Whether an application stays below.
    ///
    /// # Errors
    /// The first thing that does not.
    pub(crate) fn check(&self, application: &Application) -> Result<(), CeilingError> {
        let limits = &application.limits;
        below("memory", "--memory-max", limits.memory_bytes, self.memory_bytes, |bytes| show_size(*bytes))?;
        below("processes", "--processes-max", limits.processes, self.processes, u32::to_string)?;
        below("cpus", "--cpus-max", limits.cpus, self.cpus, f64::to_string)?;
        for function in &application.functions {
            if let Ready::Exactly(number) = function.ready {
                below("ready", "--ready-max", number, self.ready, u32::to_string)?;
            }
        }
        if application.network == Network::Host && !self.host_network {
            return Err(CeilingError::HostNetwork);
        }
        Ok(())
    }
}

fn below<T: PartialOrd>(
    what: &'static str,
    flag: &'static str,
    asked: T,
    most: Option<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), CeilingError> {
    match most {
        Some(most) if asked > most => Err(CeilingError::Limit { what, asked: show(&asked), most: show(&most), flag }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(more: &str) -> Application {
        let text = format!("name = \"a\"\n{more}\n[functions.f]\nruntime = \"python3\"\ncode = \"f.py\"\n");
        Application::parse(&text, "sandbar.toml").expect("a manifest")
    }

    #[test]
    fn an_application_may_ask_for_the_ceiling_and_for_no_more() {
        let ceiling =
            Ceiling { memory_bytes: Some(64 << 20), processes: Some(32), cpus: Some(0.5), ..Ceiling::default() };
        let at = "[limits]\nmemory = \"64MiB\"\nprocesses = 32\ncpus = 0.5";
        assert_eq!(ceiling.check(&application(at)), Ok(()));
        let more_than_that = [
            ("memory = \"65MiB\"", "--memory-max"),
            ("processes = 33", "--processes-max"),
            ("cpus = 0.6", "--cpus-max"),
        ];
        for (more, flag) in more_than_that {
            let field = more.split(' ').next().unwrap_or_default();
            let over: Vec<&str> = at.lines().filter(|line| !line.starts_with(field)).chain([more]).collect();
            let error = ceiling.check(&application(&over.join("\n"))).expect_err("over the ceiling").to_string();
            assert!(error.contains(flag) && error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn more_instances_ready_than_the_host_keeps_are_refused() {
        let asks = |ready: &str| {
            let text = format!("name = \"a\"\n[functions.f]\nruntime = \"python3\"\ncode = \"f.py\"\nready = {ready}");
            Application::parse(&text, "sandbar.toml").expect("a manifest")
        };
        let ceiling = Ceiling { ready: Some(4), ..Ceiling::default() };
        for allowed in ["4", "0", "\"auto\""] {
            assert_eq!(ceiling.check(&asks(allowed)), Ok(()));
        }
        let error = ceiling.check(&asks("5")).expect_err("over the ceiling").to_string();
        assert!(error.starts_with("ready = 5") && error.contains("--ready-max"), "{error}");
    }

    #[test]
    fn the_hosts_network_is_had_where_the_host_says_so() {
        let asks = application("network = \"host\"");
        assert_eq!(Ceiling::default().check(&asks), Err(CeilingError::HostNetwork));
        assert_eq!(Ceiling { host_network: true, ..Ceiling::default() }.check(&asks), Ok(()));
    }

    #[test]
    fn without_a_ceiling_nothing_is_refused() {
        assert_eq!(Ceiling::default().check(&application("[limits]\nmemory = \"64GiB\"\ncpus = 64")), Ok(()));
    }
}
