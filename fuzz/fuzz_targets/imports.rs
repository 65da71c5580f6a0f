//! Archives into a registry: all of one or nothing, what a dry run said, and whole where it is
//! read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::archive;
use outport::error::Result;
use outport::manifest;
use outport::names::{Reference, RepoName};
use outport::registry::{Arrived, ImportAsk, Registry};
use outport_fuzz::{Made, Store, is_told_well};
use std::cell::RefCell;

/// After so many imports the store is a new one: what was there hides what is missing.
const TURNS: u32 = 200;

thread_local! {
    static STORE: RefCell<(Store, u32)> = RefCell::new((Store::new(), 0));
}

fn import(registry: &Registry, ask: ImportAsk, bytes: &[u8]) -> Result<Arrived> {
    let mut import = registry.import_begin(ask, |_| {})?;
    let archive = archive::read(bytes, &mut import)?;
    import.finish(&archive, "stick.tar", |_| Ok(()))
}

/// Every tag there is, and what it names.
fn tags(registry: &Registry) -> Vec<String> {
    let rows = registry.imports().expect("lists");
    rows.iter().map(|row| format!("{} {} {}", row.id, row.source, row.tags)).collect()
}

fuzz_target!(|made: Made| {
    let Some(naming) = made.naming() else { return };
    let bytes = made.bytes();
    STORE.with_borrow_mut(|(store, turns)| {
        if *turns == TURNS {
            (*store, *turns) = (Store::new(), 0);
        }
        *turns += 1;
        let registry = &store.registry;
        let before = tags(registry);
        let ask = |dry_run| ImportAsk { naming: naming.clone(), dry_run, ..ImportAsk::default() };
        let dry = import(registry, ask(true), &bytes);
        assert_eq!(tags(registry), before, "a dry run changes nothing");
        match (import(registry, ask(false), &bytes), dry) {
            (Ok(arrived), Ok(said)) => {
                assert_eq!(
                    (&arrived.tags, arrived.images, &arrived.absent),
                    (&said.tags, said.images, &said.absent)
                );
                for moved in &arrived.tags {
                    let repo = RepoName::parse(&moved.repo).expect("parses");
                    let tag = Reference::parse(&moved.tag).expect("parses");
                    let (row, body) = registry.manifest(&repo, &tag, u64::MAX).expect("is there");
                    assert_eq!(row.digest, moved.digest);
                    let read = manifest::read(&body.expect("is whole"), Some(&row.media_type)).expect("was read before");
                    for blob in &read.blobs {
                        registry.blob(&repo, blob).expect("an image is whole");
                    }
                }
                let again = import(registry, ask(false), &bytes).expect("it is all here");
                // Manifests are kept elsewhere than blobs, and come again.
                assert!(again.brought.blobs_new <= again.images, "{:?}", again.brought);
                assert_eq!(again.id, None, "no tag is moved");
            }
            (Err(error), Err(said)) => {
                is_told_well(&error);
                assert_eq!(error.kind, said.kind, "{error} {said}");
                assert_eq!(tags(registry), before);
            }
            (outcome, said) => panic!("a dry run said {said:?}, and then came {outcome:?}"),
        }
    });
});
