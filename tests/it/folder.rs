//! The drop folder.

use crate::archives::{Image, bundle, bundle_by, key, layout};
use crate::harness::{Site, noise};
use crate::import::{image, is_pulled};
use outport::bundle::{Inventory, KeyName, Signature, Signs};
use outport::folder::Folder;
use outport::registry::KeyFile;
use serde_json::Value;
use std::path::Path;

fn receipt(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join(format!("{name}.receipt.json"))).unwrap()).unwrap()
}

#[test]
fn a_signed_bundle_is_taken_in_once_it_settled_and_a_receipt_is_left() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let depot = key("depot");
    site.registry.key_trust(&depot.name, depot.public()).unwrap();
    let own = KeyName::parse("site").unwrap();
    KeyFile::create(&site.registry.keys_dir().join("site.key"), &own).unwrap();
    let image = Image::of(&[&noise(90_000, 1)]);
    let whole = bundle_by(Some((&depot, 1)), &image, "acme/app", "1", &[]).end();
    let mut folder = Folder::new(dir.path().into(), false);
    let file = dir.path().join("march.tar");

    // Half of it is there, then all.
    std::fs::write(&file, &whole[..40_000]).unwrap();
    assert!(folder.look(&site.registry).unwrap().imported.is_empty());
    std::fs::write(&file, &whole).unwrap();
    assert!(folder.look(&site.registry).unwrap().imported.is_empty(), "it changed");
    assert_eq!(folder.look(&site.registry).unwrap().imported, ["march.tar"]);
    is_pulled(&site, "acme/app", "1", &image);
    let said = receipt(dir.path(), "march.tar");
    assert_eq!(
        (said["bytes"].as_u64(), said["imported"]["sender"]["sequence"].as_u64()),
        (Some(whole.len() as u64), Some(1))
    );

    assert!(Inventory::read(said["inventory"].to_string().as_bytes()).unwrap().len() >= 2);
    let text = std::fs::read(dir.path().join("march.tar.receipt.json")).unwrap();
    let signature = std::fs::read(dir.path().join("march.tar.receipt.sig")).unwrap();
    let signature = Signature::read(&signature).unwrap();
    assert_eq!(signature.key.as_str(), "site");
    signature.verify(Signs::Receipt, &text).unwrap();

    // Once; also for a server that just started.
    assert!(folder.look(&site.registry).unwrap().refused.is_empty());
    assert!(Folder::new(dir.path().into(), false).look_once(&site.registry).unwrap().refused.is_empty());
}

#[test]
fn what_is_not_signed_is_refused_by_receipt_and_what_is_no_bundle_is_left_alone() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("unsigned.tar", &bundle(&image(1), "acme/app", "1", &[]).end());
    put("layout.tar", &layout(&[(&image(2), "acme/app:2")], true).end());
    put("photo.jpg", &noise(4_000, 3));
    put("empty", b"");
    let torn = bundle(&image(4), "acme/app", "4", &[]).end();
    put("torn.tar", &torn[..torn.len() / 2]);
    let before = std::fs::read_dir(dir.path()).unwrap().count();
    let looked = Folder::new(dir.path().into(), false).look_once(&site.registry).unwrap();
    let names: Vec<&str> = looked.refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((looked.imported.len(), names), (0, vec!["torn.tar", "unsigned.tar"]));
    assert!(receipt(dir.path(), "unsigned.tar")["refused"].as_str().unwrap().contains("not signed"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before + 2);
    assert_eq!(site.get("/v2/_catalog").strings("repositories").len(), 0);

    // Where the site says so, any archive is taken; what was refused is not tried again.
    let looked = Folder::new(dir.path().into(), true).look_once(&site.registry).unwrap();
    assert_eq!(looked.imported, ["layout.tar"]);
    // The torn one, copied again.
    put("torn.tar", &torn);
    let looked = Folder::new(dir.path().into(), true).look_once(&site.registry).unwrap();
    assert_eq!(looked.imported, ["torn.tar"]);
    is_pulled(&site, "acme/app", "4", &image(4));
}

#[test]
fn volumes_are_taken_in_when_all_are_there() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let image = image(10);
    let whole = bundle(&image, "acme/app", "1", &[]).end();
    let mut folder = Folder::new(dir.path().into(), true);
    let parts: Vec<&[u8]> = whole.chunks(30_000).collect();
    let put = |at: usize| std::fs::write(dir.path().join(format!("b.tar.{:03}", at + 1)), parts[at]).unwrap();
    put(0);
    put(2);
    for _ in 0..2 {
        let looked = folder.look(&site.registry).unwrap();
        assert!(looked.imported.is_empty() && looked.refused.is_empty());
    }
    put(1);
    folder.look(&site.registry).unwrap();
    assert_eq!(folder.look(&site.registry).unwrap().imported, ["b.tar.001"]);
    is_pulled(&site, "acme/app", "1", &image);
}
