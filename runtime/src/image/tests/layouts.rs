//! Which image of a layout is taken, and layouts that lie about their parts.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::made::{Made, archive, file, open, sha256, zstd};
use super::{names, root_of, text};

fn simple() -> Made {
    Made::with_layer(&[file("a", "a")])
}

/// An image whose documents are changed before they are written.
fn changed(change: impl Fn(&str, &mut Value) + 'static) -> Made {
    let mut made = simple();
    made.change = Box::new(change);
    made
}

fn ours() -> Value {
    json!({ "os": "linux", "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" } })
}

#[test]
fn layers_come_plain_or_compressed() {
    let mut made = Made::new();
    let layer = |name: &str| archive(&[file(name, name)]);
    made.packed_layer("", layer("plain"), layer("plain"));
    made.packed_layer("+zstd", zstd(&layer("zstd")), layer("zstd"));
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(names(&root), ["plain", "zstd"]);
}

#[test]
fn an_index_may_lead_to_an_index_and_the_tag_says_to_which() {
    let made = simple();
    let layout = made.write();
    made.nest_index(&ours());
    for tag in [None, Some("nested")] {
        let image = made.images().obtain(open(&layout), tag).unwrap();
        assert_eq!(text(&root_of(&image), "a"), "a");
    }
    for _ in 0..3 {
        made.nest_index(&Value::Null);
    }
    fs::remove_dir_all(made.images_path()).unwrap();
    fs::create_dir(made.images_path()).unwrap();
    assert!(made.refused_as_it_is(None).contains("up to 4 indexes inside each other"));
}

#[test]
fn the_image_for_this_host_is_taken_among_those_for_others() {
    let made = changed(|what, document| {
        if what == "index" {
            let own = document["manifests"][0].clone();
            let with = |platform: Value| {
                let mut descriptor = own.clone();
                descriptor["platform"] = platform;
                descriptor
            };
            let mut other = with(json!({ "os": "linux", "architecture": "s390x" }));
            other["digest"] = sha256(b"not here").into();
            let mut unknown = with(json!({ "os": "unknown", "architecture": "unknown" }));
            unknown["digest"] = sha256(b"not here either").into();
            document["manifests"] = json!([other, with(ours()), unknown]);
        }
    });
    assert_eq!(text(&root_of(&made.obtain().unwrap()), "a"), "a");
}

#[test]
fn a_tag_that_is_missing_is_told_with_those_there_are() {
    let made = simple();
    made.write();
    assert!(made.refused_as_it_is(Some("latets")).contains("did you mean `latest`?"));
    assert!(made.refused_as_it_is(Some("3.12-slim")).contains("no image tagged `3.12-slim`; it has `latest`"));
    let two = changed(|what, document| {
        if what == "index" {
            let mut other = document["manifests"][0].clone();
            other["digest"] = sha256(b"other").into();
            other["annotations"]["org.opencontainers.image.ref.name"] = "edge".into();
            document["manifests"].as_array_mut().unwrap().push(other);
        }
    });
    let refused = two.refused();
    assert!(refused.contains("several images") && refused.contains("`latest`, `edge`"), "{refused}");
}

#[test]
fn what_is_for_other_machines_is_refused_before_it_is_unpacked() {
    let other = || json!({ "os": "linux", "architecture": "s390x" });
    let by_index = changed(move |what, document| {
        if what == "index" {
            document["manifests"][0]["platform"] = other();
        }
    });
    let by_configuration = changed(|what, document| {
        if what == "configuration" {
            document["architecture"] = "s390x".into();
        }
    });
    for made in [by_index, by_configuration] {
        let refused = made.refused();
        assert!(refused.contains("for linux/s390x; this host is linux/"), "{refused}");
    }
}

#[test]
fn contents_that_are_not_what_was_promised_are_refused() {
    type Tampering = fn(&Made);
    let tamperings: [(&str, Tampering, &str); 6] = [
        ("a layer of the same size", |made| rewrite(made, 0, |bytes| bytes[513] ^= 1), "have the digest"),
        ("a longer layer", |made| rewrite(made, 0, |bytes| bytes.push(0)), "is of 2049 bytes, not of 2048"),
        ("a shorter layer", |made| rewrite(made, 0, |bytes| bytes.truncate(1024)), "not of 2048"),
        ("another manifest", |made| rewrite(made, 1, |bytes| bytes.rotate_left(1)), "have the digest"),
        ("no layer", |made| fs::remove_file(part(made, 0)).unwrap(), "cannot read blobs/sha256/"),
        (
            "a directory",
            |made| {
                fs::remove_file(part(made, 0)).unwrap();
                fs::create_dir(part(made, 0)).unwrap();
            },
            "is not a regular file",
        ),
    ];
    for (what, tamper, why) in tamperings {
        let made = simple();
        made.write();
        tamper(&made);
        let refused = made.refused_as_it_is(None);
        assert!(refused.contains(why), "{what}: {refused}");
    }
}

