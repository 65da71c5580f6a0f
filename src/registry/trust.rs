//! The keys whose bundles a site takes, and the last bundle of each.

use serde::Serialize;

use super::import::Allow;
use super::{Registry, sql};
use crate::bundle::{KeyName, PublicKey};
use crate::error::{Kind, Result, Thing};

/// Most keys that are trusted.
const KEYS_MAX: usize = 1_000;

/// A key that is trusted here.
#[derive(Debug, Clone, Serialize)]
pub struct TrustedKey {
    pub name: KeyName,
    pub public: PublicKey,
    /// That of the last bundle that was taken; 0 before the first.
    pub sequence: u64,
    pub trusted_us: i64,
}

impl Registry {
    /// Trusts a key under a name; the same key again under the same name changes nothing. `Exists` if the name is another key's, or the key has
    /// another name.
    pub fn key_trust(&self, name: &KeyName, public: PublicKey) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| {
            let keys = sql::trusted_keys(write.tx)?;
            if keys.iter().any(|key| key.name == name && key.public == public) {
                return Ok(());
            }
            if keys.iter().any(|key| key.name == name || key.public == public) {
                return Err(Kind::Exists(Thing::Request).because(
                    "another key of this name, or this key under another name, is trusted already; take that back first",
                ));
            }
            if keys.len() >= KEYS_MAX {
                return Err(Kind::TooLarge(Thing::Request).because("at most 1000 keys are trusted"));
            }
            sql::trusted_key_insert(write.tx, name.as_str(), &public, write.now_us)
        })
    }

    /// Trusts a key no more. `NotFound(Request)` if it was not trusted.
    pub fn key_untrust(&self, name: &KeyName) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| match sql::trusted_key_delete(write.tx, name.as_str())? {
            true => Ok(()),
            false => Err(Kind::NotFound(Thing::Request).because(format!("no key {name} is trusted here"))),
        })
    }

    /// By name.
    pub fn trusted_keys(&self) -> Result<Vec<TrustedKey>> {
        self.db.read(sql::trusted_keys)
    }

    /// What a public key is trusted as, if it is.
    pub fn trusted_key(&self, public: &PublicKey) -> Result<Option<TrustedKey>> {
        Ok(self.trusted_keys()?.into_iter().find(|key| key.public == *public))
    }
}

/// Whether a bundle of this sequence may be taken from this key now.
pub(super) fn check_sequence(key: &TrustedKey, sequence: u64, allow: Allow) -> Result<()> {
    let TrustedKey { name, sequence: last, .. } = key;
    if sequence < *last && !allow.older {
        return Err(Kind::Denied.because(format!(
            "the bundle is number {sequence} of {name}, and number {last} was taken already: it is older; \
             --allow older takes it all the same"
        )));
    }
    if sequence == *last && !allow.replayed {
        return Err(Kind::Denied.because(format!(
            "the bundle is number {sequence} of {name}, which was taken already; \
             --allow replayed takes it once more"
        )));
    }
    Ok(())
}
