//! `sandbar serve`: the host agent, with its doors.
//!
//! ```text
//! socket bound ── agent started ── doors open ── "ready" ──▶ serving
//!                                                              │ SIGINT or SIGTERM, or a door that broke down
//!    gone ◀── doors' last answers ◀── sandboxes stopped ◀── doors closed, calls under way given a while
//! ```
//! The socket comes first because it tells whether another agent is at work here: the agent's start clears away what a
//! dead one left. A second signal, at any time, ends the process at once.

mod accepted;
mod coap;
mod coaps;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Uid;
use sandbar_proxy::management::ManagementSocket;
use sandbar_runtime::manifest::access::{self, IpNet};
use sandbar_runtime::manifest::{RestAfter, quantity};
use sandbar_runtime::{Ceiling, HostAgent, HostConfig, HostRest, Renewal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use self::accepted::AcceptedArguments;
use self::coap::CoapArguments;
use self::coaps::CoapsArguments;
use crate::arguments::HostSocket;
use crate::doors::Doors;
use crate::failure::Failure;
use crate::notify::{self, notify};
use crate::output;
use crate::secure::SecureArguments;

/// How long the doors may take to see off the answers to calls that the stop itself ended.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Descriptors that an application needs: one of a single function has thirteen, and each more function one.
const DESCRIPTORS_PER_APPLICATION: u64 = 20;
/// Descriptors for connections, and what the agent has once.
const DESCRIPTORS_OF_DOORS: u64 = 4096;
/// How long the process waits for its threads at its very end.
const LAST_THREADS: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  sandbar serve
  sandbar serve --coap '[::]:5683' --http 127.0.0.1:8000
  sandbar serve --coap none --coaps 0.0.0.0 --psk-file /etc/sandbar/keys.toml
  sandbar serve --state /tmp/state --socket /tmp/sandbar.sock --coap 127.0.0.1:0";

/// Be this host's agent: keep applications, answer calls to them
///
/// Prints a line "ready" once applications deployed before are back and the doors are open, and tells systemd the
/// same. The log goes to standard error. SIGINT and SIGTERM stop all sandboxes and leave nothing behind but the state
/// directory; a second one ends the agent at once, and the next start clears up.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// The directory for applications, logs and the host's identity; made if there is none
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sandbar")]
    state: PathBuf,
    #[command(flatten)]
    host: HostSocket,
    /// Where to answer plain CoAP, or none; may be given several times
    ///
    /// The default is for this host alone. 0.0.0.0:5683 opens it to devices over IPv4, `[::]:5683` over IPv6 and IPv4; anyone who
    /// can send there can call any function whose manifest does not say otherwise in `[access]`. Port 0 takes any free port; the log and
    /// the management service tell which.
    #[arg(long, value_name = "ADDR", value_parser = plain_door, default_value = "127.0.0.1:5683")]
    pub(crate) coap: Vec<PlainDoor>,
    /// Answer plain CoAP only to this network, such as 192.168.1.0/24; may be given several times
    #[arg(long, value_name = "NET", value_parser = access::network)]
    pub(crate) coap_from: Vec<IpNet>,
    #[command(flatten)]
    pub(crate) secure: SecureArguments,
    /// Where to answer HTTP; may be given several times; nowhere unless given
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Vec<SocketAddr>,
    /// The largest payload of a call or an answer, such as 1MiB
    #[arg(long, value_name = "SIZE", value_parser = payload_bytes, default_value = "16MiB")]
    pub(crate) payload_max: usize,
    /// Calls under way at one time, beside those that applications are assured of; more are refused as overloaded
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "1024")]
    calls_max: u32,
    /// Calls that each application may have under way whatever the others have
    #[arg(long, value_name = "NUMBER", default_value = "16")]
    calls_assured: u32,
    /// How long a call may have to wait for others of its application while more come than are served, or never; more are refused
    ///
    /// A burst is served whole: it counts only when there has been a queue for a fifth of a second. Where more than a fifth of all calls
    /// are refused, the others may wait for a quarter of it. Calls of slow functions may wait for as many others as are being served.
    #[arg(long, value_name = "TIME", value_parser = delay, default_value = "20ms")]
    delay_max: Delay,
    /// Applications that may be deployed at one time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), default_value = "4096")]
    applications_max: u32,
    /// The most memory that an application's manifest may ask for, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    memory_max: Option<u64>,
    /// The most processes and threads that it may ask for
    #[arg(long, value_name = "NUMBER")]
    processes_max: Option<u32>,
    /// The most processor time that it may ask for, in processors, such as 0.5
    #[arg(long, value_name = "NUMBER")]
    cpus_max: Option<f64>,
    /// The most instances that a function may keep ready for calls to come; 0: none, each call waits for a fork
    #[arg(long, value_name = "NUMBER")]
    ready_max: Option<u32>,
    /// Let applications have this host's network, if their manifest says `network = "host"`
    ///
    /// Their functions then reach whatever this host reaches, its loopback included.
    #[arg(long)]
    allow_host_network: bool,
    /// End instances that stand ready when an application was not called for this time, or never; workers stay
    #[arg(long, value_name = "TIME", default_value = "30s")]
    rest_ready: RestAfter,
    /// End its workers after this time, or never; the sandbox stays, and the next call has them started again in it
    ///
    /// Then 1 MiB is left of an application in native code and 12 MiB of one in Python, and the next call waits for 6 to 10 ms.
    #[arg(long, value_name = "TIME", default_value = "2min")]
    rest_workers: RestAfter,
    /// End the sandbox of an application that was not called for this time, or never; the next call makes it again
    ///
    /// With the defaults, a host of 1 GiB holds a hundred applications: those not called for ten minutes take up nothing but their files.
    /// With a time, applications that were deployed before are made when they are first called; with never, at the start.
    #[arg(long, value_name = "TIME", default_value = "10min")]
    rest_sandbox: RestAfter,
    /// Renew a function's worker after so many calls, so that calls do not share one address layout for ever
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..), default_value = "10000")]
    renew_calls: u64,
    /// Renew it after this time, if it has served any call
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "1h")]
    renew_time: Duration,
    /// The Python interpreter for functions in Python: a path, or a name that is looked for in PATH
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// The first user id for sandboxes; each application is given a range of 65,536 from here on
    ///
    /// Choose another only where users or containers of this host have ids in these ranges.
    #[arg(long, value_name = "UID", default_value = "1879048192")]
    first_user: u32,
    /// A directory that applications may name as root file system, itself or what is in it; may be given several times
    ///
    /// Functions see all of it that is readable for everyone. What an application brings in its own folder needs no leave.
    #[arg(long, value_name = "DIR")]
    allow_rootfs: Vec<PathBuf>,
    /// How long calls under way may still take when the agent is told to stop
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "5s")]
    pub(crate) grace: Duration,
    /// Write the path of every call to its application's log: each function with its process id and times
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    accepted: AcceptedArguments,
    #[command(flatten)]
    pub(crate) coap_limits: CoapArguments,
    #[command(flatten)]
    pub(crate) coaps_limits: CoapsArguments,
    /// What to log: error, warn, info, debug or trace, for all or for parts, such as info,sandbar_proxy=debug
    #[arg(long, value_name = "FILTER", env = "SANDBAR_LOG", value_parser = log_filter, default_value = "info")]
    log: String,
}

