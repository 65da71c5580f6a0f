//! Every SQL statement, grouped by table, each a function of a transaction and names.
//!
//! A row that does not parse is an error, never a default.

mod content;
mod gc;
mod images;
mod imports;
mod index_v1;
mod journal;
mod mlspace;
mod orgs;
mod people;
mod repos;
mod scrub;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::random;
use crate::error::Result;
use crate::names::{Digest, Uuid};

pub use content::*;
pub use gc::*;
pub use images::*;
pub use imports::*;
pub use index_v1::*;
pub use journal::*;
pub use mlspace::*;
pub use orgs::*;
pub use people::*;
pub use repos::*;
pub use scrub::*;

fn digest_column(row: &Row, index: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(index)?;
    Digest::parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
    })
}

/// A digest, where there may be none.
fn digest_or_null(row: &Row, index: usize) -> rusqlite::Result<Option<Digest>> {
    match row.get_ref(index)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => digest_column(row, index).map(Some),
    }
}

fn size_column(row: &Row, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index)?.try_into().map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, -1))
}

/// Bytes as SQLite stores them. Nothing that is stored reaches 8 EiB; what a manifest
/// claims may, and is cut there.
fn size_value(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A new UUID's text.
fn uuid() -> Result<String> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(Uuid::from_random(bytes).as_str().to_owned())
}

// meta ------------------------------------------------------------------------

pub fn meta_get(tx: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(tx
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

pub fn meta_set(tx: &Connection, key: &str, value: &[u8]) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![key, value])?;
    Ok(())
}
