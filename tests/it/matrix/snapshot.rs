//! Everything a registry holds at one moment, to see that it is the same later, or to make it so.

use crate::harness::Site;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(PartialEq)]
pub struct Snapshot {
    /// Every row of every table.
    tables: BTreeMap<String, Vec<Vec<Value>>>,
    /// The paths and the lengths of all files but the database's.
    files: BTreeMap<String, u64>,
}

impl Snapshot {
    pub fn take(site: &Site) -> Snapshot {
        let database = Connection::open(site.path("registry.db")).unwrap();
        let mut files = BTreeMap::new();
        for dir in ["blobs", "uploads"] {
            list(&site.path(dir), &mut files);
        }
        Snapshot { tables: tables(&database), files }
    }

    /// What is there now and was not then, or the other way round.
    pub fn differences(&self, now: &Snapshot) -> Vec<String> {
        let mut found = Vec::new();
        for (name, rows) in &self.tables {
            let other = &now.tables[name];
            let apart = |one: &[Vec<Value>], other: &[Vec<Value>]| {
                one.iter()
                    .filter(|row| !other.contains(row))
                    .map(|row| format!("{row:?}"))
                    .collect::<Vec<_>>()
            };
            found.extend(apart(rows, other).into_iter().map(|row| format!("{name} lost {row}")));
            found.extend(apart(other, rows).into_iter().map(|row| format!("{name} got {row}")));
        }
        if self.files != now.files {
            found.push(format!("files: {:?} then, {:?} now", self.files, now.files));
        }
        found
    }

    /// Puts every row back, behind the back of the server, which remembers nothing that it
    /// does not look up again.
    pub fn restore(&self, site: &Site) {
        let database = Connection::open(site.path("registry.db")).unwrap();
        database.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF").unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        // What they keep is put back with the rest.
        let triggers = texts(&database, "SELECT name FROM sqlite_schema WHERE type = 'trigger'");
        let again = texts(&database, "SELECT sql FROM sqlite_schema WHERE type = 'trigger'").join(";");
        for name in triggers {
            database.execute(&format!("DROP TRIGGER {name}"), []).unwrap();
        }
        for (name, now) in tables(&database) {
            let rows = &self.tables[&name];
            if *rows == now {
                continue;
            }
            database.execute(&format!("DELETE FROM {name}"), []).unwrap();
            for row in rows {
                let (columns, places) = (columns(&database, &name), vec!["?"; row.len()].join(", "));
                let insert = format!("INSERT INTO {name} ({columns}) VALUES ({places})");
                database.execute(&insert, params_from_iter(row)).unwrap();
            }
        }
        database.execute_batch(&again).unwrap();
        database.execute_batch("COMMIT").unwrap();
    }
}

fn texts(database: &Connection, sql: &str) -> Vec<String> {
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A table's columns, but for those that are made of others.
fn columns(database: &Connection, table: &str) -> String {
    texts(database, &format!("SELECT name FROM pragma_table_info('{table}')")).join(", ")
}

/// Every row of every table; those that an index of words is kept in are tables too.
fn tables(database: &Connection) -> BTreeMap<String, Vec<Vec<Value>>> {
    let names = texts(
        database,
        "SELECT name FROM sqlite_schema
         WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND sql NOT LIKE 'CREATE VIRTUAL %'",
    );
    let rows = |name: &String| -> Vec<Vec<Value>> {
        let columns = columns(database, name);
        let mut statement = database.prepare(&format!("SELECT {columns} FROM {name} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
        rows.map(Result::unwrap).collect()
    };
    names.into_iter().map(|name| (name.clone(), rows(&name))).collect()
}

fn list(dir: &Path, files: &mut BTreeMap<String, u64>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            meta if meta.is_dir() => list(&entry.path(), files),
            meta => drop(files.insert(entry.path().display().to_string(), meta.len())),
        }
    }
}
