//! `outport key …`: who signs bundles, and whose are taken.

use clap::Subcommand;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use super::Common;
use super::print::{when, whole};
use crate::bundle::{KeyName, PublicKey};
use crate::error::{Kind, Result, Thing};
use crate::registry::{KeyFile, TrustedKey};

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a key that signs bundles; its name is the sender's
    New {
        name: String,
        /// Where to keep it, on a machine without a registry [default: keys/NAME.key of the data directory]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Show the keys that sign here, and those whose bundles are taken
    List {
        /// One that is kept elsewhere, on a machine without a registry
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Take bundles that this key signed
    Trust {
        name: String,
        /// As `outport key list` shows it at the sender's
        public: String,
    },
    /// Take them no longer
    Remove {
        name: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl KeyVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        match self {
            KeyVerb::New { name, key } => {
                let name = KeyName::parse(&name)?;
                let path = match key {
                    Some(path) => path,
                    None => kept(&common.open()?.keys_dir(), &name),
                };
                let made = KeyFile::create(&path, &name)?;
                common.say(&shown(&made)?, || {
                    let public = made.key.public();
                    format!(
                        "Made {}: whoever has it signs as {name}. Where its bundles shall be taken, say\n\
                         outport key trust {name} {public}",
                        path.display()
                    )
                });
            }
            KeyVerb::List { key: Some(path) } => {
                let file = KeyFile::open(&path)?;
                common.say(&shown(&file)?, || line(&file));
            }
            KeyVerb::List { key: None } => {
                let registry = common.open()?;
                for file in KeyFile::all(&registry.keys_dir())? {
                    common.say(&shown(&file)?, || line(&file));
                }
                for key in registry.trusted_keys()? {
                    let TrustedKey { name, public, sequence, trusted_us } = &key;
                    let mut json = whole(&key);
                    json["trusted"] = true.into();
                    common.say(&json, || {
                        format!("taken  {name:<24} {public} last {sequence}, trusted {}", when(*trusted_us))
                    });
                }
            }
            KeyVerb::Trust { name, public } => {
                let (name, public) = (KeyName::parse(&name)?, PublicKey::parse(&public)?);
                common.open()?.key_trust(&name, public)?;
                common.say(&json!({"trusted": name, "public": public}), || {
                    format!("Bundles that {name} signed are taken here.")
                });
            }
            KeyVerb::Remove { name, dry_run } => {
                let (name, registry) = (KeyName::parse(&name)?, common.open()?);
                let Some(key) = registry.trusted_keys()?.into_iter().find(|key| key.name == name) else {
                    return Err(Kind::NotFound(Thing::Request)
                        .because(format!("no key is trusted as {name}; `outport key list` shows them")));
                };
                if !dry_run {
                    registry.key_untrust(&name)?;
                }
                common.say(&json!({"removed": key, "dry_run": dry_run}), || match dry_run {
                    true => format!("Bundles that {name} signed would be taken no longer."),
                    false => format!("Bundles that {name} signed are taken no longer."),
                });
            }
        }
        Ok(())
    }
}

/// Where a key of a data directory is.
fn kept(dir: &Path, name: &KeyName) -> PathBuf {
    dir.join(format!("{name}.key"))
}

/// A key to sign with: a name, for one of the data directory, or a file, for which nobody needs
/// a data directory.
pub fn key_to_sign(dir: impl FnOnce() -> Result<PathBuf>, text: &str) -> Result<KeyFile> {
    let path = Path::new(text);
    match KeyName::parse(text) {
        Ok(name) if !path.exists() => KeyFile::open(&kept(&dir()?, &name)),
        _ => KeyFile::open(path),
    }
}

fn shown(file: &KeyFile) -> Result<Value> {
    let (name, public) = (&file.key.name, file.key.public());
    Ok(json!({"name": name, "public": public, "file": file.path(), "sequence": file.last()?, "signs": true}))
}

fn line(file: &KeyFile) -> String {
    let last = file.last().map_or_else(|_| "unknown".to_owned(), |last| last.to_string());
    format!("signs  {:<24} {} last {last}", file.key.name, file.key.public())
}
