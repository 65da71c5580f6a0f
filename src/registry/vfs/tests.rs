//! What a disk may do to the database and its log, and what is read afterwards.
//!
//! Random tests say their seed, and take one: `SEED=`. `FLIPS=` is how many bits they turn over.

use super::*;
use crate::registry::blobs::{Blobs, make_dir};
use crate::registry::db::{Db, PagesChecked};
use crate::registry::{Clock, sql};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

type Rows = BTreeMap<String, Vec<u8>>;

const NONE: [u32; 0] = [];

/// Numbers that do not repeat, the same for the same seed.
struct Dice(u64);

impl Dice {
    #[expect(clippy::print_stderr, reason = "a random test says its seed")]
    fn new() -> Dice {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
        eprintln!("SEED={seed}");
        Dice(seed | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}

fn flips() -> u64 {
    std::env::var("FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(150)
}

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.db")
}

fn log(dir: &TempDir) -> PathBuf {
    dir.path().join("registry.db-wal")
}

fn open_db(dir: &TempDir) -> Result<Db> {
    make_dir(dir.path())?;
    Db::open(dir.path(), &Blobs::open(dir.path())?, &Clock::system(), true)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The files of one directory in another, as another process would find them after a crash.
fn copy(from: &TempDir) -> TempDir {
    let to = directory();
    for path in [database(from), log(from)] {
        if let (true, Some(name)) = (path.exists(), path.file_name()) {
            std::fs::write(to.path().join(name), std::fs::read(&path).expect("reads")).expect("copies");
        }
    }
    to
}

fn put(db: &Db, key: &str, value: &[u8]) {
    let (key, value) = (key.to_owned(), value.to_owned());
    db.write(move |write| sql::meta_set(write.tx, &key, &value)).expect("writes");
}

/// Rows of some bytes and of several pages.
fn fill(db: &Db, dice: &mut Dice, count: u64) -> Rows {
    let mut rows = Rows::new();
    for n in 0..count {
        let bytes = if n % 16 == 7 { 9_000 } else { 20 + dice.below(600) };
        let value = dice.bytes(usize::try_from(bytes).expect("fits"));
        put(db, &format!("row{n:04}"), &value);
        rows.insert(format!("row{n:04}"), value);
    }
    rows
}

/// A database that was closed, and its rows.
fn closed(dice: &mut Dice) -> (TempDir, Rows) {
    let dir = directory();
    let db = open_db(&dir).expect("opens");
    let rows = fill(&db, dice, 120);
    drop(db);
    assert!(!log(&dir).exists(), "a clean stop leaves no log");
    (dir, rows)
}

fn flip(path: &Path, at: u64, bit: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], at).expect("writes");
}

/// Turns a bit over in the page of a closed database that one row is on, and returns the page.
fn spoil_row_40(dir: &TempDir) -> usize {
    let bytes = std::fs::read(database(dir)).expect("reads");
    let places = bytes.windows(7).enumerate().filter(|(_, window)| window == b"row0040");
    for (at, _) in places {
        flip(&database(dir), at as u64, 0);
        let found = open_db(dir).and_then(|db| db.read(|tx| sql::meta_get(tx, "row0040")));
        if found.is_err() {
            return at / PAGE + 1;
        }
        // What is left of it on a page it was on before.
        flip(&database(dir), at as u64, 0);
    }
    panic!("the row is on no page");
}

/// Every row by itself and all together: right, or an error, and never anything else. Returns how
/// many were errors.
fn errors(db: &Db, rows: &Rows, what: &str) -> usize {
    let mut errors = 0;
    for (key, value) in rows {
        match db.read(|tx| sql::meta_get(tx, key)) {
            Ok(found) => assert!(found.as_ref() == Some(value), "{what}: another {key}"),
            Err(error) => {
                assert_eq!(error.kind, Kind::Internal, "{what}: {error:?}");
                errors += 1;
            }
        }
    }
    let all = db.read(|tx| {
        let mut statement = tx.prepare("SELECT key, value FROM meta WHERE key LIKE 'row%'")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<Rows>>()?)
    });
    match all {
        Ok(all) => assert!(all == *rows, "{what}: other rows"),
        Err(_) => errors += 1,
    }
    errors
}

