use std::io::Write;
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;
use crate::archive::each_entry;

const LIMITS: StreamLimits = StreamLimits { output_bytes: 1 << 20, ratio: 10, any_ratio_bytes: 1 << 16 };

/// One entry, before and in the directory, where a test changes what it likes.
#[derive(Clone)]
struct Packed {
    name: Vec<u8>,
    local_name: Vec<u8>,
    flags: u16,
    method: u16,
    mode: u32,
    crc: u32,
    size: u32,
    contents: Vec<u8>,
    extra: Vec<u8>,
}

fn entry(name: &str, contents: &[u8]) -> Packed {
    let mut crc = Crc::new();
    crc.update(contents);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(contents).unwrap();
    Packed {
        name: name.into(),
        local_name: name.into(),
        flags: 0,
        method: record::DEFLATED,
        mode: 0o644,
        crc: crc.sum(),
        size: u32::try_from(contents.len()).unwrap(),
        contents: encoder.finish().unwrap(),
        extra: Vec::new(),
    }
}

fn changed(change: impl Fn(&mut Packed)) -> Vec<u8> {
    let mut packed = entry("a", b"contents");
    change(&mut packed);
    zip(&[packed])
}

fn numbers(fields: &[(u32, usize)]) -> Vec<u8> {
    fields.iter().flat_map(|(value, bytes)| value.to_le_bytes()[..*bytes].to_vec()).collect()
}

/// What the records before the contents and in the directory have in common.
fn common(packed: &Packed, name: &[u8]) -> Vec<u8> {
    let (length, extra) = (u32::try_from(name.len()).unwrap(), u32::try_from(packed.extra.len()).unwrap());
    let contents = u32::try_from(packed.contents.len()).unwrap();
    let sizes = [(packed.crc, 4), (contents, 4), (packed.size, 4), (length, 2), (extra, 2)];
    let head = [(20, 2), (packed.flags.into(), 2), (packed.method.into(), 2), (0, 4)];
    [numbers(&head), numbers(&sizes)].concat()
}

fn zip(entries: &[Packed]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for packed in entries {
        let offset = u32::try_from(bytes.len()).unwrap();
        bytes.extend([b"PK\x03\x04", common(packed, &packed.local_name).as_slice(), &packed.local_name].concat());
        bytes.extend([packed.extra.as_slice(), &packed.contents].concat());
        let rest = numbers(&[(0, 2), (0, 2), (0, 2), (packed.mode << 16, 4), (offset, 4)]);
        directory.extend([b"PK\x01\x02\x14\x03", common(packed, &packed.name).as_slice(), &rest].concat());
        directory.extend([packed.name.as_slice(), &packed.extra].concat());
    }
    let (count, offset) = (u32::try_from(entries.len()).unwrap(), u32::try_from(bytes.len()).unwrap());
    let size = u32::try_from(directory.len()).unwrap();
    let end = numbers(&[(0, 2), (0, 2), (count, 2), (count, 2), (size, 4), (offset, 4), (0, 2)]);
    [bytes, directory, b"PK\x05\x06".to_vec(), end].concat()
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut entries = Vec::new();
    each_entry(&file, bytes.len() as u64, LIMITS, |entry, contents| {
        let mut bytes = Vec::new();
        contents.read_to_end(&mut bytes)?;
        entries.push((entry.clone(), bytes));
        Ok::<_, ArchiveError>(())
    })?;
    Ok(entries)
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = crate::chain(&read(bytes).unwrap_err());
    assert!(error.contains(why), "{error}");
}

