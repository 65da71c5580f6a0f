//! Verbs and the writer, without a runtime and without HTTP.

use super::*;
use crate::names::UserName;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

fn options() -> Options {
    Options {
        private: true,
        library_open: false,
        anonymous_pull: false,
        sign_up: SignUp::Closed,
        blob_bytes_max: 1 << 30,
        reserve_bytes: Some(0),
        uploads_per_user: 64,
        upload_expiry: Duration::from_secs(3600),
        grace: Duration::from_secs(3600),
        scrub_period: Duration::from_secs(30 * 86_400),
        retention: Vec::new(),
    }
}

fn open(dir: &Path, mode: &Mode) -> Result<Registry> {
    Registry::open(dir, mode, options(), Clock::system())
}

fn serve() -> Mode {
    Mode::Serve { boot_id: "boot".into() }
}

fn new() -> (TempDir, Registry) {
    let dir = tempfile::tempdir().expect("a directory");
    let registry = open(dir.path(), &serve()).expect("opens");
    (dir, registry)
}

#[test]
fn a_write_that_fails_leaves_nothing_and_the_others_of_its_commit_stand() {
    let (_dir, registry) = new();
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let writing: Vec<_> = (0..40)
            .map(|n| {
                let registry = &registry;
                scope.spawn(move || {
                    registry.db.write(move |write| {
                        sql::meta_set(write.tx, &format!("key{n}"), b"value")?;
                        assert!(n % 5 != 1, "some panic");
                        if n % 5 == 2 { Err(Kind::Denied.into()) } else { Ok(()) }
                    })
                })
            })
            .collect();
        writing.into_iter().map(|thread| thread.join().expect("ends")).collect()
    });
    for (n, outcome) in outcomes.iter().enumerate() {
        let kept = registry.db.read(|tx| sql::meta_get(tx, &format!("key{n}"))).expect("reads");
        let expected = match n % 5 {
            1 => Some(Kind::Internal),
            2 => Some(Kind::Denied),
            _ => None,
        };
        assert_eq!(outcome.as_ref().err().map(|error| error.kind), expected);
        assert_eq!(kept.is_some(), outcome.is_ok(), "{n}");
    }
    assert!(registry.db.is_sound());
}

#[test]
fn a_blob_whose_commit_fails_keeps_no_room() {
    let (dir, registry) = new();
    let repo = RepoName::parse("a/b").expect("parses");
    let user = User { id: 0, name: "ann".into(), admin: true, active: true, generation: 1 };
    let bytes = bytes::Bytes::from_static(b"some bytes");
    let digest = digest_of(Algorithm::Sha256, &bytes);
    // Refused when the transaction ends, as a full disk would: after the file got its name.
    registry
        .db
        .write(|write| {
            Ok(write.tx.execute_batch(
                "CREATE TABLE never (id INTEGER PRIMARY KEY REFERENCES user DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER fails AFTER INSERT ON repo_blob BEGIN INSERT INTO never VALUES (12345); END;",
            )?)
        })
        .expect("writes");
    let upload = registry.upload_begin(&user, &repo, Algorithm::Sha256, 0).expect("begins");
    upload.write(std::slice::from_ref(&bytes)).expect("writes");
    assert!(registry.upload_commit(&upload, &repo, &digest).is_err());
    let files = |inside: &str| std::fs::read_dir(dir.path().join(inside)).expect("lists").count();
    assert_eq!((files("blobs/sha256"), files("uploads")), (0, 0));
    assert!(registry.blob_stat(&repo, &digest).is_err());
}

#[test]
fn a_read_sees_one_moment_whatever_is_written_meanwhile() {
    let (_dir, registry) = new();
    registry
        .db
        .read(|tx| {
            assert_eq!(sql::meta_get(tx, "later")?, None);
            registry.db.write(|write| sql::meta_set(write.tx, "later", b"1"))?;
            assert_eq!(sql::meta_get(tx, "later")?, None);
            Ok(())
        })
        .expect("reads");
    assert!(registry.db.read(|tx| sql::meta_get(tx, "later")).expect("reads").is_some());
}