/// All pages that are wrong, looked at in stretches.
fn wrong(db: &Db) -> Result<Vec<u32>> {
    let (mut wrong, mut next) = (Vec::new(), Some(1));
    while let Some(from) = next {
        let PagesChecked { wrong: more, next: end, .. } = db.check_pages(from, 7)?;
        wrong.extend(more);
        next = end;
    }
    Ok(wrong)
}

/// What is logged while something runs in this thread.
fn heard(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Ear(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("is whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let ear = Ear::default();
    let hears = ear.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || hears.clone()).finish();
    tracing::subscriber::with_default(subscriber, run);
    let said = ear.0.lock().expect("is whole").clone();
    String::from_utf8(said).expect("is text")
}

#[test]
fn a_flipped_bit_in_the_database_is_an_error_and_never_another_row() {
    let mut dice = Dice::new();
    let (pristine, rows) = closed(&mut dice);
    let bytes = std::fs::read(database(&pristine)).expect("reads");
    let dir = copy(&pristine);
    let (mut refused, mut wrong_reads) = (0, 0);
    for _ in 0..flips() {
        let (at, bit) = (dice.below(bytes.len() as u64), dice.below(8));
        std::fs::write(database(&dir), &bytes).expect("writes");
        flip(&database(&dir), at, bit);
        let what = format!("bit {bit} of byte {at}");
        match open_db(&dir) {
            Ok(db) => {
                wrong_reads += errors(&db, &rows, &what);
                let page = u32::try_from(at / PAGE as u64).expect("fits") + 1;
                assert_eq!(wrong(&db).expect(&what), [page], "{what}");
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Internal, "{what}: {error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused + wrong_reads > 0);
}

#[test]
fn a_flipped_bit_of_the_file_s_head_is_an_error_wherever_it_is() {
    let mut dice = Dice::new();
    let (pristine, _) = closed(&mut dice);
    for at in 0..100 {
        let dir = copy(&pristine);
        flip(&database(&dir), at, dice.below(8));
        assert!(open_db(&dir).is_err(), "byte {at}");
    }
    let dir = copy(&pristine);
    flip(&database(&dir), ROOM_AT as u64, 3);
    let bytes = std::fs::read(database(&dir)).expect("reads");
    assert_eq!(bytes[ROOM_AT], 0, "as a database without checksums would have it");
    assert!(!is_without_room(bytes[..PAGE].try_into().expect("is a page")));
    assert!(open_db(&dir).is_err());
    assert!(std::fs::read(database(&dir)).expect("reads") == bytes, "and nothing was made of it");
}

#[test]
fn pages_that_are_swapped_zeroed_torn_lost_or_of_elsewhere_are_errors() {
    let mut dice = Dice::new();
    let (pristine, rows) = closed(&mut dice);
    let bytes = std::fs::read(database(&pristine)).expect("reads");
    let pages = bytes.len() / PAGE;
    let page = |bytes: &[u8], number: usize| bytes[(number - 1) * PAGE..number * PAGE].to_vec();
    // Leaves with rows, and with nothing that is read when the database is opened.
    let holds =
        |number: usize, what: &[u8]| page(&bytes, number).windows(what.len()).any(|window| window == what);
    let is_leaf = |number: &usize| page(&bytes, *number)[0] == 10 && holds(*number, b"row00");
    let of_rows: Vec<usize> = (2..=pages).filter(is_leaf).filter(|n| !holds(*n, b"service_secs")).collect();
    let (one, two) = (of_rows[0], of_rows[1]);
    for harm in ["swapped", "zeroed", "torn", "elsewhere", "cut", "cut within a page"] {
        let dir = copy(&pristine);
        let file = std::fs::OpenOptions::new().write(true).open(database(&dir)).expect("opens");
        let place = |number: usize, page: &[u8]| {
            file.write_all_at(page, ((number - 1) * PAGE) as u64).expect("writes");
        };
        let expected: Vec<usize> = match harm {
            "swapped" => {
                place(one, &page(&bytes, two));
                place(two, &page(&bytes, one));
                vec![one, two]
            }
            "zeroed" => {
                place(one, &[0; PAGE]);
                vec![one]
            }
            "torn" => {
                place(one, &page(&bytes, two)[..512]);
                vec![one]
            }
            "elsewhere" => {
                place(one, &page(&bytes, two));
                vec![one]
            }
            "cut" => {
                file.set_len(((pages - 1) * PAGE) as u64).expect("cuts");
                vec![]
            }
            _ => {
                file.set_len((pages * PAGE) as u64 - 100).expect("cuts");
                vec![pages]
            }
        };
        match open_db(&dir) {
            Ok(db) => {
                assert!(errors(&db, &rows, harm) > 0, "{harm}");
                let wrong: Vec<usize> = wrong(&db).expect(harm).iter().map(|page| *page as usize).collect();
                assert_eq!(wrong, expected, "{harm}");
            }
            Err(error) => assert!(harm.starts_with("cut"), "{harm}: {error:?}"),
        }
    }
}

#[test]
fn an_error_says_which_page_it_was() {
    let mut dice = Dice::new();
    let (dir, rows) = closed(&mut dice);
    let page = spoil_row_40(&dir);
    let db = open_db(&dir).expect("opens");
    let said = heard(|| {
        let error = db.read(|tx| sql::meta_get(tx, "row0040")).expect_err("is wrong");
        assert_eq!((error.kind, error.detail().contains("damaged")), (Kind::Internal, true), "{error:?}");
    });
    assert!(said.contains(&format!("page={page}")), "{said}");
    assert!(errors(&db, &rows, "one page") < rows.len(), "other pages can be read");
}

/// A server with everything in its log, and a reader that keeps it there.
fn all_in_log(dice: &mut Dice) -> (TempDir, Db, Connection, Rows) {
    let dir = directory();
    let db = open_db(&dir).expect("opens");
    // Now there is nothing in the log, so that the next reader sees none of it.
    assert_eq!(wrong(&db).expect("checks"), NONE);
    let reader = open(&database(&dir), OpenFlags::default()).expect("opens");
    reader.execute_batch("BEGIN; SELECT count(*) FROM meta;").expect("reads");
    let rows = fill(&db, dice, 60);
    (dir, db, reader, rows)
}

#[test]
fn a_flipped_bit_in_the_log_is_an_error_while_others_use_it() {
    let mut dice = Dice::new();
    let (dir, db, _reader, rows) = all_in_log(&mut dice);
    let len = std::fs::metadata(log(&dir)).expect("is there").len();
    let mut found = 0;
    for _ in 0..flips() {
        let (at, bit) = (dice.below(len), dice.below(8));
        flip(&log(&dir), at, bit);
        // Another process, or a reader that remembers no page.
        match open_db(&dir) {
            Ok(other) => found += errors(&other, &rows, &format!("bit {bit} of byte {at}")),
            Err(error) => {
                assert_eq!(error.kind, Kind::Internal, "{error:?}");
                found += 1;
            }
        }
        flip(&log(&dir), at, bit);
    }
    assert!(found > 0);
    assert_eq!(errors(&db, &rows, "all is right again"), 0);
}

#[test]
fn frames_of_an_earlier_log_are_errors_where_the_disk_has_lost_those_of_this_one() {
    let mut dice = Dice::new();
    let dir = directory();
    let db = open_db(&dir).expect("opens");
    let mut rows = fill(&db, &mut dice, 50);
    // All is in the database now, and the next write begins the log anew.
    assert_eq!(wrong(&db).expect("checks"), NONE);
    let earlier = std::fs::read(log(&dir)).expect("reads");
    for n in (0..50).step_by(2) {
        let (key, value) = (format!("row{n:04}"), dice.bytes(500));
        put(&db, &key, &value);
        rows.insert(key, value);
    }
    let this = std::fs::read(log(&dir)).expect("reads");
    assert_eq!(this.len(), earlier.len());
    let frames = (1..).take_while(|number| {
        let salts = |bytes: &[u8], at: usize| bytes[at + LOG_SALTS.start..at + LOG_SALTS.end].to_vec();
        let at = usize::try_from(frame_offset(*number)).expect("fits");
        salts(&this, 0) == this[at + SALTS.start..at + SALTS.end]
    });
    let frames = u32::try_from(frames.count()).expect("fits");
    assert!(frames > 10);
    let file = std::fs::OpenOptions::new().write(true).open(log(&dir)).expect("opens");
    for number in 1..=frames {
        let at = frame_offset(number);
        file.write_all_at(&earlier[usize::try_from(at).expect("fits")..], at).expect("writes");
        let lost = format!("from frame {number} of {frames} on");
        match open_db(&dir) {
            Ok(other) => assert!(errors(&other, &rows, &lost) > 0, "{lost}"),
            Err(error) => assert_eq!(error.kind, Kind::Internal, "{lost}: {error:?}"),
        }
        file.write_all_at(&this, 0).expect("writes");
    }
    assert_eq!(errors(&db, &rows, "all is right again"), 0);
}

#[test]
fn damage_in_the_log_gets_no_good_checksum_in_the_database() {
    let mut dice = Dice::new();
    for _ in 0..flips() / 10 {
        let (dir, db, reader, rows) = all_in_log(&mut dice);
        drop(reader);
        let len = std::fs::metadata(log(&dir)).expect("is there").len();
        let (at, bit) = (dice.below(len), dice.below(8));
        flip(&log(&dir), at, bit);
        let what = format!("bit {bit} of byte {at}");
        let is_refused = match wrong(&db) {
            Ok(wrong) => {
                assert_eq!(wrong, NONE, "{what}");
                false
            }
            Err(error) => {
                assert!(error.detail().contains("damaged"), "{what}: {error:?}");
                true
            }
        };
        match open_db(&dir) {
            Ok(other) => assert!(errors(&other, &rows, &what) == 0 || is_refused, "{what}"),
            Err(error) => assert!(is_refused, "{what}: {error:?}"),
        }
        // The damage is undone, and all is as it was: nothing was made of it.
        flip(&log(&dir), at, bit);
        assert_eq!(errors(&open_db(&dir).expect(&what), &rows, &what), 0);
        assert_eq!(wrong(&db).expect(&what), NONE, "{what}");
    }
}

/// The rows of the first so many writes, and of no later one.
fn first_of(db: &Db, rows: &Rows) -> usize {
    let found: Vec<bool> = rows
        .iter()
        .map(|(key, value)| {
            let found = db.read(|tx| sql::meta_get(tx, key)).expect("reads");
            assert!(found.is_none() || found.as_ref() == Some(value), "another {key}");
            found.is_some()
        })
        .collect();
    let first = found.iter().take_while(|found| **found).count();
    assert!(!found[first..].contains(&true), "a write is missing, and a later one is not");
    first
}

#[test]
fn a_flipped_bit_in_the_log_before_a_start_cuts_it_off_there_and_says_so() {
    let mut dice = Dice::new();
    let (dir, _db, _reader, rows) = all_in_log(&mut dice);
    let len = std::fs::metadata(log(&dir)).expect("is there").len();
    assert_eq!(first_of(&open_db(&copy(&dir)).expect("opens"), &rows), rows.len());
    let bytes = std::fs::read(log(&dir)).expect("reads");
    let frames = (1..).map_while(|n| Some((n, bytes.get(usize::try_from(frame_offset(n)).ok()?..)?)));
    let commits: Vec<u32> =
        frames.filter(|(_, frame)| frame.len() >= FRAME && frame[COMMIT] != [0; 4]).map(|(n, _)| n).collect();
    let last_but_one = frame_offset(commits[commits.len() - 2]);
    let mut cut = 0;
    for n in 0..flips() / 2 {
        let crashed = copy(&dir);
        let at = match n {
            // The log's head: without it, nothing of the log is read.
            0..32 => n,
            // The last frame.
            32..40 => len - 1 - dice.below(FRAME as u64),
            // What tells that the commit before the last is of this log.
            40..48 => last_but_one + SALTS.start as u64 + n - 40,
            _ => dice.below(len),
        };
        let bit = dice.below(8);
        flip(&log(&crashed), at, bit);
        let what = format!("bit {bit} of byte {at}");
        let mut first = None;
        let said = heard(|| match open_db(&crashed) {
            Ok(db) => {
                assert_eq!(wrong(&db).expect(&what), NONE);
                first = Some(first_of(&db, &rows));
            }
            Err(error) => assert_eq!(error.kind, Kind::Internal, "{what}: {error:?}"),
        });
        if let Some(first) = first {
            // The end of the log cannot be told from a commit that the crash came before.
            let is_told = said.contains("what was written to the database after this frame is lost");
            assert_eq!(is_told, first + 1 < rows.len(), "{what}: {first} writes are left: {said}");
            cut += rows.len() - first;
        }
    }
    assert!(cut > 0);
}

#[test]
fn a_log_that_was_cut_off_or_lost_leaves_the_first_writes_and_no_other() {
    let mut dice = Dice::new();
    let (dir, _db, _reader, rows) = all_in_log(&mut dice);
    let len = std::fs::metadata(log(&dir)).expect("is there").len();
    for _ in 0..flips() / 10 {
        let crashed = copy(&dir);
        let file = std::fs::OpenOptions::new().write(true).open(log(&crashed)).expect("opens");
        file.set_len(dice.below(len)).expect("cuts");
        let said = heard(|| {
            let db = open_db(&crashed).expect("opens");
            assert!(first_of(&db, &rows) < rows.len());
            assert_eq!(wrong(&db).expect("checks"), NONE);
        });
        assert!(!said.contains("lost"), "as after any crash: {said}");
    }
    let crashed = copy(&dir);
    std::fs::remove_file(log(&crashed)).expect("removes");
    assert_eq!(first_of(&open_db(&crashed).expect("opens"), &rows), 0);
}

#[test]
fn a_transaction_larger_than_the_cache_reads_back_what_it_wrote() {
    let mut dice = Dice::new();
    let dir = directory();
    let db = open_db(&dir).expect("opens");
    let mut rows = fill(&db, &mut dice, 40);
    for round in 0..6 {
        let changes: Vec<(String, Vec<u8>)> = (0..1_500)
            .map(|_| (format!("row{:04}", dice.below(700)), dice.bytes(200 + 37 * round)))
            .collect();
        let undone = changes.clone();
        // Undone in part, so that frames are written over, and in full.
        let failed = db.write(move |write| {
            for (key, value) in undone.iter().rev() {
                sql::meta_set(write.tx, key, value)?;
            }
            Err::<(), _>(Kind::Denied.into())
        });
        assert_eq!(failed.expect_err("as it said").kind, Kind::Denied);
        let mut known = rows.clone();
        rows = db
            .write(move |write| {
                for (n, (key, value)) in changes.iter().enumerate() {
                    if n % 400 == 99 {
                        write.tx.execute_batch("SAVEPOINT inner; UPDATE meta SET value = x'00' WHERE key LIKE 'row%'; ROLLBACK TO inner; RELEASE inner;")?;
                    }
                    sql::meta_set(write.tx, key, value)?;
                    known.insert(key.clone(), value.clone());
                    // Far from where the last ones were written.
                    if n % 20 == 0 {
                        for (key, value) in known.iter().step_by(50) {
                            assert!(sql::meta_get(write.tx, key)?.as_ref() == Some(value), "another {key}");
                        }
                    }
                }
                Ok(known)
            })
            .expect("writes");
        assert_eq!(errors(&db, &rows, "after the commit"), 0);
        assert_eq!(errors(&open_db(&copy(&dir)).expect("opens"), &rows, "after a crash"), 0);
    }
    assert_eq!(wrong(&db).expect("checks"), NONE);
    drop(db);
    assert_eq!(errors(&open_db(&dir).expect("opens"), &rows, "after a stop"), 0);
}

#[test]
fn readers_writers_and_checks_at_once_find_nothing_wrong() {
    let mut dice = Dice::new();
    let dir = directory();
    let (db, beside) = (open_db(&dir).expect("opens"), open_db(&dir).expect("opens"));
    let rows = fill(&db, &mut dice, 100);
    let values: Vec<Vec<u8>> = (0..150).map(|_| dice.bytes(3_000)).collect();
    std::thread::scope(|scope| {
        for db in [&db, &beside] {
            scope.spawn(|| {
                for (n, value) in values.iter().enumerate() {
                    put(db, &format!("other{}", n % 40), value);
                }
            });
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(errors(db, &rows, "while others write"), 0);
                }
            });
        }
        for _ in 0..10 {
            match wrong(&db) {
                Ok(wrong) => assert_eq!(wrong, NONE),
                Err(error) => assert_eq!(error.kind, Kind::Unavailable, "{error:?}"),
            }
        }
    });
    assert_eq!(wrong(&beside).expect("checks"), NONE);
}

#[test]
fn a_write_that_cannot_read_fails_and_takes_nobody_s_row_along() {
    let mut dice = Dice::new();
    let (dir, _) = closed(&mut dice);
    spoil_row_40(&dir);
    let db = open_db(&dir).expect("opens");
    let answers: Vec<(String, bool)> = std::thread::scope(|scope| {
        let writing: Vec<_> = (0..60)
            .map(|n| {
                let db = &db;
                scope.spawn(move || {
                    let key = if n % 4 == 0 { "row0040".to_owned() } else { format!("zzz{n}") };
                    let written = key.clone();
                    let outcome = db.write(move |write| sql::meta_set(write.tx, &written, b"new"));
                    (key, outcome.is_ok())
                })
            })
            .collect();
        writing.into_iter().map(|thread| thread.join().expect("ends")).collect()
    });
    for (key, is_ok) in answers {
        match key.as_str() {
            "row0040" => assert!(!is_ok),
            key => {
                let found = db.read(|tx| sql::meta_get(tx, key)).expect("reads");
                assert_eq!(found.is_some(), is_ok, "{key} is there if that was said");
            }
        }
    }
}

#[test]
fn damage_does_not_end_the_server_whose_next_start_might_cut_off_its_log() {
    let mut dice = Dice::new();
    let (dir, rows) = closed(&mut dice);
    spoil_row_40(&dir);
    let db = open_db(&dir).expect("opens");
    // Written after all closures have run, so that the commit itself fails.
    db.note("row0040", b"new".to_vec());
    let failed = db.write(|write| sql::meta_set(write.tx, "row0001", b"new")).expect_err("fails");
    assert_eq!(failed.kind, Kind::Internal);
    assert!(!db.has_failed() && !db.is_sound());
    assert!(errors(&db, &rows, "and nothing was written") > 0);
}

/// A database as versions before checksums made it, in use, and its rows.
fn without_checksums(dice: &mut Dice) -> (TempDir, Connection, Rows) {
    let dir = directory();
    let old = Connection::open(database(&dir)).expect("opens");
    old.execute_batch("PRAGMA page_size = 4096; PRAGMA journal_mode = WAL;").expect("sets");
    old.execute_batch(include_str!("../schema_1.sql")).expect("makes it");
    old.execute_batch("PRAGMA application_id = 1333097552; PRAGMA user_version = 1;").expect("sets");
    let mut rows = Rows::new();
    old.execute_batch("BEGIN").expect("begins");
    for n in 0..400 {
        let (key, value) = (format!("row{n:04}"), dice.bytes(700));
        sql::meta_set(&old, &key, &value).expect("writes");
        rows.insert(key, value);
    }
    old.execute_batch("COMMIT").expect("commits");
    (dir, old, rows)
}

#[test]
fn a_database_without_checksums_gets_them_when_it_is_opened() {
    let mut dice = Dice::new();
    let (dir, old, rows) = without_checksums(&mut dice);
    // As after a crash: partly in the log.
    let crashed = copy(&dir);
    drop(old);
    for dir in [dir, crashed] {
        assert_eq!(std::fs::read(database(&dir)).expect("reads")[ROOM_AT], 0);
        let db = open_db(&dir).expect("opens");
        assert_eq!(errors(&db, &rows, "made anew"), 0);
        assert_eq!(wrong(&db).expect("checks"), NONE);
        drop(db);
        assert_eq!(std::fs::read(database(&dir)).expect("reads")[ROOM_AT], ROOM);
        spoil_row_40(&dir);
        assert!(errors(&open_db(&dir).expect("opens"), &rows, "flipped") > 0);
    }
}

#[test]
fn several_that_open_a_database_without_checksums_at_once_do_not_harm_it() {
    let mut dice = Dice::new();
    for _ in 0..2 {
        let (dir, old, rows) = without_checksums(&mut dice);
        let crashed = copy(&dir);
        drop(old);
        for dir in [dir, crashed] {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (dir, rows) = (&dir, &rows);
                    scope.spawn(move || match open_db(dir) {
                        Ok(db) => {
                            put(&db, &format!("other{thread}"), &[7; 5_000]);
                            assert_eq!(errors(&db, rows, "beside others"), 0);
                        }
                        Err(error) => assert_eq!(error.kind, Kind::Unavailable, "{error:?}"),
                    });
                }
            });
            let db = open_db(&dir).expect("opens");
            assert_eq!(wrong(&db).expect("checks"), NONE);
            assert_eq!(errors(&db, &rows, "alone"), 0);
        }
    }
}

