//! Uploads against a model of them: begun, grown, taken over, finished, cancelled and
//! expired in any order, by two users.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use outport::error::Kind;
use outport::names::{Algorithm, Digest, RepoName, UploadId};
use outport::registry::{Piece, Upload, User};
use outport_fuzz::{Store, is_a_refusal, sha256};
use std::cell::RefCell;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Begin {
        bob: bool,
        other: bool,
        sha512: bool,
    },
    Write {
        upload: u8,
        bytes: &'a [u8],
    },
    /// Goes on with an upload in a new request, and keeps the old one.
    Resume {
        upload: u8,
        bob: bool,
        other: bool,
    },
    Stat {
        upload: u8,
    },
    Commit {
        upload: u8,
        wrong: bool,
    },
    Cancel {
        upload: u8,
    },
    Wait {
        secs: u16,
    },
    Expire,
}

/// A request's hold on an upload.
struct Hold {
    upload: Upload,
    session: usize,
    number: u32,
}

/// What the model knows of an upload.
struct Session {
    id: UploadId,
    bob: bool,
    other: bool,
    bytes: Vec<u8>,
    /// Only the last hold may write.
    holds: u32,
    open: bool,
}

thread_local! {
    static STORE: RefCell<(Store, [User; 2])> = RefCell::new({
        let store = Store::new();
        let users = [store.user("admin"), store.user("bob")];
        (store, users)
    });
}

fuzz_target!(|steps: Vec<Step>| {
    STORE.with_borrow(|(store, users)| {
        let registry = &store.registry;
        let repos = ["team/app", "bob/app"].map(|name| RepoName::parse(name).expect("parses"));
        let (mut holds, mut sessions): (Vec<Hold>, Vec<Session>) = (Vec::new(), Vec::new());
        // Whatever was forgotten for too long may be gone, which the model takes over.
        let look_again = |sessions: &mut Vec<Session>| {
            for session in sessions {
                let (user, repo) = (&users[usize::from(session.bob)], &repos[usize::from(session.other)]);
                session.open = session.open && registry.upload_stat(user, repo, &session.id).is_ok();
            }
        };
        let pick = |holds: &Vec<Hold>, at: u8| (!holds.is_empty()).then(|| usize::from(at) % holds.len());
        for step in steps.into_iter().take(64) {
            match step {
                Step::Begin { bob, other, sha512 } => {
                    let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
                    let (user, repo) = (&users[usize::from(bob)], &repos[usize::from(other)]);
                    match registry.upload_begin(user, repo, algorithm, 0) {
                        Ok(upload) => {
                            let id = upload.id().clone();
                            holds.push(Hold { upload, session: sessions.len(), number: 1 });
                            sessions.push(Session {
                                id,
                                bob,
                                other,
                                bytes: Vec::new(),
                                holds: 1,
                                open: true,
                            });
                        }
                        Err(error) => {
                            let open = sessions.iter().filter(|s| s.open && s.bob == bob).count();
                            assert!(matches!(error.kind, Kind::TooMany { .. }) && open >= 8, "{error:?}");
                        }
                    }
                    // One that was abandoned may have made room.
                    look_again(&mut sessions);
                }
                Step::Write { upload, bytes } => {
                    let Some(at) = pick(&holds, upload) else { continue };
                    let session = &mut sessions[holds[at].session];
                    let may = session.open && holds[at].number == session.holds;
                    let wrote = holds[at].upload.write(&[bytes::Bytes::copy_from_slice(bytes)]);
                    assert_eq!(wrote.is_ok(), may, "{wrote:?}");
                    if may {
                        session.bytes.extend_from_slice(bytes);
                        assert_eq!(wrote.ok(), Some(session.bytes.len() as u64));
                    }
                }
                Step::Resume { upload, bob, other } => {
                    let Some(at) = pick(&holds, upload) else { continue };
                    let number = holds[at].session;
                    let session = &mut sessions[number];
                    let (user, repo) = (&users[usize::from(bob)], &repos[usize::from(other)]);
                    let theirs = session.open && session.bob == bob && session.other == other;
                    let resumed = registry.upload_resume(user, repo, &session.id);
                    assert_eq!(resumed.is_ok(), theirs, "{:?}", resumed.err());
                    if let Ok(upload) = resumed {
                        session.holds += 1;
                        holds.push(Hold { upload, session: number, number: session.holds });
                    }
                }
                Step::Stat { upload } => {
                    let Some(at) = pick(&holds, upload) else { continue };
                    let session = &sessions[holds[at].session];
                    let (user, repo) = (&users[usize::from(session.bob)], &repos[usize::from(session.other)]);
                    let bytes = registry.upload_stat(user, repo, &session.id).ok();
                    assert_eq!(bytes, session.open.then_some(session.bytes.len() as u64));
                }
                Step::Commit { upload, wrong } => {
                    let Some(at) = pick(&holds, upload) else { continue };
                    let session = &mut sessions[holds[at].session];
                    let may = session.open && holds[at].number == session.holds;
                    let digest = if wrong { sha256(b"other bytes") } else { sha256(&session.bytes) };
                    let digest = Digest::parse(&digest).expect("parses");
                    let repo = &repos[usize::from(session.other)];
                    // Bytes of an upload that was begun for the other algorithm are hashed again.
                    let outcome = registry.upload_commit(&holds[at].upload, repo, &digest);
                    let right = !wrong || session.bytes == b"other bytes";
                    if let Err(error) = &outcome {
                        is_a_refusal(error);
                    }
                    assert_eq!(outcome.is_ok(), may && right, "{outcome:?}");
                    session.open &= !may;
                    if outcome.is_ok() {
                        let blob = registry.blob(repo, &digest).expect("is there");
                        assert_eq!(blob.bytes(), session.bytes.len() as u64);
                        if blob.bytes() > 0 {
                            let piece =
                                registry.blob_piece(&blob, 0, blob.bytes(), Piece::Full).expect("reads");
                            assert!(session.bytes.starts_with(&piece) && !piece.is_empty());
                        }
                    }
                }
                Step::Cancel { upload } => {
                    let Some(at) = pick(&holds, upload) else { continue };
                    let session = &mut sessions[holds[at].session];
                    registry.upload_cancel(&holds[at].upload);
                    session.open &= holds[at].number != session.holds;
                }
                Step::Wait { secs } => {
                    store.tick(Duration::from_secs(secs.into()));
                    look_again(&mut sessions);
                }
                Step::Expire => {
                    registry.uploads_expire();
                    look_again(&mut sessions);
                }
            }
        }
        for hold in &holds {
            registry.upload_cancel(&hold.upload);
        }
        let left = std::fs::read_dir(store.dir.path().join("uploads")).expect("lists").count();
        assert_eq!(left, 0, "the last hold of each was cancelled");
    });
});
