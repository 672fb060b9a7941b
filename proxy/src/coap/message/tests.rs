use super::*;

const OPTIONS_MAX: usize = 64;

/// What a datagram is, in a word, to keep the tables below short.
fn verdict(datagram: &[u8]) -> String {
    match read(datagram, OPTIONS_MAX) {
        Received::Request(message) => format!("request {}", message.method),
        Received::Ping(id) => format!("ping {id}"),
        Received::Acknowledgement(id) => format!("acknowledgement {id}"),
        Received::Reset(id) => format!("reset {id}"),
        Received::Malformed(id, error) => format!("malformed {id}: {error}"),
        Received::Ignored(error) => format!("ignored: {error}"),
    }
}

#[test]
fn well_formed_messages_are_told_apart() {
    assert_eq!(verdict(&[0x40, 0x01, 0, 7]), "request 1");
    assert_eq!(verdict(&[0x50, 0x02, 0, 7, 0xff, 1]), "request 2");
    assert_eq!(verdict(&[0x40, 0x1f, 0, 7]), "request 31");
    assert_eq!(verdict(&[0x40, 0x00, 0, 7]), "ping 7");
    assert_eq!(verdict(&[0x60, 0x00, 0, 7]), "acknowledgement 7");
    assert_eq!(verdict(&[0x60, 0x45, 0, 7]), "acknowledgement 7");
    assert_eq!(verdict(&[0x70, 0x00, 1, 7]), "reset 263");
}

#[test]
fn malformed_messages_are_rejected_if_confirmable_and_ignored_otherwise() {
    let cases: &[(&[u8], FormatError)] = &[
        (&[0x09, 0x01, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9], FormatError::TokenLength),
        (&[0x0f, 0x01, 0, 7], FormatError::TokenLength),
        (&[0x04, 0x01, 0, 7, 1, 2, 3], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0xff], FormatError::EmptyPayload),
        (&[0x00, 0x01, 0, 7, 0xb1, b'a', 0xff], FormatError::EmptyPayload),
        (&[0x00, 0x01, 0, 7, 0xf0], FormatError::OptionNumber),
        (&[0x00, 0x01, 0, 7, 0x0f], FormatError::OptionLength),
        (&[0x00, 0x01, 0, 7, 0xb5, b'a'], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0xd0], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0xe0, 1], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0x0d], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0x0e, 1], FormatError::Truncated),
        (&[0x00, 0x01, 0, 7, 0xe0, 0xff, 0xff], FormatError::OptionNumber),
        (&[0x00, 0x00, 0, 7, 0xff], FormatError::NotEmpty),
        (&[0x01, 0x00, 0, 7, 9], FormatError::NotEmpty),
        (&[0x00, 0x45, 0, 7], FormatError::Code),
        (&[0x00, 0xe1, 0, 7], FormatError::Code),
    ];
    for (datagram, error) in cases {
        let mut confirmable = datagram.to_vec();
        confirmable[0] |= 0x40;
        assert_eq!(verdict(&confirmable), format!("malformed 7: {error}"));
        let mut not = confirmable;
        not[0] |= 0x10;
        assert_eq!(verdict(&not), format!("ignored: {error}"));
    }
}

#[test]
fn what_has_no_version_one_header_is_ignored() {
    for datagram in [&[][..], &[0x40], &[0x40, 1, 0], &[0x80, 1, 0, 7], &[0x00, 1, 0, 7], &[0xc0, 0, 0, 7]] {
        assert!(verdict(datagram).starts_with("ignored"), "{datagram:?}");
    }
}

#[test]
fn an_option_value_that_ends_in_a_marker_byte_is_no_marker() {
    assert_eq!(verdict(&[0x40, 0x01, 0, 7, 0xb1, 0xff]), "request 1");
}

#[test]
fn types_that_do_not_go_with_their_code_are_ignored() {
    assert!(verdict(&[0x50, 0x00, 0, 7]).starts_with("ignored"));
    assert!(verdict(&[0x60, 0x01, 0, 7]).starts_with("ignored"));
    assert!(verdict(&[0x70, 0x01, 0, 7]).starts_with("ignored"));
}

#[test]
fn options_beyond_the_limit_are_not_looked_at() {
    let mut datagram = vec![0x40, 0x01, 0, 7];
    datagram.extend([0x00; OPTIONS_MAX]);
    assert_eq!(verdict(&datagram), "request 1");
    datagram.push(0x00);
    assert_eq!(verdict(&datagram), "malformed 7: too many options");
}

#[test]
fn what_the_checks_let_pass_the_codec_reads_alike() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let mut requests = 0;
    for _ in 0..100_000 {
        let length = 4 + usize::from(draw() % 40);
        let mut datagram: Vec<u8> = (0..length).map(|_| draw()).collect();
        datagram[0] = 0x40 | datagram[0] & 0x13;
        datagram[1] &= 0x07;
        match read(&datagram, OPTIONS_MAX) {
            Received::Malformed(_, error) | Received::Ignored(error) => {
                assert_ne!(error, FormatError::Codec, "{datagram:02x?}");
            }
            Received::Request(message) => {
                requests += 1;
                assert_eq!(message.packet.to_bytes_unlimited().unwrap(), datagram);
            }
            Received::Ping(_) | Received::Acknowledgement(_) | Received::Reset(_) => {}
        }
    }
    assert!(requests > 100);
}
