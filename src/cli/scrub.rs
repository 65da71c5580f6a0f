//! `outport scrub`

use clap::Args;
use serde_json::json;

use super::Common;
use super::progress::Progress;
use crate::error::{Kind, Result, Thing};
use crate::registry::Read;

/// Read everything again and compare digests; what is wrong goes out of service
#[derive(Debug, Clone, Args)]
pub struct Scrub {
    /// Begin anew instead of where the last scrub stopped
    #[arg(long)]
    from_start: bool,
}

impl Scrub {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        if self.from_start {
            registry.scrub_from_start();
        }
        let all = registry.scrub_bytes()?;
        let (mut progress, mut done) = (Progress::default(), 0);
        let scrubbed = registry.scrub(|read| {
            done += read.bytes();
            progress.show(done, all);
            if let Read::Blob { digest, good: false, .. } | Read::Manifest { digest, good: false, .. } = read
            {
                progress.clear();
                common.say(&json!({"bad": digest.as_str()}), || format!("bad: {digest}"));
            }
            true
        })?;
        progress.clear();
        common.say(&scrubbed, || {
            format!(
                "Read {} blobs and {} manifests, {} bytes; {} were wrong.",
                scrubbed.blobs, scrubbed.manifests, scrubbed.bytes, scrubbed.bad
            )
        });
        if scrubbed.bad > 0 {
            return Err(Kind::NotFound(Thing::Blob).because(
                "some of the store is damaged; `outport check` lists what to push or import again",
            ));
        }
        Ok(())
    }
}
