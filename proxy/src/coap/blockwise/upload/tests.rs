use std::time::Duration;

use super::super::tests::key;
use super::*;

const MAX: usize = 4096;

fn uploads() -> Uploads {
    Uploads::new(
        TransferLimits {
            transfers_max: 4,
            transfers_per_peer_max: 2,
            bytes_max: 16_384,
            bytes_per_peer_max: 8192,
            idle_max: Duration::from_secs(60),
            yields_after: Duration::from_secs(5),
        },
        MAX,
    )
}

/// A block of 64 bytes.
fn block(number: u32, more: bool) -> Block {
    Block { number, more, exponent: 2 }
}

fn code(taken: Result<Progress, Refused>) -> ResponseType {
    match taken {
        Err(Refused::Because(response)) => response.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_in_order_make_a_payload() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    let payload: Vec<u8> = (0..200_u8).collect();
    for (number, bytes) in (0..).zip(payload.chunks(64)) {
        let more = bytes.len() == 64;
        let taken = uploads.take(&key, block(number, more), None, bytes, now);
        if more {
            assert_eq!(taken, Ok(Progress::Next));
        } else {
            assert_eq!(taken, Ok(Progress::Whole(payload.clone().into())));
        }
    }
    assert_eq!(uploads.next_deadline(), None);
}

#[test]
fn a_gap_is_refused_and_what_is_there_stays() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    uploads.take(&key, block(0, true), None, &[1; 64], now).unwrap();
    let gap = uploads.take(&key, block(2, true), None, &[3; 64], now);
    assert_eq!(code(gap), ResponseType::RequestEntityIncomplete);
    uploads.take(&key, block(1, true), None, &[2; 64], now).unwrap();
    let whole = uploads.take(&key, block(2, false), None, &[3; 10], now);
    let expected = [[1; 64].as_slice(), &[2; 64], &[3; 10]].concat();
    assert_eq!(whole, Ok(Progress::Whole(expected.into())));
}

#[test]
fn a_block_of_an_unknown_upload_is_refused() {
    let (mut uploads, now) = (uploads(), Instant::now());
    for more in [true, false] {
        let lost = uploads.take(&key(1, "a"), block(3, more), None, &[0; 64], now);
        assert_eq!(code(lost), ResponseType::RequestEntityIncomplete);
    }
}

#[test]
fn the_last_block_may_be_repeated_but_not_changed() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    uploads.take(&key, block(0, true), None, &[1; 64], now).unwrap();
    for _ in 0..3 {
        let taken = uploads.take(&key, block(1, true), None, &[2; 64], now);
        assert_eq!(taken, Ok(Progress::Next));
    }
    let changed = uploads.take(&key, block(1, true), None, &[9; 64], now);
    assert_eq!(code(changed), ResponseType::RequestEntityIncomplete);
    let whole = uploads.take(&key, block(2, false), None, &[], now);
    let expected = [[1; 64].as_slice(), &[2; 64]].concat();
    assert_eq!(whole, Ok(Progress::Whole(expected.into())));
}

#[test]
fn number_zero_begins_again_without_the_old_tail() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    for number in 0..3 {
        uploads.take(&key, block(number, true), None, &[1; 64], now).unwrap();
    }
    uploads.take(&key, block(0, true), None, &[7; 64], now).unwrap();
    let whole = uploads.take(&key, block(1, false), None, &[8; 5], now);
    let expected = [[7; 64].as_slice(), &[8; 5]].concat();
    assert_eq!(whole, Ok(Progress::Whole(expected.into())));
}

#[test]
fn block_size_may_shrink_on_the_way() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    uploads.take(&key, block(0, true), None, &[1; 64], now).unwrap();
    let smaller = Block { number: 2, more: true, exponent: 1 };
    uploads.take(&key, smaller, None, &[2; 32], now).unwrap();
    let last = Block { number: 3, more: false, exponent: 1 };
    let whole = uploads.take(&key, last, None, &[3; 32], now);
    let expected = [[1; 64].as_slice(), &[2; 32], &[3; 32]].concat();
    assert_eq!(whole, Ok(Progress::Whole(expected.into())));
}

#[test]
fn uploads_of_other_keys_do_not_mix() {
    let (mut uploads, now) = (uploads(), Instant::now());
    let keys = [key(1, "a"), key(1, "b"), key(2, "a")];
    for (byte, key) in (1..).zip(&keys) {
        uploads.take(key, block(0, true), None, &[byte; 64], now).unwrap();
    }
    for (byte, key) in (1..).zip(&keys) {
        let whole = uploads.take(key, block(1, false), None, &[], now);
        assert_eq!(whole, Ok(Progress::Whole(vec![byte; 64].into())));
    }
}

#[test]
fn too_large_is_said_as_soon_as_it_is_known() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    let announced = uploads.take(&key, block(0, true), Some(4097), &[0; 64], now);
    let Err(Refused::Because(response)) = announced else {
        panic!("{announced:?}");
    };
    assert_eq!(response.code, ResponseType::RequestEntityTooLarge);
    assert_eq!(response.size1, Some(4096));
    for number in 0..64 {
        uploads.take(&key, block(number, true), None, &[0; 64], now).unwrap();
    }
    let beyond = uploads.take(&key, block(64, false), None, &[0], now);
    assert_eq!(code(beyond), ResponseType::RequestEntityTooLarge);
    let far_beyond = uploads.take(&key, block(Block::NUMBER_MAX, true), None, &[0; 64], now);
    assert_eq!(code(far_beyond), ResponseType::RequestEntityTooLarge);
}

#[test]
fn blocks_of_the_wrong_length_are_bad_requests() {
    let (mut uploads, now, key) = (uploads(), Instant::now(), key(1, "a"));
    for (more, length) in [(true, 63), (true, 65), (true, 0), (false, 65)] {
        let taken = uploads.take(&key, block(0, more), None, &vec![0; length], now);
        assert_eq!(code(taken), ResponseType::BadRequest, "{more} {length}");
    }
}

#[test]
fn room_is_bounded_and_comes_back() {
    let (mut uploads, start) = (uploads(), Instant::now());
    uploads.take(&key(1, "a"), block(0, true), None, &[0; 64], start).unwrap();
    uploads.take(&key(1, "b"), block(0, true), None, &[0; 64], start).unwrap();
    let third = uploads.take(&key(1, "c"), block(0, true), None, &[0; 64], start);
    assert_eq!(third, Err(Refused::NoRoom));
    let later = start + Duration::from_secs(5);
    uploads.take(&key(1, "c"), block(0, true), None, &[0; 64], later).unwrap();
    let gave_way = uploads.take(&key(1, "a"), block(1, true), None, &[0; 64], later);
    assert_eq!(code(gave_way), ResponseType::RequestEntityIncomplete);
    uploads.expire(later + Duration::from_secs(60));
    assert_eq!(uploads.next_deadline(), None);
    assert_eq!(uploads.dropped(), 3);
}