#[test]
fn a_database_without_checksums_that_is_in_use_is_refused_unharmed() {
    let mut dice = Dice::new();
    let (dir, old, rows) = without_checksums(&mut dice);
    let error = open_db(&dir).err().expect("is refused");
    assert!(error.kind == Kind::Unavailable && error.detail().contains("in use"), "{error:?}");
    sql::meta_set(&old, "row0000", &rows["row0000"]).expect("its user goes on");
    drop(old);
    assert_eq!(errors(&open_db(&dir).expect("opens"), &rows, "alone"), 0);
}

#[test]
fn a_crash_while_checksums_are_added_loses_nothing() {
    let mut dice = Dice::new();
    let (dir, old, rows) = without_checksums(&mut dice);
    drop(old);
    let before = std::fs::read(database(&dir)).expect("reads");
    // All of it is in the log, and none in the file.
    let adding = open(&database(&dir), OpenFlags::default()).expect("opens");
    adding.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA wal_autocheckpoint = 0;").expect("sets");
    make_room(&adding).expect("sets");
    adding.execute_batch("VACUUM").expect("makes it anew");
    let in_log = copy(&dir);
    assert!(std::fs::read(database(&in_log)).expect("reads") == before);
    let written = std::fs::read(log(&in_log)).expect("reads");
    drop(adding);
    let after = std::fs::read(database(&dir)).expect("reads");
    for n in 0..40 {
        let crashed = directory();
        match n {
            // While the log was written, …
            0..20 => {
                let len = usize::try_from(dice.below(written.len() as u64)).expect("fits");
                std::fs::write(log(&crashed), &written[..len]).expect("writes");
                std::fs::write(database(&crashed), &before).expect("writes");
            }
            // … or copied, up to the middle of some page.
            _ => {
                let len = if n == 20 { 0 } else { dice.below(after.len().min(before.len()) as u64) };
                let len = usize::try_from(len).expect("fits") / 512 * 512;
                std::fs::write(log(&crashed), &written).expect("writes");
                let mut torn = before.clone();
                torn[..len].copy_from_slice(&after[..len]);
                std::fs::write(database(&crashed), &torn).expect("writes");
            }
        }
        let db = open_db(&crashed).expect("opens");
        assert_eq!(errors(&db, &rows, "after a crash"), 0, "{n}");
        assert_eq!(wrong(&db).expect("checks"), NONE, "{n}");
        drop(db);
        assert_eq!(std::fs::read(database(&crashed)).expect("reads")[ROOM_AT], ROOM);
    }
}

#[test]
fn a_copy_that_sqlite_makes_has_checksums_too() {
    let mut dice = Dice::new();
    let (dir, db, _reader, rows) = all_in_log(&mut dice);
    db.write(|write| Ok(write.tx.execute_batch("DELETE FROM meta WHERE key LIKE 'row001%'")?))
        .expect("deletes");
    let rows: Rows = rows.into_iter().filter(|(key, _)| !key.starts_with("row001")).collect();
    let into = directory();
    let path = database(&into);
    let connection = open(&database(&dir), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    connection.execute("VACUUM INTO ?1", [path.to_str().expect("is text")]).expect("copies");
    let copied = open_db(&into).expect("opens");
    assert_eq!(errors(&copied, &rows, "copied"), 0);
    assert_eq!(wrong(&copied).expect("checks"), NONE);
    assert_eq!(std::fs::read(&path).expect("reads")[ROOM_AT], ROOM);
}
