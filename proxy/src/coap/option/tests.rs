use super::*;

/// An option's number and value.
type Opt<'a> = (u16, &'a [u8]);

fn packet(options: &[Opt<'_>]) -> Packet {
    let mut packet = Packet::new();
    for (number, value) in options {
        packet.add_option(CoapOption::from(*number), value.to_vec());
    }
    packet
}

fn refused(options: &[Opt<'_>]) -> (ResponseType, String, bool) {
    let refusal = read(&packet(options)).unwrap_err();
    let text = String::from_utf8(refusal.response.payload.to_vec()).unwrap();
    (refusal.response.code, text, refusal.silent_if_not_confirmable)
}

#[test]
fn understood_options_are_read() {
    let options = read(&packet(&[
        (11, b"a"),
        (11, b".."),
        (12, &[110]),
        (17, &[0x2d, 0x16]),
        (27, &[0x1e]),
        (23, &[0x02]),
        (60, &[1, 0, 0]),
        (258, &[0x1a]),
        (4, b"one"),
        (4, b""),
        (4, b"too long!"),
        (4, b"another"),
    ]))
    .unwrap();
    assert_eq!(options.held, [Box::from(*b"one") as Box<[u8]>, Box::from(*b"another")]);
    assert_eq!(options.path, ["a", ".."]);
    assert_eq!(options.content_format, Some(110));
    assert_eq!(options.accept, Some(11542));
    assert_eq!(options.block1.unwrap().number, 1);
    assert_eq!(options.block2.unwrap().size(), 64);
    assert_eq!(options.size1, Some(65_536));
    assert!(!options.precondition_fails);
}

#[test]
fn critical_options_that_are_not_understood_are_named() {
    let long = [b'x'; 256];
    let long_uri = [b'x'; 1035];
    let cases: &[(u16, &[Opt<'_>])] = &[
        (9, &[(9, &[])]),                // OSCORE
        (19, &[(19, &[0])]),             // Q-Block1
        (2049, &[(2049, b"x")]),         // unassigned
        (65_535, &[(65_535, b"")]),      // experimental
        (17, &[(17, &[0]), (17, &[1])]), // repeated
        (17, &[(17, &[0, 0, 0])]),       // over-long
        (11, &[(11, &long)]),
        (15, &[(15, &long)]),
        (3, &[(3, b"")]), // too short
        (5, &[(5, b"x")]),
        (7, &[(7, &[0, 0, 0])]),
        (1, &[(1, &[0; 9])]),
        (23, &[(23, &[0, 0, 0, 0])]),
        (27, &[(27, &[0]), (27, &[0])]),
        (35, &[(35, &long_uri)]),
    ];
    for (number, options) in cases {
        let expected = format!("option {number} is not understood");
        assert_eq!(refused(options), (ResponseType::BadOption, expected, true));
    }
}

#[test]
fn elective_options_that_are_not_understood_are_ignored() {
    let options = read(&packet(&[
        (4, &[0; 20]),          // an over-long ETag
        (6, &[0, 0, 0, 0]),     // an over-long Observe
        (12, &[0, 0, 0]),       // an over-long Content-Format
        (60, &[0, 0, 0, 0, 1]), // an over-long Size1
        (252, b"echo"),
        (292, b"tag"),
        (2048, b"unassigned"),
    ]))
    .unwrap();
    assert_eq!(options, RequestOptions::default());
    let repeated = read(&packet(&[(12, &[50]), (12, &[60])])).unwrap();
    assert_eq!(repeated.content_format, Some(50));
    for (value, observe) in [
        (&[][..], Some(Observe::Register)),
        (&[0, 0], Some(Observe::Register)),
        (&[1], Some(Observe::Deregister)),
        (&[2], None),
    ] {
        assert_eq!(read(&packet(&[(6, value)])).unwrap().observe, observe);
    }
}

#[test]
fn proxying_is_refused() {
    for option in [(35, &b"coap://x/"[..]), (39, b"coap")] {
        assert_eq!(refused(&[option]).0, ResponseType::ProxyingNotSupported);
    }
}

#[test]
fn paths_that_are_not_text_and_reserved_block_sizes_are_bad_requests() {
    assert_eq!(refused(&[(11, b"a"), (11, &[0xff])]).0, ResponseType::BadRequest);
    assert_eq!(refused(&[(27, &[0x07])]).0, ResponseType::BadRequest);
    assert_eq!(refused(&[(23, &[0x0f])]).0, ResponseType::BadRequest);
}

#[test]
fn preconditions_hold_for_what_exists_and_has_no_tag() {
    let fails = |options| read(&packet(options)).unwrap().precondition_fails;
    assert!(!fails(&[(1, b"")]));
    assert!(!fails(&[(1, b"tag"), (1, b"")]));
    assert!(fails(&[(1, b"tag")]));
    assert!(fails(&[(5, b"")]));
}

#[test]
fn unwanted_classes_are_told_from_wanted_ones() {
    let only_errors = Unwanted(0b10);
    let nothing = Unwanted(0b1_1010);
    let done = Response::new(ResponseType::Changed);
    let failed = Response::new(ResponseType::InternalServerError);
    let next = Response::new(ResponseType::Continue);
    assert!(only_errors.covers(&done) && !only_errors.covers(&failed));
    assert!(nothing.covers(&done) && nothing.covers(&failed) && !nothing.covers(&next));
    assert!(!Unwanted::default().covers(&done));
}

#[test]
fn the_cache_key_tells_transfers_apart_but_not_their_blocks() {
    let key = |options: &[Opt<'_>]| cache_key(2, &packet(options));
    let first = key(&[(11, b"a"), (27, &[0x0e]), (60, &[9]), (28, b""), (6, b"")]);
    assert_eq!(first, key(&[(11, b"a"), (27, &[0x1e])]));
    assert_eq!(first, key(&[(11, b"a"), (4, b"tag")]));
    assert_eq!(first, key(&[(11, b"a"), (23, &[0x16]), (258, &[2])]));
    assert_ne!(first, key(&[(11, b"b")]));
    assert_ne!(first, key(&[(11, b"a"), (15, b"q=1")]));
    assert_ne!(first, key(&[(11, b"a"), (292, b"1")]));
    assert_ne!(first, key(&[(11, b"a"), (12, &[50])]));
    assert_ne!(first, cache_key(3, &packet(&[(11, b"a")])));
    assert_ne!(key(&[(11, b"ab")]), key(&[(11, b"a"), (11, b"b")]));
}
