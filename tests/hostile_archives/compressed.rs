//! What is compressed, and what compresses too well.

use std::io::Write;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress, Status};

const MIB: usize = 1 << 20;

/// So many MiB of zeros make 20 GB.
const BOMB_MIB: usize = 20 * 1024;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed by a program that nobody here wrote, with a checksum.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = std::process::Command::new("zstd").args(["-q", "-c", "--check"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Gzip of these bytes and then of 20 GB of zeros: a compressed MiB, again and again.
pub(crate) fn zeros(head: Vec<u8>) -> Vec<u8> {
    let deflated = |bytes: &[u8]| {
        let mut compress = Compress::new(Compression::best(), false);
        let mut output = Vec::with_capacity(bytes.len() + 1024);
        let status = compress.compress_vec(bytes, &mut output, FlushCompress::Full).unwrap();
        assert!(status == Status::Ok && compress.total_in() == bytes.len() as u64);
        output
    };
    [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), deflated(&head), deflated(&vec![0; MIB]).repeat(BOMB_MIB)].concat()
}

/// Zstd of these bytes and then of 2 GB of zeros, in blocks that say a byte and how often.
pub(crate) fn zstd_zeros(head: &[u8]) -> Vec<u8> {
    let block = |size: usize, kind: u32| (u32::try_from(size).unwrap() << 3 | kind << 1).to_le_bytes()[..3].to_vec();
    // A window of 1 MiB; a raw block, and then repeated bytes.
    let mut bytes = [b"\x28\xb5\x2f\xfd\x00\x50".to_vec(), block(head.len(), 0), head.to_vec()].concat();
    bytes.extend([block(MIB / 8, 1), vec![0]].concat().repeat(16 * 1024));
    bytes
}

/// Bytes that do not become smaller, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