#[test]
fn entries_come_with_their_contents() {
    let mut stored = entry("d/stored", b"");
    (stored.method, stored.contents, stored.size) = (record::STORED, b"12345".to_vec(), 5);
    let mut crc = Crc::new();
    crc.update(b"12345");
    stored.crc = crc.sum();
    let mut link = entry("link", b"target");
    link.mode = 0o120_777;
    let entries = read(&zip(&[entry("d/", b""), entry("d/f", &[7; 60_000]), stored, link])).unwrap();
    let file = Entry { path: b"d/f".to_vec(), kind: Kind::File, mode: 0o644, size: 60_000 };
    assert_eq!(entries[1], (file, vec![7; 60_000]));
    assert_eq!(entries[2].1, b"12345");
    assert_eq!(entries[3].0.kind, Kind::SymbolicLink(Vec::new()));
    assert_eq!(entries[0].0.kind, Kind::Directory);
}

#[test]
fn what_other_archivers_write_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let script = "import zipfile, sys\n\
        z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n\
        z.writestr('d/ü', b'x' * 5000); z.mkdir('e'); z.comment = b'a comment'; z.close()\n";
    let path = dir.path().join("a.zip");
    assert!(Command::new("python3").args(["-c", script]).arg(&path).status().unwrap().success());
    let entries = read(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((entries[0].0.path.as_slice(), entries[0].1.len()), ("d/ü".as_bytes(), 5000));
    assert_eq!((entries[1].0.path.as_slice(), &entries[1].0.kind), (b"e/".as_slice(), &Kind::Directory));
}

#[test]
fn a_zip_that_is_cut_off_anywhere_or_goes_on_is_refused() {
    let bytes = zip(&[entry("a", b"contents"), entry("b", b"")]);
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
    refused(&[bytes.as_slice(), b"x"].concat(), "something follows its end");
    refused(&[bytes.as_slice(), b"PK\x05\x06", &[0; 18]].concat(), "not where it is said to be");
}

#[test]
fn contents_must_be_as_they_are_said_to_be() {
    refused(&changed(|packed| packed.crc ^= 1), "checksum is wrong");
    refused(&changed(|packed| packed.size = 7), "not of the size that it says");
    refused(&changed(|packed| packed.size = 9), "not of the size that it says");
    refused(&changed(|packed| packed.contents.push(0)), "not of the size that it says");
    refused(&changed(|packed| packed.contents.truncate(3)), "compressed data");
    refused(&changed(|packed| packed.contents[0] = 0xff), "compressed data is damaged");
    refused(&changed(|packed| packed.method = record::STORED), "not of the size that it says");
    refused(&changed(|packed| packed.local_name = b"b".to_vec()), "described in two ways");
    refused(&zip(&[entry("a", &vec![0; 100_000])]), "is a bomb");
}

#[test]
fn what_is_not_supported_is_said() {
    refused(&changed(|packed| packed.flags = 1), "an encrypted entry, \"a\"");
    refused(&changed(|packed| packed.method = 14), "by method 14");
    refused(&changed(|packed| packed.size = u32::MAX), "zip64");
    refused(&changed(|packed| packed.extra = b"\x75\x70\x01\0x".to_vec()), "a second name");
    let same = changed(|packed| packed.extra = b"\x55\x54\0\0\x75\x70\x06\0\x01crc.a".to_vec());
    assert_eq!(read(&same).unwrap()[0].1, b"contents", "a second name that is the first");
    refused(&changed(|packed| packed.mode = 0o40_755), "differ on whether it is a directory");
}

#[test]
fn entries_that_share_contents_are_refused() {
    let mut bytes = zip(&[entry("a", b"contents"), entry("a", b"contents")]);
    let second = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[second + 42..second + 46].fill(0);
    refused(&bytes, "entries overlap");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_zip_is_read_or_refused(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut bytes = zip(&[entry("a", b"contents"), entry("d/", b""), entry("d/b", &[7; 5000])]);
        let length = bytes.len();
        changes.iter().for_each(|(at, byte)| bytes[at % length] = *byte);
        if let Ok(entries) = read(&bytes) {
            for (entry, contents) in entries {
                prop_assert_eq!(entry.size, contents.len() as u64);
            }
        }
    }
}