#[test]
fn service_time_counts_what_was_served_and_no_jump_of_the_clock() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wall, ticks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(5)));
    let clock = {
        let (wall, ticks) = (wall.clone(), ticks.clone());
        Clock {
            wall_us: Arc::new(move || wall.load(Ordering::Relaxed).cast_signed()),
            monotonic: Arc::new(move || Duration::from_secs(ticks.load(Ordering::Relaxed))),
        }
    };
    let open = || Registry::open(dir.path(), &serve(), options(), clock.clone()).expect("opens");
    let now = |registry: &Registry| registry.db.write(|write| Ok(write.service_secs)).expect("writes");
    let registry = open();
    assert_eq!(now(&registry), 0);
    ticks.fetch_add(1_000, Ordering::Relaxed);
    wall.fetch_add(u64::MAX / 4, Ordering::Relaxed);
    assert_eq!(now(&registry), 1_000);
    drop(registry);
    wall.store(0, Ordering::Relaxed);
    ticks.store(77, Ordering::Relaxed);
    let registry = open();
    assert_eq!(now(&registry), 1_000, "what a reboot does to both clocks changes nothing");
}

#[test]
fn a_directory_that_is_not_ours_or_is_newer_is_refused_unharmed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("registry.db");
    let foreign = rusqlite::Connection::open(&path).expect("opens");
    foreign.execute_batch("CREATE TABLE theirs (x)").expect("writes");
    drop(foreign);
    let error = open(dir.path(), &serve()).err().expect("refused");
    assert!(error.detail().contains("not an Outport database"), "{error:?}");

    let (dir, registry) = new();
    drop(registry);
    let database = vfs::open(&dir.path().join("registry.db"), Default::default()).expect("opens");
    database.pragma_update(None, "user_version", 999).expect("writes");
    drop(database);
    let error = open(dir.path(), &serve()).err().expect("refused");
    assert!(error.detail().contains("newer Outport"), "{error:?}");
}

#[test]
fn one_server_a_directory_and_tools_beside_it() {
    let (dir, registry) = new();
    assert_eq!(open(dir.path(), &serve()).err().map(|error| error.kind), Some(Kind::Unavailable));
    let tool = open(dir.path(), &Mode::Tool).expect("opens");
    let name = UserName::parse("ann").expect("parses");
    tool.user_add(&UserAdd { name: &name, password: "secret", admin: true, email: None }).expect("adds");
    drop(tool);
    assert_eq!(registry.users().expect("lists").len(), 1);
    drop(registry);
    assert!(!open(dir.path(), &serve()).expect("opens").was_unclean());
}

#[test]
fn a_server_that_did_not_stop_by_itself_is_known_by_it() {
    let (dir, registry) = new();
    // What is left when the process is gone: the lock is free, the note is not cleared.
    registry.db.write(|write| sql::meta_set(write.tx, "running", &[1])).expect("writes");
    let copy = tempfile::tempdir().expect("a directory");
    for name in ["registry.db", "registry.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).expect("copies");
    }
    assert!(open(copy.path(), &serve()).expect("opens").was_unclean());
}

#[test]
fn the_log_of_a_process_that_was_killed_is_written_again_before_anything_relies_on_it() {
    let (dir, registry) = new();
    registry.db.write(|write| sql::meta_set(write.tx, "seen", b"1")).expect("writes");
    let copy = tempfile::tempdir().expect("a directory");
    for name in ["registry.db", "registry.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).expect("copies");
    }
    let log =
        std::fs::OpenOptions::new().append(true).open(copy.path().join("registry.db-wal")).expect("opens");
    let bytes = log.metadata().expect("is there").len();
    log.set_modified(std::time::UNIX_EPOCH).expect("sets");
    // In the same boot a start changes no row, and so would sync nothing.
    let registry = open(copy.path(), &serve()).expect("opens");
    let found = log.metadata().expect("is there");
    assert_eq!(found.len(), bytes);
    assert!(found.modified().expect("is known") > std::time::UNIX_EPOCH);
    assert!(registry.db.read(|tx| sql::meta_get(tx, "seen")).expect("reads").is_some());
}