impl ServeArguments {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if !Uid::effective().is_root() {
            return Err(Failure::NotRoot);
        }
        start_log(&self.log);
        raise_descriptor_limit(self.applications_max).map_err(|errno| Failure::System(errno.into()))?;
        let runtime = tokio::runtime::Runtime::new().map_err(Failure::System)?;
        let served = runtime.block_on(self.until_stopped());
        // Whatever still blocks a thread by then must not keep the process.
        runtime.shutdown_timeout(LAST_THREADS);
        served
    }

    async fn until_stopped(self) -> Result<(), Failure> {
        let (stop, twice) = stop_signals().map_err(Failure::System)?;
        tokio::select! {
            served = self.serve(stop) => served,
            () = twice => Err(Failure::StoppedAtOnce),
        }
    }

    async fn serve(self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let socket = ManagementSocket::bind(&self.host.socket).await?;
        let host = HostAgent::start(self.host_config()).await.map_err(Failure::Start)?;
        let mut doors = match Doors::open(&self, &host, socket) {
            Ok(doors) => doors,
            Err(failure) => {
                host.stop().await;
                return Err(failure);
            }
        };
        let served = match say_ready() {
            Ok(()) => doors.serve_until(stop.wait_for(|stop| *stop)).await,
            Err(failure) => Err(failure),
        };
        notify(notify::STOPPING);
        doors.close(self.grace).await;
        host.stop().await;
        doors.close(LAST_ANSWERS).await;
        tracing::info!("stopped");
        served
    }

    /// Where plain CoAP is answered.
    pub(crate) fn coap_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.coap.iter().filter_map(|door| match door {
            PlainDoor::Nowhere => None,
            PlainDoor::At(address) => Some(*address),
        })
    }

    /// The most calls that the host admits, of all applications together.
    pub(crate) fn calls_admitted_max(&self) -> usize {
        let assured = u64::from(self.calls_assured) * u64::from(self.applications_max);
        usize::try_from(assured.saturating_add(self.calls_max.into())).unwrap_or(usize::MAX)
    }

    fn host_config(&self) -> HostConfig {
        HostConfig {
            payload_bytes_max: self.payload_max,
            calls_in_flight_max: self.calls_max as usize,
            calls_assured: self.calls_assured as usize,
            applications_max: self.applications_max as usize,
            ceiling: Ceiling {
                memory_bytes: self.memory_max,
                processes: self.processes_max,
                cpus: self.cpus_max,
                ready: self.ready_max,
                host_network: self.allow_host_network,
            },
            delay_max: self.delay_max.0,
            accepted: self.accepted.config(self.payload_max),
            rest: HostRest { ready: self.rest_ready, workers: self.rest_workers, sandbox: self.rest_sandbox },
            renewal: Renewal { calls: self.renew_calls, seconds: self.renew_time.as_secs() },
            python: self.python.clone(),
            first_user: self.first_user,
            rootfs_allowed: self.allow_rootfs.clone(),
            state: self.state.clone(),
            trace: self.trace,
        }
    }
}

