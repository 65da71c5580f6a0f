//! What verbs print: sentences for people, or JSON for scripts.

use serde::Serialize;
use serde_json::Value;
use std::io::{ErrorKind, Write};

use super::Common;
use crate::error::{Kind, Result, Thing};
use crate::http::rfc3339;
use crate::names::{Digest, RepoName};
use crate::registry::Registry;

/// Rows that a list reads at a time.
pub const PAGE: u32 = 1_000;
/// Letters of a digest that tell it from others, for people.
const SHORT_HEX: usize = 12;
/// Names that a line shows of many.
const NAMED_MAX: usize = 5;

impl Common {
    /// Prints a result: a sentence for people, or JSON.
    pub fn say(&self, json: &impl Serialize, sentence: impl FnOnce() -> String) {
        let text = match self.json {
            // Our own types serialise.
            true => serde_json::to_string(json).unwrap_or_default(),
            false => plain(&sentence()),
        };
        if let Err(error) = writeln!(std::io::stdout().lock(), "{text}") {
            // What was asked is done. Whoever reads this may have had enough, as `head` has.
            let enough = error.kind() == ErrorKind::BrokenPipe;
            if !enough {
                let _ = writeln!(std::io::stderr(), "outport: the result cannot be printed: {error}");
            }
            std::process::exit(i32::from(!enough));
        }
    }

    /// Prints a list of any length a page at a time: a line, or an object of JSON, for each.
    /// `page` reads what comes after a row.
    pub fn each<T>(
        &self,
        mut page: impl FnMut(Option<&T>) -> Result<Vec<T>>,
        json: impl Fn(&T) -> Value,
        line: impl Fn(&T) -> String,
    ) -> Result<()> {
        let mut last = None;
        loop {
            let mut rows = page(last.as_ref())?;
            for row in &rows {
                self.say(&json(row), || line(row));
            }
            last = rows.pop();
            if last.is_none() {
                return Ok(());
            }
        }
    }
}

/// A row that is shown as it is.
pub fn whole(row: &impl Serialize) -> Value {
    serde_json::to_value(row).unwrap_or_default()
}

/// A title, and below it what is known of it, a word and a text each; empty texts are left out.
pub fn card(title: &str, rows: &[(&str, String)]) -> String {
    let known = rows.iter().filter(|(_, text)| !text.is_empty());
    known.fold(title.to_owned(), |card, (word, text)| format!("{card}\n  {word:<12} {text}"))
}

/// A digest's first letters.
pub fn short(digest: &Digest) -> String {
    digest.as_str().chars().take(digest.algorithm().name().len() + 1 + SHORT_HEX).collect()
}

/// Microseconds since 1970, to the second.
pub fn when(us: i64) -> String {
    rfc3339(us.div_euclid(1_000_000))
}

/// When, and by whom if that is known.
pub fn when_by(us: i64, by: Option<&str>) -> String {
    by.map_or_else(|| when(us), |name| format!("{} by {name}", when(us)))
}

/// Some of so many names.
pub fn some(names: &[String], count: u64) -> String {
    let shown = names.len().min(NAMED_MAX);
    let more = match count.saturating_sub(shown as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names[..shown].join(", "))
}

/// When bytes come back that nothing needs any longer.
pub fn comes_back(bytes: u64, registry: &Registry) -> String {
    let grace_secs = registry.options().grace.as_secs();
    match bytes {
        0 => "No space comes back: others need all of it.".into(),
        bytes => format!(
            "{bytes} bytes come back with the next collection, by itself or by `outport gc`, \
             once they are {grace_secs} seconds old."
        ),
    }
}

/// An outcome that says what to do where something is not there.
pub fn found<T>(outcome: Result<T>, repo: &RepoName) -> Result<T> {
    outcome.map_err(|error| match error.kind {
        Kind::NotFound(Thing::Repo) => error.kind.because(format!(
            "there is no repository {}; `outport repo list` shows what there is",
            repo.full()
        )),
        Kind::NotFound(Thing::Manifest) => error
            .kind
            .because(format!("there is no such image; `outport image list {repo}` shows what there is")),
        Kind::NotFound(Thing::Tag) => {
            error.kind.because(format!("there is no such tag; `outport tag list {repo}` shows what there is"))
        }
        _ => error,
    })
}

/// What users wrote, in a description or a label, shall not command the terminal of whoever
/// administers.
fn plain(text: &str) -> String {
    let keep = |c: &char| *c == '\n' || !c.is_control();
    text.chars().map(|c| if keep(&c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_commands_no_terminal() {
        assert_eq!(plain("a\x1b[2J\r\u{9b}b\nc"), "a\u{fffd}[2J\u{fffd}\u{fffd}b\nc");
    }

    #[test]
    fn a_list_goes_on_where_its_page_ended_and_ends_where_there_is_no_more() {
        let common = Common { data: None, config: None, json: true };
        let mut asked = Vec::new();
        let page = |last: Option<&u32>| {
            asked.push(last.copied());
            let first = last.map_or(0, |last| last + 1);
            Ok((first..5).take(2).collect())
        };
        common.each(page, whole, u32::to_string).expect("lists");
        assert_eq!(asked, [None, Some(1), Some(3), Some(4)]);
    }
}
