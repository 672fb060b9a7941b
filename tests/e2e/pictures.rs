//! Payloads of a megabyte and more pass every door.

use std::path::PathBuf;
use std::process::Command;

use crate::support::clients::{self, got};
use crate::support::host::Host;
use crate::support::{PATIENCE, program, skipped};

/// A picture of more than a mebibyte, drawn by the gallery's own tool.
fn picture(host: &Host) -> PathBuf {
    host.deploy_example("gallery");
    let path = host.folder().join("picture.jpg");
    let tool = clients::target_directory().join("release/make-picture");
    program::run(Command::new(tool).arg("1100000").arg(&path), PATIENCE).well();
    assert!(path.metadata().unwrap().len() > 1 << 20);
    path
}

/// Width and height as a JPEG file's frame header has them.
fn dimensions(jpeg: &[u8]) -> (u16, u16) {
    assert_eq!(jpeg.get(..2), Some(&[0xFF, 0xD8][..]), "it begins as a JPEG does");
    assert!(jpeg.ends_with(&[0xFF, 0xD9]), "it ends as a JPEG does");
    let mut rest = &jpeg[2..];
    while let [0xFF, marker, high, low, segment @ ..] = rest {
        if (0xC0..=0xC2).contains(marker) {
            let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            return (word(3), word(1));
        }
        rest = &segment[usize::from(u16::from_be_bytes([*high, *low])) - 2..];
    }
    panic!("no frame header in {} bytes", jpeg.len());
}

#[track_caller]
fn assert_is_thumbnail(jpeg: &[u8]) {
    let (width, height) = dimensions(jpeg);
    assert_eq!(width.max(height), 160, "{width} x {height}");
    assert!(jpeg.len() < 40_000, "{} bytes", jpeg.len());
}

#[test]
fn a_picture_of_a_megabyte_passes_block_by_block_with_coap_client() {
    let Some(host) = Host::start() else { return };
    let picture = picture(&host);
    for block in ["1024", "512"] {
        let Some(mut client) = clients::coap_client() else { return };
        let client = client.args(["-m", "post", "-t", "22", "-b", block, "-f", picture.to_str().unwrap()]);
        let answer = got(client, host.folder(), &host.coap_uri("gallery"));
        assert_eq!(answer.code, "2.04", "{}", answer.shown);
        assert_is_thumbnail(&answer.payload);
    }
    // The metadata went its own way, to the log.
    host.logged("gallery/metadata", "\"width\"");
}

#[test]
fn a_picture_of_a_megabyte_passes_block_by_block_with_aiocoap() {
    let Some(mut client) = clients::aiocoap_client() else { return };
    let Some(host) = Host::start() else { return };
    let picture = picture(&host);
    let client = client.args(["-m", "POST", "--content-format", "image/jpeg", "--no-color"]);
    let client = client.args(["--payload", &format!("@{}", picture.display()), &host.coap_uri("gallery")]);
    let answer = program::run(client, PATIENCE * 2).well();
    assert_is_thumbnail(&answer.stdout);
}

#[test]
fn a_picture_of_a_megabyte_passes_the_http_door() {
    let Some(host) = Host::start() else { return };
    let picture = picture(&host);
    let answer = host.http("POST", "/gallery", Some("image/jpeg"), &std::fs::read(&picture).unwrap());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("image/jpeg"));
    assert_is_thumbnail(&answer.body);
    let Some(curl) = program::find(&["curl"]) else { return skipped("there is no curl") };
    let mut curl = Command::new(curl);
    curl.args(["--silent", "--fail", "--data-binary"]).arg(format!("@{}", picture.display()));
    curl.arg(format!("http://{}/gallery", host.http));
    assert_is_thumbnail(&program::run(&mut curl, PATIENCE).well().stdout);
}

#[test]
fn a_picture_passes_the_command() {
    let Some(host) = Host::start() else { return };
    let picture = picture(&host);
    let answer = host.sandbar(&["invoke", "gallery", "--file", picture.to_str().unwrap()]).well();
    assert_is_thumbnail(&answer.stdout);
}
