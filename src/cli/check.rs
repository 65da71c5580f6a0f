//! `outport check`

use clap::Args;
use serde_json::json;

use super::Common;
use crate::error::{Kind, Result, Thing};

/// Most lines of what is wanted.
const WANTED_MAX: u32 = 1_000;

/// Say whether all is well, and what to push or import again
#[derive(Debug, Clone, Args)]
pub struct Check {}

impl Check {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
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
