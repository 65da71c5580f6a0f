//! `outport gc`

use clap::Args;
use std::time::{Duration, Instant};

use super::Common;
use crate::error::{Kind, Result};
use crate::registry::{Collect, Collected, Gone, Registry};

/// How long a server that was asked to collect may take.
const ANSWER_MAX: Duration = Duration::from_secs(3_600);
/// How often its answer is looked for.
const ANSWER_EVERY: Duration = Duration::from_millis(100);

/// Remove what no image relies on, and what retention lets go; safe beside pushes
#[derive(Debug, Args)]
pub struct Gc {
    /// Keep what was pushed, mounted or asked for within so many seconds [default: gc.grace_secs]
    #[arg(long, value_name = "SECS")]
    grace: Option<u64>,
    /// Say what would go and why, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        let grace = self.grace.map_or(registry.options().grace, Duration::from_secs);
        let ask = Collect { grace, dry_run: self.dry_run };
        // A rehearsal may pass over what the server's clients were told of; a collection not.
        let ticket = if self.dry_run { None } else { registry.collect_ask(grace)? };
        let collected = match ticket {
            None if self.dry_run => registry.collect(ask, |gone| tell(common, gone))?,
            None => registry.collect(ask, |_| {})?,
            Some(ticket) => {
                let asked = Instant::now();
                loop {
                    if let Some(collected) = registry.collect_answer(&ticket)? {
                        break collected;
                    }
                    if asked.elapsed() > ANSWER_MAX {
                        return Err(Kind::Unavailable
                            .because("the server has not collected yet; it goes on, and its log says when"));
                    }
                    std::thread::sleep(ANSWER_EVERY);
                }
            }
        };
        common.say(&collected, || sentence(&collected, self.dry_run, &registry));
        Ok(())
    }
}

fn tell(common: &Common, gone: &Gone) {
    common.say(gone, || match gone {
        Gone::Tag { repo, tag, rule } => format!("tag   {repo}:{tag}  ({rule})"),
        Gone::Image { repo, digest, rule } => format!("image {repo}@{digest}  ({rule})"),
        Gone::Blob { digest, bytes } => format!("blob  {digest}  {bytes} bytes"),
    });
}

fn sentence(collected: &Collected, dry_run: bool, registry: &Registry) -> String {
    let Collected { tags, images, blobs, bytes, leased } = collected;
    let done = if dry_run { "Would remove" } else { "Removed" };
    let mut text = format!("{done} {blobs} blobs of {bytes} bytes, {images} images and {tags} tags.");
    if *leased > 0 {
        text += &format!(" {leased} more stay for now: clients asked for them.");
    }
    if registry.options().retention.is_empty() && *images + *tags == 0 {
        text += " No retention is configured: images go when they are deleted.";
    }
    text
}
