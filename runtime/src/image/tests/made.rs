//! Layouts, layers and archives, made by hand so that each of their parts can be wrong.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::super::{Image, ImageError, ImageLimits, Images};

pub(super) const MODIFIED: u32 = 1_600_000_000;
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An entry of an archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    path: String,
    kind: u8,
    link: String,
    mode: u32,
    contents: Vec<u8>,
    parents: bool,
}

impl Entry {
    pub(super) fn new(path: &str, kind: u8, link: &str, mode: u32, contents: &[u8]) -> Self {
        Self { path: path.into(), kind, link: link.into(), mode, contents: contents.into(), parents: false }
    }

    pub(super) fn with_mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(super) fn with_names(mut self, change: impl Fn(String) -> String) -> Self {
        self.path = change(self.path);
        self.link = change(self.link);
        self
    }

    /// With entries for the directories it is in.
    pub(super) fn with_parents(mut self) -> Self {
        self.parents = true;
        self
    }
}

pub(super) fn file(path: &str, contents: &str) -> Entry {
    Entry::new(path, b'0', "", 0o644, contents.as_bytes())
}

pub(super) fn program(path: &str, contents: &str) -> Entry {
    Entry::new(path, b'0', "", 0o755, contents.as_bytes())
}

pub(super) fn hard_link(path: &str, to: &str) -> Entry {
    Entry::new(path, b'1', to, 0o644, b"")
}

pub(super) fn link(path: &str, to: &str) -> Entry {
    Entry::new(path, b'2', to, 0o777, b"")
}

pub(super) fn directory(path: &str) -> Entry {
    Entry::new(&format!("{path}/"), b'5', "", 0o755, b"")
}

/// A device or named pipe.
pub(super) fn device(path: &str, kind: u8) -> Entry {
    Entry::new(path, kind, "", 0o666, b"")
}

/// An archive of these entries.
pub(super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        if entry.parents {
            let above: Vec<_> =
                Path::new(&entry.path).ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
            above.iter().rev().for_each(|path| append(&mut bytes, &directory(path.to_str().unwrap())));
        }
        append(&mut bytes, entry);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn append(bytes: &mut Vec<u8>, entry: &Entry) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &entry.path);
    put(100, &format!("{:07o}\0", entry.mode));
    put(108, "0001750\0");
    put(116, "0001750\0");
    put(124, &format!("{:011o}\0", entry.contents.len()));
    put(136, &format!("{MODIFIED:011o}\0"));
    put(148, "        ");
    put(157, &entry.link);
    put(257, "ustar\x0000");
    put(329, "0000001\0");
    put(337, "0000003\0");
    header[156] = entry.kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend(header);
    bytes.extend(&entry.contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// A zstd frame that holds this as it is.
pub(super) fn zstd(contents: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(u32::try_from(contents.len()).unwrap().to_le_bytes());
    let mut blocks: Vec<&[u8]> = contents.chunks(64 << 10).collect();
    if blocks.is_empty() {
        blocks.push(b"");
    }
    for (index, block) in blocks.iter().enumerate() {
        let header = u32::try_from(block.len()).unwrap() << 3 | u32::from(index + 1 == blocks.len());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(*block);
    }
    frame
}

/// A zstd frame that begins with this and goes on with so many times 128 KiB of zeros, each of which takes four bytes.
pub(super) fn zstd_bomb(head: &[u8], zeros: usize) -> Vec<u8> {
    const ZEROS: u32 = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50];
    let mut block = |kind: u32, len: u32, last: bool, contents: &[u8]| {
        frame.extend(&(len << 3 | kind << 1 | u32::from(last)).to_le_bytes()[..3]);
        frame.extend(contents);
    };
    block(0, u32::try_from(head.len()).unwrap(), false, head);
    for index in 0..zeros {
        block(1, ZEROS, index + 1 == zeros, &[0]);
    }
    frame
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}

/// What is done to a document of this name.
type Change = Box<dyn Fn(&str, &mut Value)>;

/// An image, before and after it is written as a layout.
pub(super) struct Made {
    folder: TempDir,
    /// Media type, blob, and the archive in it.
    layers: Vec<(String, Vec<u8>, Vec<u8>)>,
    pub(super) limits: ImageLimits,
    /// Changes the documents before they are written: the configuration, the manifest, the index.
    pub(super) change: Change,
}

impl Made {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("images")).unwrap();
        Self { folder, layers: Vec::new(), limits: ImageLimits::default(), change: Box::new(|_, _| {}) }
    }

    pub(super) fn with_layer(entries: &[Entry]) -> Self {
        let mut made = Self::new();
        made.layer(entries);
        made
    }

    pub(super) fn layer(&mut self, entries: &[Entry]) {
        let archive = archive(entries);
        self.layers.push((TAR.to_owned(), archive.clone(), archive));
    }

    pub(super) fn packed_layer(&mut self, suffix: &str, packed: Vec<u8>, archive: Vec<u8>) {
        self.layers.push((format!("{TAR}{suffix}"), packed, archive));
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn images_path(&self) -> PathBuf {
        self.folder().join("images")
    }

    pub(super) fn images(&self) -> Images {
        Images::open(self.images_path(), self.limits).unwrap()
    }

    pub(super) fn blob_path(&self, digest: &str) -> PathBuf {
        self.folder().join("layout/blobs").join(digest.replace(':', "/"))
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn put_document(&self, what: &str, media_type: &str, mut document: Value) -> Value {
        (self.change)(what, &mut document);
        self.put(media_type, document.to_string().as_bytes())
    }

    /// Writes the image as a layout; its directory.
    pub(super) fn write(&self) -> PathBuf {
        let layout = self.folder().join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let layers: Vec<Value> = self.layers.iter().map(|(media_type, blob, _)| self.put(media_type, blob)).collect();
        let contents: Vec<String> = self.layers.iter().map(|(_, _, archive)| sha256(archive)).collect();
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let rootfs = json!({ "type": "layers", "diff_ids": contents });
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
        let config = self.put_document("configuration", "application/vnd.oci.image.config.v1+json", config);
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let mut manifest = self.put_document("manifest", "application/vnd.oci.image.manifest.v1+json", manifest);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let mut index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        (self.change)("index", &mut index);
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        layout
    }

    /// Puts another index above the one that was written.
    pub(super) fn nest_index(&self, platform: &Value) {
        let path = self.folder().join("layout/index.json");
        let inner = fs::read(&path).unwrap();
        let mut descriptor = self.put("application/vnd.oci.image.index.v1+json", &inner);
        descriptor["platform"] = platform.clone();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "nested" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(path, index.to_string()).unwrap();
    }

    pub(super) fn obtain(&self) -> Result<Image, ImageError> {
        self.images().obtain(open(&self.write()), None)
    }

    /// Why the image is not taken. Nothing of it must be left.
    #[track_caller]
    pub(super) fn refused(&self) -> String {
        self.write();
        self.refused_as_it_is(None)
    }

    /// As [`refused`](Self::refused), for a layout that was written before.
    #[track_caller]
    pub(super) fn refused_as_it_is(&self, tag: Option<&str>) -> String {
        let refused = self.images().obtain(open(&self.folder().join("layout")), tag).unwrap_err();
        let left: Vec<_> = fs::read_dir(self.images_path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        crate::chain(&refused)
    }
}

pub(super) fn open(directory: &Path) -> OwnedFd {
    File::open(directory).unwrap().into()
}

/// Where an image was unpacked, by a path that is good for as long as the image is.
pub(super) fn root_of(image: &Image) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", image.directory.as_raw_fd())).unwrap()
}