#[test]
fn a_blob_in_use_while_it_is_found_bad_and_healed_stays_healed() {
    let (dir, registry) = new();
    let repo = RepoName::parse("a/b").expect("parses");
    let user = User { id: 0, name: "ann".into(), admin: true, active: true, generation: 1 };
    let bytes = bytes::Bytes::from_static(b"some bytes");
    let digest = digest_of(Algorithm::Sha256, &bytes);
    let push = || {
        let upload = registry.upload_begin(&user, &repo, Algorithm::Sha256, 0).expect("begins");
        upload.write(std::slice::from_ref(&bytes)).expect("writes");
        registry.upload_commit(&upload, &repo, &digest).expect("commits");
    };
    push();
    let path = dir.path().join("blobs/sha256").join(digest.hex());
    std::fs::write(&path, b"some bytez").expect("writes");
    let slow_reader = registry.blob(&repo, &digest).expect("opens");
    push();
    assert!(registry.blob_piece(&slow_reader, 0, 10, Piece::Full).is_err(), "it holds the old, bad file");
    let healed = registry.blob(&repo, &digest).expect("and the good one is still in service");
    assert_eq!(registry.blob_piece(&healed, 0, 10, Piece::Full).expect("reads"), bytes);
}

#[test]
fn a_blob_of_more_than_4_gib_is_served_from_any_place_and_each_of_them_is_checked() {
    use std::os::unix::fs::FileExt;
    const BYTES: u64 = (5 << 30) + 12_345;
    const BEYOND: u64 = 1 << 32;
    let chunk = blobs::CHUNK_BYTES as u64;
    let (dir, registry) = new();
    let repo = RepoName::parse("a/b").expect("parses");
    let digest = Digest::parse(&format!("sha256:{}", "ab".repeat(32))).expect("parses");
    // It takes no room: zeros, a word where 32 bits end, and one at its own end.
    let path = dir.path().join("blobs/sha256").join(digest.hex());
    let file = File::create_new(&path).expect("makes it");
    file.set_len(BYTES).expect("grows");
    file.write_all_at(b"here", BEYOND - 2).expect("writes");
    file.write_all_at(b"the end", BYTES - 7).expect("writes");
    let crc = |bytes: u64, words: &[(u64, &[u8])]| {
        let mut chunk = vec![0; usize::try_from(bytes).expect("is small")];
        for (at, word) in words {
            let at = usize::try_from(*at).expect("is small");
            chunk[at..at + word.len()].copy_from_slice(word);
        }
        crc32c::crc32c(&chunk).to_le_bytes()
    };
    let (zeros, last) = (crc(chunk, &[]), BYTES % chunk);
    let mut crcs = Vec::new();
    for at in (0..BYTES).step_by(blobs::CHUNK_BYTES) {
        crcs.extend(match at {
            at if at == BEYOND - chunk => crc(chunk, &[(chunk - 2, b"he")]),
            at if at == BEYOND => crc(chunk, &[(0, b"re")]),
            at if at == BYTES - last => crc(last, &[(last - 7, b"the end")]),
            _ => zeros,
        });
    }
    let named = (repo.clone(), digest.clone());
    registry
        .db
        .write(move |write| {
            let (repo, digest) = &named;
            let repo = repo_make(write, repo, true, None)?;
            let blob = sql::blob_upsert(write.tx, digest, BYTES, &crcs)?;
            sql::repo_blob_set(write.tx, repo, blob, write.service_secs)
        })
        .expect("is noted");
    let blob = registry.blob(&repo, &digest).expect("opens");
    assert_eq!(blob.bytes(), BYTES);
    for (at, end, expected) in [
        (BEYOND - 2, BEYOND, &b"he"[..]),
        (BEYOND - 2, BEYOND + 2, b"here"),
        (BEYOND, BEYOND + 4, b"re\0\0"),
        (BYTES - 7, BYTES, b"the end"),
        (0, 4, b"\0\0\0\0"),
    ] {
        let piece = registry.blob_piece(&blob, at, end, Piece::Full).expect("reads");
        assert_eq!(piece, expected, "from {at}");
    }
    // What lies there modulo 2^32 is whole, and stays so.
    file.write_all_at(b"!", BEYOND + 10 * chunk).expect("writes");
    assert!(registry.blob_piece(&blob, 10 * chunk, 10 * chunk + 1, Piece::Full).is_ok());
    assert!(registry.blob_piece(&blob, BEYOND + 10 * chunk, BEYOND + 10 * chunk + 1, Piece::Full).is_err());
}