/// The layer, or the manifest.
fn part(made: &Made, which: usize) -> std::path::PathBuf {
    let layer = sha256(&archive(&[file("a", "a")]));
    if which == 0 {
        return made.blob_path(&layer);
    }
    let index: Value = serde_json::from_slice(&fs::read(made.folder().join("layout/index.json")).unwrap()).unwrap();
    made.blob_path(index["manifests"][0]["digest"].as_str().unwrap())
}

fn rewrite(made: &Made, which: usize, change: impl FnOnce(&mut Vec<u8>)) {
    let path = part(made, which);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn links_in_a_layout_are_not_followed() {
    let made = simple();
    made.write();
    let secret = made.folder().join("secret");
    fs::rename(part(&made, 0), &secret).unwrap();
    symlink(&secret, part(&made, 0)).unwrap();
    assert!(made.refused_as_it_is(None).contains("cannot read blobs/sha256/"));
    let blobs = made.folder().join("layout/blobs");
    fs::rename(&blobs, made.folder().join("blobs")).unwrap();
    symlink(made.folder().join("blobs"), &blobs).unwrap();
    assert!(made.refused_as_it_is(None).contains("cannot read blobs/sha256/"));
}

#[test]
fn documents_that_make_no_sense_are_refused() {
    let digest = "is not a digest";
    for (document, place, value, why) in [
        ("index", "/manifests/0/digest", json!("sha256:../../x"), digest),
        ("manifest", "/layers/0/digest", json!("../../etc/passwd"), digest),
        ("manifest", "/config/digest", json!("sha512:00"), digest),
        ("configuration", "/rootfs/diff_ids/0", json!("sha256:0"), digest),
        ("manifest", "/layers/0/size", json!(-1), "the manifest of the image makes no sense"),
        ("manifest", "/layers/0/size", json!(1), "is of 2048 bytes, not of 1"),
        ("index", "/manifests", json!([]), "is of a kind that is not taken: \"\""),
        ("index", "/manifests/0/mediaType", json!("text/html"), "\"text/html\""),
        ("manifest", "/layers/0/mediaType", json!("a/squashfs"), "\"a/squashfs\""),
        ("manifest", "/config/mediaType", json!("a/helm"), "\"a/helm\""),
        ("manifest", "/schemaVersion", json!(1), "of version 1, which is not known"),
        ("configuration", "/rootfs/diff_ids", json!([]), "names the contents of 0"),
    ] {
        let made = changed(move |what, it| {
            if what == document {
                *it.pointer_mut(place).unwrap() = value.clone();
            }
        });
        let refused = made.refused();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    let another = changed(|what, it| {
        if what == "configuration" {
            it["rootfs"]["diff_ids"][0] = sha256(b"another archive").into();
        }
    });
    assert!(another.refused().contains("have the digest"));
}

#[test]
fn a_directory_that_is_no_layout_is_told_so() {
    let made = simple();
    let layout = made.write();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(made.refused_as_it_is(None).contains("oci-layout of the image is of version 2.0.0"));
    fs::write(layout.join("oci-layout"), "{").unwrap();
    assert!(made.refused_as_it_is(None).contains("oci-layout of the image makes no sense"));
    fs::remove_file(layout.join("oci-layout")).unwrap();
    assert!(made.refused_as_it_is(None).contains("cannot read oci-layout of the image"));
}

#[test]
fn documents_and_layers_have_limits() {
    let made = simple();
    let layout = made.write();
    let mut index = fs::read(layout.join("index.json")).unwrap();
    index.resize((4 << 20) + 1, b' ');
    fs::write(layout.join("index.json"), index).unwrap();
    assert!(made.refused_as_it_is(None).contains("up to 4194304 bytes of a document"));
    let mut many = Made::new();
    for layer in 0..129 {
        many.layer(&[file(&layer.to_string(), "")]);
    }
    assert!(many.refused().contains("up to 128 layers"));
}
