//! Digests, and reading with one: what was read is what was promised, or an error at its end.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

const ALGORITHM: &str = "sha256";
const HEX_DIGITS: usize = 64;

/// A SHA-256 digest. It can be nothing else, so that a file name made of it leads nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    hex: String,
}

impl Digest {
    /// As it is written in documents: `sha256:` and 64 hexadecimal digits in lower case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_parts(text.split_once(':')?)
    }

    /// As directories of images are called.
    pub(super) fn from_directory_name(name: &str) -> Option<Self> {
        Self::from_parts(name.split_once('-')?)
    }

    fn from_parts((algorithm, hex): (&str, &str)) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let right = algorithm == ALGORITHM && hex.len() == HEX_DIGITS && hex.bytes().all(is_digit);
        right.then(|| Self { hex: hex.to_owned() })
    }

    fn of(hasher: Sha256) -> Self {
        Self { hex: hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// What a directory of this image is called.
    pub(super) fn directory_name(&self) -> String {
        format!("{ALGORITHM}-{}", self.hex)
    }

    /// Where an image layout keeps what has this digest.
    pub(super) fn blob_path(&self) -> String {
        format!("blobs/{ALGORITHM}/{}", self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex)
    }
}

/// Counts and digests what passes through.
pub(super) struct Digested<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> Digested<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// Reads what is left, and tells how many bytes there were and their digest.
    pub(super) fn finish(mut self) -> io::Result<(u64, Digest)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.bytes, Digest::of(self.hasher)))
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(read) = buffer.get(..count) {
            self.hasher.update(read);
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_digest_becomes_a_path() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(digest.blob_path(), format!("blobs/sha256/{hex}"));
        assert_eq!(Digest::from_directory_name(&digest.directory_name()), Some(digest.clone()));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        let slashes = format!("sha256:../../{}", "x".repeat(58));
        let short = format!("sha256:{}", &hex[1..]);
        let upper = format!("sha256:{}", hex.to_uppercase());
        let other = format!("sha512:{hex}");
        for wrong in [&slashes, &short, &upper, &other, "sha256:", "sha256", "", "sha256:../../x", &hex] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_read_is_counted_and_digested_to_its_end() {
        let mut digested = Digested::new(&b"hello, world"[..]);
        let mut some = [0; 5];
        digested.read_exact(&mut some).unwrap();
        let (bytes, digest) = digested.finish().unwrap();
        assert_eq!(bytes, 12);
        assert_eq!(digest.to_string(), "sha256:09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b");
    }
}