/// A schema's statements, without comments, quotes and spacing.
fn shape(database: &rusqlite::Connection) -> Vec<String> {
    let mut statement =
        database.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").expect("prepares");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("reads");
    let plain = |sql: String| {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
        lines.collect::<String>().replace(['"', ' ', '\t'], "")
    };
    let mut shape: Vec<String> = rows.map(|sql| plain(sql.expect("is text"))).collect();
    shape.sort();
    shape
}

#[test]
fn a_directory_of_the_first_version_becomes_one_of_the_current_with_everything_in_it() {
    let (dir, registry) = new();
    let expected = shape(&rusqlite::Connection::open(dir.path().join("registry.db")).expect("opens"));
    drop(registry);

    let old = tempfile::tempdir().expect("a directory");
    let database = rusqlite::Connection::open(old.path().join("registry.db")).expect("opens");
    database.execute_batch(include_str!("schema_1.sql")).expect("makes it");
    database
        .execute_batch(
            r#"PRAGMA application_id = 1333097552; PRAGMA user_version = 1;
               INSERT INTO user (name, password, admin, created_us) VALUES ('ann', 'x', 1, 5), ('bob', 'y', 0, 6);
               INSERT INTO email VALUES ('ann@example.org', 1);
               INSERT INTO namespace (name, owner, created_us) VALUES ('ann', 1, 5), ('team', NULL, 6);
               INSERT INTO repo (namespace, name, private, created_us) VALUES (1, 'ann/app', 1, 7), (2, 'team/app', 0, 7);
               INSERT INTO manifest (repo, digest, media_type, bytes, pushed_us, body) VALUES
                 (1, 'sha256:aa', 'type', 3, 9, CAST('{"config":{"digest":"sha256:c","size":2},"layers":[{"size":3}]}' AS BLOB)),
                 (1, 'sha256:bb', 'type', 3, 8, CAST('not json' AS BLOB));
               INSERT INTO tag (repo, name, manifest, pushed_us) VALUES (1, 'v1', 1, 9);"#,
        )
        .expect("fills it");
    drop(database);

    let registry = open(old.path(), &serve()).expect("opens");
    let database = rusqlite::Connection::open(old.path().join("registry.db")).expect("opens");
    assert_eq!(shape(&database), expected);
    let one = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    assert_eq!(one("SELECT content_bytes FROM manifest WHERE config = 'sha256:c'"), 5);
    assert_eq!(one("SELECT pushed_us FROM repo WHERE name = 'ann/app'"), 9);
    assert_eq!(
        one("SELECT count(*) FROM tag AS t JOIN manifest AS m ON m.id = t.manifest WHERE t.name = 'v1'"),
        1
    );
    assert_eq!(
        one(
            "SELECT count(DISTINCT uuid) FROM (SELECT uuid FROM user UNION ALL SELECT uuid FROM repo UNION ALL SELECT uuid FROM manifest)"
        ),
        6
    );
    let uuid: String = database.query_row("SELECT uuid FROM tag", [], |row| row.get(0)).expect("has one");
    assert_eq!(crate::names::Uuid::parse(&uuid).expect("parses").as_str(), uuid);
    let users = registry.users().expect("lists");
    assert_eq!((users.len(), users[0].emails.as_slice()), (2, ["ann@example.org".to_owned()].as_slice()));
    assert!(
        registry
            .may(Some(&users[0].user), Access::Push, &RepoName::parse("ann/app").expect("parses"))
            .expect("says")
    );
}

/// 32-bit systems have calls that know no later time, and refuse a file that was written then.
#[test]
fn a_store_that_was_written_after_2038_is_opened() {
    const IN_2040: Duration = Duration::from_secs(2_208_988_800);
    let (dir, registry) = new();
    drop(registry);
    for entry in std::fs::read_dir(dir.path()).expect("lists").map(|entry| entry.expect("an entry")) {
        let file = File::open(entry.path()).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH + IN_2040).expect("this file system knows 2040");
    }
    let registry = open(dir.path(), &serve()).expect("opens again");
    registry.check_reads().expect("reads");
    registry.check_writes().expect("writes");
}
