//! Rules by which tags and images go without being deleted by anybody: none, unless the
//! configuration has some. Ages are service time, so a wrong clock deletes nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::db::Write;
use super::gc::{Collect, Gone, SLICE, Verdict, weigh};
use super::{Registry, sql};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::Digest;

/// Most manifests that go with one tag: an index, its images and what is about them.
const BELOW_MAX: u32 = 10_000;

/// `REPOSITORIES[:TAGS] keep N`, `… older AGE` or `… untagged AGE`.
///
/// Both patterns are globs: `*` stands for anything, `?` for one character. An AGE is a
/// number with `d`, `h`, `m` or `s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    repos: String,
    tags: String,
    lets_go: LetsGo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetsGo {
    /// Tags beyond the newest so many, with their images.
    Beyond(u32),
    /// Tags pushed longer ago, with their images.
    Older(Duration),
    /// Images that no tag reaches, pushed longer ago.
    Untagged(Duration),
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rule> {
        let wrong = || {
            Kind::Invalid(Thing::Request).because(format!(
                "the retention rule {text:?} is not REPOSITORIES[:TAGS] keep NUMBER, older AGE or untagged AGE, \
                 as in \"ci/*:pr-* older 14d\""
            ))
        };
        let [pattern, word, value] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        let (repos, tags) = pattern.split_once(':').unwrap_or((pattern, "*"));
        let lets_go = match word {
            "keep" => LetsGo::Beyond(value.parse().map_err(|_| wrong())?),
            "older" => LetsGo::Older(age(value).ok_or_else(wrong)?),
            "untagged" if tags == "*" => LetsGo::Untagged(age(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        // Named as clients name them: without a slash it is in the library.
        let repos =
            if repos.contains('/') || repos == "*" { repos.into() } else { format!("library/{repos}") };
        if repos.is_empty() || tags.is_empty() || repos.contains(['[', ']']) || tags.contains(['[', ']']) {
            return Err(wrong());
        }
        Ok(Rule { repos, tags: tags.into(), lets_go })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lets_go {
            LetsGo::Beyond(keep) => write!(f, "{}:{} keep {keep}", self.repos, self.tags),
            LetsGo::Older(age) => write!(f, "{}:{} older {}s", self.repos, self.tags, age.as_secs()),
            LetsGo::Untagged(age) => write!(f, "{} untagged {}s", self.repos, age.as_secs()),
        }
    }
}

/// A number with its unit.
fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_secs = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let secs = number.parse::<u64>().ok()?.checked_mul(unit_secs)?;
    i64::try_from(secs).ok().map(|_| Duration::from_secs(secs))
}

/// What one slice let go, and where the next one begins.
struct Slice {
    gone: Vec<Gone>,
    /// The digest of the last manifest that was weighed; None: this was the last slice.
    next: Option<String>,
}

impl Registry {
    /// Follows one rule, a repository and a slice at a time.
    pub(super) fn retain(&self, rule: &Rule, ask: Collect, note: &mut impl FnMut(&Gone)) -> Result<()> {
        let mut last = String::new();
        loop {
            let repos = self.db.read(|tx| sql::repos_like(tx, &rule.repos, &last, SLICE))?;
            let Some((_, end)) = repos.last() else { return Ok(()) };
            last.clone_from(end);
            for (id, name) in repos {
                self.retain_in(id, &name, rule, ask, note)?;
            }
        }
    }

    fn retain_in(
        &self,
        repo: i64,
        name: &str,
        rule: &Rule,
        ask: Collect,
        note: &mut impl FnMut(&Gone),
    ) -> Result<()> {
        let grace_cut = self.cut_secs(ask.grace);
        let mut at = Some(String::new());
        while let Some(from) = at {
            // Most repositories have nothing to let go, which a look finds out.
            if !self.db.read(|tx| is_due(tx, repo, rule, &from, self.db.service_secs()))? {
                return Ok(());
            }
            let place = Place { repo, name: name.to_owned(), rule: rule.clone() };
            let slice = move |write: &mut Write| place.let_go(write, &from, grace_cut, ask.dry_run);
            let slice = if ask.dry_run { self.db.rehearse(slice) } else { self.db.write(slice) }?;
            slice.gone.iter().for_each(&mut *note);
            at = slice.next;
        }
        Ok(())
    }
}

fn cut(now_secs: i64, age: Duration) -> i64 {
    now_secs.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

/// The tags that a rule lets go.
fn tags_due(
    tx: &rusqlite::Connection,
    repo: i64,
    rule: &Rule,
    now_secs: i64,
    limit: u32,
) -> Result<Vec<sql::Tagged>> {
    match rule.lets_go {
        LetsGo::Beyond(keep) => sql::tags_beyond(tx, repo, &rule.tags, keep, i64::MAX, limit),
        LetsGo::Older(age) => sql::tags_beyond(tx, repo, &rule.tags, 0, cut(now_secs, age), limit),
        LetsGo::Untagged(_) => Ok(Vec::new()),
    }
}

fn is_due(tx: &rusqlite::Connection, repo: i64, rule: &Rule, from: &str, now_secs: i64) -> Result<bool> {
    match rule.lets_go {
        LetsGo::Untagged(age) => {
            let cut = cut(now_secs, age);
            let mut last = from.to_owned();
            loop {
                let aged = sql::manifests_aged(tx, repo, &last, cut, SLICE)?;
                let Some((_, end)) = aged.last() else { return Ok(false) };
                last = end.as_str().to_owned();
                for (id, _) in aged {
                    if !sql::manifest_reached(tx, id, cut)? {
                        return Ok(true);
                    }
                }
            }
        }
        _ => Ok(!tags_due(tx, repo, rule, now_secs, 1)?.is_empty()),
    }
}

/// Where a rule is followed.
struct Place {
    repo: i64,
    name: String,
    rule: Rule,
}

impl Place {
    /// Lets a slice of tags and images go.
    fn let_go(&self, write: &mut Write, from: &str, grace_cut: i64, dry_run: bool) -> Result<Slice> {
        let tx = write.tx;
        let mut slice = Slice { gone: Vec::new(), next: None };
        if let LetsGo::Untagged(age) = self.rule.lets_go {
            let cut = cut(write.service_secs, age);
            let aged = sql::manifests_aged(tx, self.repo, from, cut, SLICE)?;
            slice.next = aged.last().map(|(_, digest)| digest.as_str().to_owned());
            self.images(tx, &aged, cut, grace_cut, dry_run, &mut slice.gone)?;
            return Ok(slice);
        }
        // A rehearsal sees the same tags again each time, so it takes them all at once.
        let limit = if dry_run { BELOW_MAX } else { SLICE };
        let tags = tags_due(tx, self.repo, &self.rule, write.service_secs, limit)?;
        for tag in &tags {
            sql::tag_delete_by_id(tx, tag.id)?;
            let (repo, rule) = (self.name.clone(), self.rule.to_string());
            slice.gone.push(Gone::Tag { repo, tag: tag.name.clone(), rule });
        }
        for tag in &tags {
            let below = sql::manifests_below(tx, tag.manifest, BELOW_MAX)?;
            self.images(tx, &below, grace_cut, grace_cut, dry_run, &mut slice.gone)?;
        }
        slice.next = (!dry_run && tags.len() == limit as usize).then(String::new);
        Ok(slice)
    }

    /// Deletes those that no tag reaches, nor anything pushed after `cut`. A rehearsal
    /// tells of their blobs as well, which a collection would find next.
    fn images(
        &self,
        tx: &rusqlite::Connection,
        images: &[(i64, Digest)],
        cut: i64,
        grace_cut: i64,
        dry_run: bool,
        gone: &mut Vec<Gone>,
    ) -> Result<()> {
        let mut blobs = Vec::new();
        for (id, digest) in images {
            if sql::manifest_reached(tx, *id, cut)? {
                continue;
            }
            if dry_run {
                blobs.extend(sql::edges(tx, *id)?);
            }
            sql::manifest_delete(tx, *id)?;
            let (repo, rule) = (self.name.clone(), self.rule.to_string());
            gone.push(Gone::Image { repo, digest: digest.as_str().to_owned(), rule });
        }
        for blob in blobs {
            let candidate = sql::Candidate { since_secs: 0, blob };
            if let Verdict::Gone(digest, bytes) = weigh(tx, candidate, grace_cut, &|_, _| true)? {
                gone.push(Gone::Blob { digest: digest.as_str().to_owned(), bytes });
            }
        }
        Ok(())
    }
}
