//! Statements about the keys whose bundles this site takes.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{size_column, size_value};
use crate::bundle::{KeyName, PublicKey};
use crate::error::Result;
use crate::registry::keys::TrustedKey;

const COLUMNS: &str = "name, public, sequence, trusted_us";

fn trusted_key_row(row: &Row) -> rusqlite::Result<TrustedKey> {
    let name: String = row.get(0)?;
    let name = KeyName::parse(&name).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(TrustedKey {
        name,
        public: PublicKey::of_bytes(row.get(1)?),
        sequence: size_column(row, 2)?,
        trusted_us: row.get(3)?,
    })
}

/// Every trusted key, by name; there are few.
pub fn trusted_keys(tx: &Connection) -> Result<Vec<TrustedKey>> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM trusted_key ORDER BY name"))?;
    let rows = statement.query_map([], trusted_key_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn trusted_key(tx: &Connection, name: &KeyName) -> Result<Option<TrustedKey>> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM trusted_key WHERE name = ?1"))?;
    Ok(statement.query_row([name.as_str()], trusted_key_row).optional()?)
}

/// Trusts a key. False if a key of that name, or this one under another, is trusted already.
pub fn trusted_key_insert(tx: &Connection, name: &KeyName, public: &PublicKey, now_us: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO trusted_key (name, public, trusted_us) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![name.as_str(), public.bytes(), now_us])?
        > 0)
}

/// Notes the newest bundle that was taken. It only grows.
pub fn trusted_key_set_sequence(tx: &Connection, name: &KeyName, sequence: u64) -> Result<()> {
    tx.prepare_cached("UPDATE trusted_key SET sequence = max(sequence, ?2) WHERE name = ?1")?
        .execute(params![name.as_str(), size_value(sequence)])?;
    Ok(())
}

/// False if there was none.
pub fn trusted_key_delete(tx: &Connection, name: &KeyName) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM trusted_key WHERE name = ?1")?.execute([name.as_str()])? > 0)
}
