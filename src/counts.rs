//! `sandbar counts`: what the CoAP doors have counted, and what they count against: their limits.

use clap::Args;
use sandbar_proxy::management::Door;

use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  sandbar counts
  sandbar counts --limits
  sandbar counts --json";

/// Show what each CoAP door has counted since it was opened
///
/// Every datagram and request that was refused, repeated, sent again or given up counts somewhere: a device that is not answered
/// is found here. What is nought is left out.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CountsArguments {
    /// Show instead what each door lets callers take: numbers of things, bytes, and times in milliseconds
    #[arg(long)]
    limits: bool,
    /// Print a list of JSON objects, with what is nought, and the limits
    #[arg(long, conflicts_with = "limits")]
    json: bool,
    #[command(flatten)]
    host: HostSocket,
}

impl CountsArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let mut doors = self.host.client().host().await?.doors;
        if self.limits {
            return output::write(limits(&doors).as_bytes());
        }
        doors.retain(|door| !door.counters.is_empty());
        if self.json { output::json(&doors) } else { output::write(table(&doors).as_bytes()) }
    }
}

fn table(doors: &[Door]) -> String {
    let titles = ["DOOR", "COUNTED", "TIMES"].map(str::to_owned);
    let rows = doors.iter().flat_map(|door| {
        let counted = door.counters.iter().filter(|(_, times)| **times > 0);
        counted.map(|(name, times)| [door.address.to_string(), name.clone(), times.to_string()])
    });
    output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
}

/// The HTTP door has limits as well, though it does not count.
fn limits(doors: &[Door]) -> String {
    let titles = ["DOOR", "LIMIT", "IS"].map(str::to_owned);
    let rows = doors.iter().flat_map(|door| {
        door.limits.iter().map(|(name, limit)| [door.address.to_string(), name.clone(), limit.to_string()])
    });
    output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use sandbar_proxy::management::Protocol;

    use super::*;

    #[test]
    fn what_is_nought_is_left_out() {
        let counters = [("repeated".to_owned(), 3), ("refused".to_owned(), 0)].into();
        let limits = [("rate_per_peer".to_owned(), 0)].into();
        let doors = [Door { protocol: Protocol::Coap, address: ([127, 0, 0, 1], 5683).into(), counters, limits }];
        let printed = table(&doors);
        assert!(printed.contains("127.0.0.1:5683") && printed.contains("repeated"), "{printed}");
        assert!(!printed.contains("refused") && !printed.contains("rate_per_peer"), "{printed}");
        // Of a limit, nought says something too.
        let printed = super::limits(&doors);
        assert!(printed.contains("rate_per_peer") && !printed.contains("repeated"), "{printed}");
    }
}
