//! What is kept so that lists need not count: it is what counting would find, whatever happened.

use crate::binary::outport;
use crate::harness::{Chance, Site, seed, sha256};
use outport::registry::Registry;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::path::Path;

/// Statements that find rows which are not as counting would make them.
const WRONG: [(&str, &str); 5] = [
    (
        "sums of a repository",
        "SELECT r.name FROM repo AS r LEFT JOIN repo_sums AS s ON s.repo = r.id WHERE
           (s.tags, s.manifests, s.stars, s.hidden, s.blob_bytes) IS NOT (
             (SELECT count(*) FROM tag WHERE repo = r.id),
             (SELECT count(*) FROM manifest WHERE repo = r.id),
             (SELECT count(*) FROM star WHERE repo = r.id),
             (SELECT count(*) FROM hidden WHERE repo = r.id),
             (SELECT coalesce(sum(b.bytes), 0) FROM repo_blob AS h JOIN blob AS b ON b.id = h.blob
              WHERE h.repo = r.id))",
    ),
    ("sums of no repository", "SELECT 'row ' || repo FROM repo_sums WHERE repo NOT IN (SELECT id FROM repo)"),
    (
        "repositories of a namespace",
        "SELECT n.name FROM namespace AS n WHERE (n.repos, n.repos_public) IS NOT (
           (SELECT count(*) FROM repo WHERE namespace = n.id),
           (SELECT count(*) FROM repo WHERE namespace = n.id AND private = 0))",
    ),
    (
        "whether a repository holds an image",
        "SELECT name FROM repo WHERE holds <> EXISTS (SELECT 1 FROM manifest WHERE repo = repo.id)",
    ),
    (
        "images that lists leave out",
        "SELECT 'image ' || id FROM manifest AS m
         WHERE (id IN (SELECT manifest FROM hidden)) <> (NOT m.live OR
           EXISTS (SELECT 1 FROM child AS c JOIN manifest AS p ON p.id = c.manifest
             WHERE p.repo = m.repo AND c.digest = m.digest)
           AND NOT EXISTS (SELECT 1 FROM tag WHERE manifest = m.id))",
    ),
];

/// The database, by the way that keeps its checksums. A registry has been open in this process.
fn database(dir: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(dir.join("registry.db"), OpenFlags::default(), c"outport").unwrap()
}

fn wrong(dir: &Path) -> Vec<String> {
    let database = database(dir);
    let mut found = Vec::new();
    for (what, sql) in WRONG {
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        found.extend(rows.map(|row| format!("{what}: {}", row.unwrap())));
    }
    let words = "INSERT INTO repo_words (repo_words, rank) VALUES ('integrity-check', 1)";
    found.extend(database.execute(words, []).err().map(|error| format!("words: {error}")));
    found
}

/// Does something to the registry, by one dialect or another. Whether it succeeds is not asked.
fn act(site: &Site, chance: &mut Chance) {
    let repo = ["ann/a", "ann/b", "team/c"][chance.index(3)];
    let tag = ["one", "two", "three"][chance.index(3)];
    let layer = [b"layer".as_slice(), b"other", b"third"][chance.index(3)];
    let image = site.image_of(repo, layer);
    let hub = format!("/v2/repositories/{repo}/");
    let ask = |method: &str, target: &str| site.ask(method, target);
    match chance.below(12) {
        0 | 1 => drop(site.push_image(repo, tag, layer)),
        2 => drop(site.put_manifest(repo, &sha256(image.as_bytes()), &image)),
        3 => {
            let other = site.image_of(repo, b"layer");
            site.push_index(repo, tag, &[&sha256(image.as_bytes()), &sha256(other.as_bytes())]);
        }
        4 => {
            // An index before its image.
            let later = site.image_of(repo, format!("later {}", chance.below(3)).as_bytes());
            let digest = sha256(later.as_bytes());
            site.push_index(repo, tag, &[&digest]);
            site.put_manifest(repo, &digest, &later);
        }
        5 => drop(ask("DELETE", &format!("/v2/{repo}/manifests/{tag}")).send()),
        6 => drop(ask("DELETE", &format!("/v2/{repo}/manifests/{}", sha256(image.as_bytes()))).send()),
        7 => drop(ask("PATCH", &hub).json(&json!({"description": format!("of {tag}")})).send()),
        8 => {
            let private = json!({"is_private": chance.below(2) == 0});
            ask("POST", &format!("{hub}privacy/")).json(&private).send();
        }
        9 => drop(ask(["PUT", "DELETE"][chance.index(2)], &format!("{hub}stars/")).send()),
        10 => {
            // Damage, which a pull notices.
            let damage = "UPDATE manifest SET live = 1 - live WHERE id = (SELECT max(id) FROM manifest)";
            database(&site.path("")).execute(damage, []).unwrap();
        }
        _ if chance.below(4) == 0 => drop(ask("DELETE", &hub).send()),
        _ => drop(site.push_blob(repo, tag.as_bytes())),
    }
}

#[test]
fn sums_are_what_counting_finds_after_anything_and_in_what_is_made_of_the_store() {
    let seed = seed(20_261_121);
    let mut chance = Chance::new(seed);
    let site = Site::new();
    site.add_user("ann");
    for step in 0..150 {
        act(&site, &mut chance);
        assert_eq!(wrong(&site.path("")), Vec::<String>::new(), "after step {step}, SEED={seed}");
    }
    let mut backup = Vec::new();
    site.registry.backup(&mut backup, |_, _| {}).unwrap();
    let restored = tempfile::tempdir().unwrap();
    Registry::restore(restored.path(), &backup[..], |_, _| {}).unwrap();
    assert_eq!(wrong(restored.path()), Vec::<String>::new(), "restored, SEED={seed}");

    let dir = site.close();
    std::fs::remove_file(dir.path().join("registry.db")).unwrap();
    let rebuilt = outport(dir.path(), &["rebuild"], "");
    assert!(dir.path().join("registry.db").exists(), "{rebuilt:?}");
    assert_eq!(wrong(dir.path()), Vec::<String>::new(), "rebuilt, SEED={seed}");
}

#[test]
fn sums_that_are_wrong_would_be_noticed() {
    let site = Site::new();
    site.push_index("a/b", "v1", &[&sha256(b"of a platform")]);
    assert_eq!(wrong(&site.path("")), Vec::<String>::new());
    for harm in [
        "UPDATE repo_sums SET tags = tags + 1",
        "UPDATE repo_sums SET blob_bytes = 0",
        "UPDATE namespace SET repos_public = repos_public + 1",
        "UPDATE repo SET holds = 1 - holds",
        "INSERT INTO hidden (manifest, repo) SELECT manifest, repo FROM tag",
        "INSERT INTO repo_words (rowid, words) VALUES (99, 'nothing has these words')",
    ] {
        database(&site.path("")).execute(harm, []).unwrap();
        assert_ne!(wrong(&site.path("")), Vec::<String>::new(), "{harm}");
    }
}
