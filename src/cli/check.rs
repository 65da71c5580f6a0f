//! `outport check`

use clap::Args;
use serde_json::json;

use super::Common;
use crate::error::{Kind, Result, Thing};
use crate::registry::Registry;

/// Most lines of what is wanted.
const WANTED_MAX: u32 = 1_000;

/// Say whether all is well, and what to push or import again
#[derive(Debug, Clone, Args)]
pub struct Check {}

impl Check {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        check_database(&registry)?;
        let wanted = registry.wanted(WANTED_MAX)?;
        for row in &wanted {
            common.say(row, || {
                let images = if row.images.is_empty() { "nothing".to_owned() } else { row.images.join(", ") };
                format!("wanted: {} {} ({} bytes), for {images}", row.what, row.digest, row.bytes)
            });
        }
        if !wanted.is_empty() {
            return Err(Kind::NotFound(Thing::Blob)
                .because("push or import these images again; what they bring heals the store"));
        }
        common.say(&json!({"ok": true}), || "Nothing is out of service.".to_owned());
        Ok(())
    }
}

/// Reads every page of the database; fails, saying what to do, if one is not as it was written.
pub fn check_database(registry: &Registry) -> Result<()> {
    /// Pages read at once, 4 KiB each.
    const PAGES: u32 = 1_000;
    let (mut from, mut wrong) = (Some(1), 0);
    while let Some(page) = from {
        let checked = registry.check_pages(page, PAGES)?;
        wrong += checked.wrong.len();
        from = checked.next;
    }
    match wrong {
        0 => Ok(()),
        _ => Err(Kind::Unavailable.because(format!(
            "{wrong} pages of the database are damaged, and requests that need them fail; stop the server, \
             then restore a backup into a new directory, or run `outport rebuild`"
        ))),
    }
}
