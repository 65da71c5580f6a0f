//! What a site has, for somebody who packs a bundle for it.
//!
//! A million blobs shall fit into a mail. Digests are random, so nothing compresses them: whole
//! ones take 32 MB however they are written. Eight bytes of each are enough to tell which are
//! there: that a blob is taken for another has a chance of one in ten billion in a store of a
//! million, and then the site says what it lacks, for it looks at whole digests before it
//! begins. Sorted, only the steps between them are written, 7 bits a byte: 7 bytes a blob,
//! and 9.3 MB for a million as base64 within JSON, with the hash of what is encoded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::invalid;
use crate::error::{Kind, Result};
use crate::hash::digest_of;
use crate::manifest::Object;
use crate::names::{Algorithm, Digest};

/// Version of the file that this program writes and reads.
const VERSION: u32 = 1;
/// Longest inventory, in bytes: seven million blobs.
pub const INVENTORY_BYTES_MAX: usize = 64 << 20;
/// Letters of hex that tell one digest from another: 64 bits.
const HEX: usize = 16;

/// A set of digests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Inventory(Vec<u64>);

#[derive(Serialize, Deserialize)]
struct File<'a> {
    outport_inventory: u32,
    blobs: u64,
    /// SHA-256 of the text that follows.
    checksum: Digest,
    #[serde(borrow)]
    digests: std::borrow::Cow<'a, str>,
}

fn short(digest: &Digest) -> u64 {
    // A digest's hex was checked when it was parsed.
    u64::from_str_radix(&digest.hex()[..HEX], 16).unwrap_or_default()
}

impl Inventory {
    /// Of pages of digests, until `page` gives none.
    pub fn of_pages(mut page: impl FnMut() -> Result<Vec<Digest>>) -> Result<Inventory> {
        let mut all = Vec::new();
        loop {
            let digests = page()?;
            if digests.is_empty() {
                break;
            }
            all.extend(digests.iter().map(short));
        }
        all.sort_unstable();
        all.dedup();
        Ok(Inventory(all))
    }

    pub fn has(&self, digest: &Digest) -> bool {
        self.0.binary_search(&short(digest)).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let (mut steps, mut last) = (Vec::with_capacity(self.0.len() * 7), 0);
        for short in &self.0 {
            push_number(&mut steps, short - last);
            last = *short;
        }
        let digests = BASE64.encode(&steps);
        drop(steps);
        let file = File {
            outport_inventory: VERSION,
            blobs: self.0.len() as u64,
            checksum: digest_of(Algorithm::Sha256, digests.as_bytes()),
            digests: digests.into(),
        };
        serde_json::to_vec(&file).map_err(|error| Kind::Internal.from_cause(error))
    }

    /// Reads an inventory. Fails with `Invalid` for what is none, or was changed on its way.
    pub fn read(bytes: &[u8]) -> Result<Inventory> {
        let damaged = || invalid("the inventory is damaged; copy it again, or make a new one at the site");
        if bytes.len() > INVENTORY_BYTES_MAX {
            return Err(invalid("an inventory has at most 64 MiB; make one of a selection"));
        }
        let Object::<File>(file) = serde_json::from_slice(bytes).map_err(|error| {
            invalid(format!("this is no inventory that `outport inventory` wrote: {error}"))
        })?;
        if file.outport_inventory != VERSION {
            return Err(invalid("the inventory was made by a newer Outport; read it with that version"));
        }
        if digest_of(Algorithm::Sha256, file.digests.as_bytes()) != file.checksum {
            return Err(damaged());
        }
        let steps = BASE64.decode(file.digests.as_bytes()).map_err(|_| damaged())?;
        let mut all: Vec<u64> = Vec::with_capacity(steps.len() / 7);
        let mut rest = &steps[..];
        while !rest.is_empty() {
            let step = take_number(&mut rest).ok_or_else(damaged)?;
            let next = all.last().map_or(Some(step), |last| last.checked_add(step).filter(|_| step > 0));
            all.push(next.ok_or_else(damaged)?);
        }
        match all.len() as u64 == file.blobs {
            true => Ok(Inventory(all)),
            false => Err(damaged()),
        }
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn push_number(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push((number & 0x7f) as u8);
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in (0..u64::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & 0x7f);
        // Too large, or longer than it need be: a set is written in one way.
        if bits << place >> place != bits || (*byte == 0 && place > 0) {
            return None;
        }
        number |= bits << place;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u64) -> Digest {
        digest_of(Algorithm::Sha256, &n.to_le_bytes())
    }

    fn of(digests: impl Iterator<Item = Digest>) -> Inventory {
        let mut pages = vec![digests.collect()];
        Inventory::of_pages(|| Ok(pages.pop().unwrap_or_default())).expect("is made")
    }

    #[test]
    fn an_inventory_has_what_it_was_made_of_and_nothing_else() {
        let digests = || (0..10_000).map(digest);
        let inventory = of(digests().chain(digests()));
        let bytes = inventory.bytes().expect("writes");
        let read = Inventory::read(&bytes).expect("reads");
        assert_eq!(read, inventory);
        assert_eq!(read.len(), 10_000);
        assert!(digests().all(|digest| read.has(&digest)));
        assert!(!(10_000..20_000).any(|n| read.has(&digest(n))));
        let reversed = of((0..10_000).rev().map(digest));
        assert_eq!(reversed.bytes().expect("writes"), bytes, "in whatever order they come");
    }

    #[test]
    fn a_million_blobs_take_less_than_ten_megabytes() {
        // Steps as random digests have them, without the time to hash a million.
        let mut at = 0x9e37_79b9_7f4a_7c15_u64;
        let mut all: Vec<u64> = (0..1_000_000)
            .map(|_| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                at
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        let bytes = Inventory(all).bytes().expect("writes");
        assert!(bytes.len() < 10_000_000, "{}", bytes.len());
        assert_eq!(Inventory::read(&bytes).expect("reads").bytes().expect("writes"), bytes);
    }

    #[test]
    fn what_is_no_inventory_or_was_changed_is_refused() {
        let inventory = of((0..100).map(digest));
        let bytes = inventory.bytes().expect("writes");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Inventory::read(&flipped).is_err(), "byte {at}");
            assert!(Inventory::read(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Inventory::read(&Inventory::default().bytes().expect("writes")).expect("reads").len(), 0);
        let made = |steps: &[u8], blobs: u64| {
            let digests = BASE64.encode(steps);
            let checksum = digest_of(Algorithm::Sha256, digests.as_bytes());
            serde_json::to_vec(&File { outport_inventory: 1, blobs, checksum, digests: digests.into() })
                .expect("writes")
        };
        assert!(Inventory::read(&made(&[1, 1], 2)).is_ok());
        for (steps, blobs) in
            [(&[1u8, 0][..], 2), (&[1], 2), (&[0x80], 1), (&[0x80, 0], 1), (&[0xff; 11], 1), (&[0xff; 10], 1)]
        {
            assert!(Inventory::read(&made(steps, blobs)).is_err(), "{steps:?}");
        }
    }
}
