//! `outport config …`

use clap::Subcommand;
use serde_json::json;

use super::Common;
use crate::error::Result;

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print the effective configuration, each key with its reason and default
    Show,
    /// Say whether the configuration is good
    Check,
}

impl ConfigVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        match self {
            ConfigVerb::Show => {
                let text = config.show();
                common.say(&json!({"toml": text}), || text.trim_end().to_owned());
            }
            ConfigVerb::Check => {
                config.check()?;
                super::registry_options(&config)?;
                common.say(&json!({"ok": true}), || "The configuration is good.".to_owned());
            }
        }
        Ok(())
    }
}