/// Where plain CoAP is answered, if anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PlainDoor {
    Nowhere,
    At(SocketAddr),
}

fn plain_door(text: &str) -> Result<PlainDoor, String> {
    if text == "none" {
        return Ok(PlainDoor::Nowhere);
    }
    let address = text.parse().map(PlainDoor::At);
    address.map_err(|_| "give an address with a port, such as 0.0.0.0:5683, or none".to_owned())
}

/// A time, or never.
#[derive(Clone, Copy, Debug)]
struct Delay(Option<Duration>);

fn delay(text: &str) -> Result<Delay, String> {
    if text == "never" {
        return Ok(Delay(None));
    }
    quantity::time(text).map(|time| Delay(Some(time))).map_err(|why| format!("{why}, or \"never\""))
}

/// Takes as many descriptors as the applications need that may be deployed, or else as many as the system allows.
fn raise_descriptor_limit(applications_max: u32) -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(applications_max) * DESCRIPTORS_PER_APPLICATION + DESCRIPTORS_OF_DOORS;
    if wanted > most && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// Tells those who wait for us. That nobody reads our output is no reason not to serve.
fn say_ready() -> Result<(), Failure> {
    notify(notify::READY);
    match output::line("ready") {
        Err(failure) if !failure.is_closed_output() => Err(failure),
        _ => Ok(()),
    }
}

/// A flag that the first signal to stop sets, and what completes at the second.
fn stop_signals() -> io::Result<(watch::Receiver<bool>, impl Future<Output = ()>)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopping) = watch::channel(false);
    let twice = async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!("stopping; a second signal stops at once");
        stop.send_replace(true);
        either(&mut interrupt, &mut terminate).await;
    };
    Ok((stopping, twice))
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn start_log(filter: &str) {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // What the DTLS library has to say anybody can have it say, by sending nonsense; who wants to know asks for it.
        .with_env_filter(EnvFilter::new(format!("dimpl=off,{filter}")))
        .init();
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes = quantity::size(text)?;
    usize::try_from(bytes).map_err(|_| "more than this machine can address".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn parsed(typed: &str) -> ServeArguments {
        let Command::Serve(arguments) = Arguments::parse_from(typed.split(' ')).command else {
            panic!("not serve: {typed}");
        };
        *arguments
    }

    #[test]
    fn a_bare_host_is_open_to_itself_alone() {
        let arguments = parsed("sandbar serve");
        assert!(arguments.coap_addresses().all(|address| address.ip().is_loopback()));
        assert_eq!(arguments.coap_addresses().count(), 1);
        assert_eq!(parsed("sandbar serve --coap none").coap_addresses().count(), 0);
        assert!(arguments.secure.coaps.is_empty() && arguments.coap_from.is_empty());
        assert!(arguments.http.is_empty());
    }

    #[test]
    fn a_bare_host_has_the_agents_own_limits() {
        let bare = parsed("sandbar serve").host_config();
        let usual = HostConfig::new("/var/lib/sandbar");
        assert_eq!(format!("{bare:?}"), format!("{usual:?}"));
    }

    #[test]
    fn doors_can_be_many_and_limits_reach_the_agent() {
        let arguments = parsed(
            "sandbar serve --coap 0.0.0.0:5683 --coap [::]:5683 --state /s --payload-max 1MiB --calls-max 7 --calls-assured 3 --allow-rootfs /r --allow-rootfs /q",
        );
        assert_eq!(arguments.coap.len(), 2);
        let config = arguments.host_config();
        assert_eq!(config.state, PathBuf::from("/s"));
        assert_eq!(config.payload_bytes_max, 1 << 20);
        assert_eq!(config.calls_in_flight_max, 7);
        assert_eq!(config.calls_assured, 3);
        assert_eq!(config.rootfs_allowed, [PathBuf::from("/r"), PathBuf::from("/q")]);
        assert_eq!(arguments.calls_admitted_max(), 7 + 3 * config.applications_max);
    }
}
