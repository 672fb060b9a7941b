use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const LIMITS: StreamLimits = StreamLimits { output_bytes: 1 << 20, ratio: 10, any_ratio_bytes: 1 << 16 };

/// A tar with one file of these contents.
fn packed(contents: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[0] = b'f';
    header[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = [&header, contents].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// The contents of the archive's only file.
fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut tar = tar(bytes, LIMITS)?;
    assert!(tar.next_entry()?.is_some());
    let mut contents = Vec::new();
    tar.body().read_to_end(&mut contents)?;
    assert_eq!(tar.next_entry()?, None);
    Ok(contents)
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = crate::chain(&unpacked(bytes).unwrap_err());
    assert!(error.contains(why), "{error}");
}

/// Bytes that do not become much smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_tar_is_found_in_every_compression() {
    let contents = noise(300_000);
    let tar = packed(&contents);
    let (first, second) = tar.split_at(100_000);
    let skipped =
        [b"\x53\x2a\x4d\x18\x05\0\0\0 skip".as_slice(), &zstd(first), b"\x50\x2a\x4d\x18\0\0\0\0", &zstd(second)];
    for (what, bytes) in [
        ("none", tar.clone()),
        ("gzip", gzip(&tar)),
        ("members of gzip", [gzip(first), gzip(second)].concat()),
        ("zstd", zstd(&tar)),
        ("frames of zstd", skipped.concat()),
    ] {
        assert_eq!(unpacked(&bytes).unwrap(), contents, "{what}");
    }
}

#[test]
fn what_is_no_tar_inside_is_no_archive() {
    let tar = packed(b"contents");
    for bytes in
        [vec![], b"hello".to_vec(), noise(5000), vec![0; 10_240], gzip(b""), gzip(&gzip(&tar)), zstd(&gzip(&tar))]
    {
        refused(&bytes, "this is no archive");
    }
}

#[test]
fn compressed_data_must_be_whole() {
    let tar = packed(&noise(3000));
    for bytes in [gzip(&tar), zstd(&tar)] {
        for length in 4..bytes.len() {
            assert!(unpacked(&bytes[..length]).is_err(), "cut at {length}");
        }
        refused(&[&bytes, b"more than nothing".as_slice()].concat(), "compressed data is damaged");
        let mut flipped = bytes.clone();
        // In gzip's checksum, and in zstd's.
        let at = bytes.len() - if bytes[0] == 0x1f { 6 } else { 2 };
        flipped[at] ^= 1;
        refused(&flipped, "compressed data is damaged");
    }
}

#[test]
fn what_becomes_too_much_is_refused_on_the_way() {
    refused(&gzip(&packed(&vec![0; 100_000])), "is a bomb: it decompresses to more than 10 times its size");
    refused(&zstd(&packed(&vec![0; 100_000])), "is a bomb");
    refused(&packed(&noise(1 << 20)), "up to 1048576 bytes are taken");
    refused(&gzip(&packed(&noise(1 << 20))), "up to 1048576 bytes are taken");
    assert_eq!(unpacked(&gzip(&packed(&vec![0; 60_000]))).unwrap().len(), 60_000, "of little, any ratio will do");
}

#[test]
fn a_huge_window_is_refused_before_it_is_allocated() {
    // Single segment off, window of 2 GiB; a last raw block of nothing.
    let frame = [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[21 << 3], b"\x01\0\0"].concat();
    refused(&frame, "a zstd window of 2147483648 bytes, where 8388608 are taken");
    // A single segment of 1 TiB, whose window is as large as it is.
    let frame = [b"\x28\xb5\x2f\xfd\xe0".as_slice(), &(1_u64 << 40).to_le_bytes(), b"\x01\0\0"].concat();
    refused(&frame, "a zstd window of 1099511627776 bytes");
}
