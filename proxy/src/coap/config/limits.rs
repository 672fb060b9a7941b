//! The limits of a door as they are told: numbers by name, times in milliseconds under names that say so.

use std::time::Duration;

use super::{CoapConfig, GroupConfig, TransferLimits};
use crate::coap::dtls::DtlsConfig;

/// A limit's name and what it is.
pub type Limit = (String, u64);

/// A limit of a number of things or bytes.
fn number(name: &str, value: usize) -> Limit {
    (name.to_owned(), value as u64)
}

fn time(name: &str, value: Duration) -> Limit {
    (format!("{name}_ms"), u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

impl CoapConfig {
    /// What peers may take of a door, and for how long. What a door does on its own, such as when it sends again, is no limit.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        let mut limits = vec![
            number("receive_buffer_bytes", self.receive_buffer_bytes),
            number("options_max", self.options_max),
            number("calls_in_flight_max", self.calls_in_flight_max),
            number("calls_in_flight_per_peer_max", self.calls_in_flight_per_peer_max),
            number("rate_per_peer", self.rate_per_peer as usize),
            number("rate_burst", self.rate_burst as usize),
            number("payload_bytes_in_flight_max", self.payload_bytes_in_flight_max),
            time("verified_lifetime", self.verified_lifetime),
            number("verified_max", self.verified_max),
            number("peers_max", self.peers_max),
            number("exchanges_max", self.exchanges_max),
            number("exchanges_per_peer_max", self.exchanges_per_peer_max),
            number("exchange_bytes_max", self.exchange_bytes_max),
            number("exchange_bytes_per_peer_max", self.exchange_bytes_per_peer_max),
            time("confirmable_lifetime", self.confirmable_lifetime),
            time("non_confirmable_lifetime", self.non_confirmable_lifetime),
            number("retransmissions_max", self.retransmissions_max as usize),
            number("confirmations_max", self.confirmations_max),
            number("observers_max", self.observers_max),
            number("observers_per_peer_max", self.observers_per_peer_max),
            number("observed_bytes_max", self.observed_bytes_max),
            time("observe_idle_max", self.observe_idle_max),
            time("observe_interval_min", self.observe_interval_min),
            time("send_wait", self.send_wait),
            time("drain", self.drain),
        ];
        limits.extend(of_transfers("uploads", &self.uploads));
        limits.extend(of_transfers("downloads", &self.downloads));
        if !self.groups.interfaces.is_empty() {
            let GroupConfig { leisure, pending_max, pending_per_address_max, .. } = &self.groups;
            limits.push(time("group_leisure", *leisure));
            limits.push(number("group_pending_max", *pending_max));
            limits.push(number("group_pending_per_address_max", *pending_per_address_max));
        }
        limits
    }
}

fn of_transfers(direction: &str, limits: &TransferLimits) -> Vec<Limit> {
    let TransferLimits { transfers_max, transfers_per_peer_max, bytes_max, bytes_per_peer_max, idle_max, yields_after } =
        limits;
    vec![
        number(&format!("{direction}_max"), *transfers_max),
        number(&format!("{direction}_per_peer_max"), *transfers_per_peer_max),
        number(&format!("{direction}_bytes_max"), *bytes_max),
        number(&format!("{direction}_bytes_per_peer_max"), *bytes_per_peer_max),
        time(&format!("{direction}_idle_max"), *idle_max),
        time(&format!("{direction}_yields_after"), *yields_after),
    ]
}

impl DtlsConfig {
    /// What clients may take of a secure door, beside what they may of any.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        vec![
            number("handshakes_max", self.handshakes_max),
            number("handshakes_per_address_max", self.handshakes_per_address_max),
            time("handshake_time_max", self.handshake_time_max),
            time("handshake_yields_after", self.handshake_yields_after),
            number("sessions_max", self.sessions_max),
            number("sessions_per_identity_max", self.sessions_per_identity_max),
            time("session_idle_max", self.session_idle_max),
            time("session_life_max", self.session_life_max),
            time("session_yields_after", self.session_yields_after),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_limit_has_a_name_of_its_own_and_says_its_unit() {
        let coap = CoapConfig { calls_in_flight_max: 7, ..CoapConfig::default() };
        let all = [coap.limits(), DtlsConfig::default().limits()].concat();
        let names: BTreeSet<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        let told = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(told("calls_in_flight_max"), Some(7));
        assert_eq!(told("session_life_max_ms"), Some(24 * 3_600_000));
        assert_eq!(told("uploads_idle_max_ms"), Some(60_000));
        assert_eq!(told("group_pending_max"), None, "it listens to no group");
    }

    #[test]
    fn every_maximum_of_a_door_is_told() {
        // Fields that end so are limits; the names of nested ones are theirs with what they are of.
        let written = format!("{:?} {:?}", CoapConfig::default(), DtlsConfig::default());
        let told = [CoapConfig::default().limits(), DtlsConfig::default().limits()].concat();
        let transfers = ["transfers_max", "transfers_per_peer_max", "bytes_max", "bytes_per_peer_max", "idle_max"];
        let groups = ["pending_max", "pending_per_address_max"];
        for field in written.split([' ', '{', '(']).filter_map(|word| word.strip_suffix(':')) {
            if field.ends_with("_max") && !transfers.contains(&field) && !groups.contains(&field) {
                let known = told.iter().any(|(name, _)| name.trim_end_matches("_ms") == field);
                assert!(known || field == "diagnostic_bytes_max", "{field} is not told");
            }
        }
    }
}
