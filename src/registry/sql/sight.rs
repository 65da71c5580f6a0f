//! What a user may read, and the lists of names that are made of it.

use rusqlite::{Connection, Params, params};

use crate::error::Result;

/// Namespaces a user (?2) may read all of: owned, owned through `owners`, or granted whole.
pub(super) const NAMESPACES_READ: &str = "SELECT id FROM namespace WHERE owner = ?2
   UNION SELECT g.namespace FROM group_member AS m JOIN org_group AS g ON g.id = m.org_group
     WHERE m.user = ?2 AND g.name = 'owners'
   UNION SELECT n.id FROM access_grant AS a
     JOIN namespace AS n ON n.name = substr(a.pattern, 1, length(a.pattern) - 2)
     WHERE a.pattern LIKE '%/*'
       AND (a.user = ?2 OR a.org_group IN (SELECT org_group FROM group_member WHERE user = ?2))";

/// Patterns that are granted to a user (?2), also through groups.
pub(super) const PATTERNS_READ: &str = "SELECT pattern FROM access_grant
   WHERE (user = ?2 OR org_group IN (SELECT org_group FROM group_member WHERE user = ?2))";

/// Whether a user reads everything: an administrator, or granted `*`.
pub fn reads_all(tx: &Connection, user: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1 AND admin)
               OR EXISTS (SELECT 1 FROM access_grant WHERE pattern = '*' AND
                 (user = ?1 OR org_group IN (SELECT org_group FROM group_member WHERE user = ?1)))",
        )?
        .query_row([user], |row| row.get(0))?)
}

/// Whether a user reads everything in a namespace.
pub fn namespace_reads(tx: &Connection, namespace: i64, user: i64) -> Result<bool> {
    Ok(reads_all(tx, user)?
        || tx
            .prepare_cached(&format!("SELECT ?1 IN ({NAMESPACES_READ})"))?
            .query_row(params![namespace, user], |row| row.get(0))?)
}

/// What a user (0: nobody) may read besides what is public.
pub enum Sight {
    Everything,
    /// Namespaces by id, the user, and the groups they are in.
    Some {
        namespaces: Vec<i64>,
        user: i64,
        groups: Vec<i64>,
    },
}

pub fn sight(tx: &Connection, user: i64) -> Result<Sight> {
    if reads_all(tx, user)? {
        return Ok(Sight::Everything);
    }
    // In the order of the names below them: `a-b/…` comes before `a/…`.
    let namespaces = tx
        .prepare_cached(&format!(
            "SELECT id FROM namespace WHERE id IN ({NAMESPACES_READ}) AND ?1 = ?1 ORDER BY name || '/'"
        ))?
        .query_map(params![0, user], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let groups = tx
        .prepare_cached("SELECT org_group FROM group_member WHERE user = ?1")?
        .query_map([user], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Sight::Some { namespaces, user, groups })
}

// names -----------------------------------------------------------------------

/// Which repositories a list of names has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those that hold an image.
    Holding,
}

/// Names of repositories that may be read, after `last`, in ASCII order.
pub fn names_seen(
    tx: &Connection,
    sight: &Sight,
    which: Which,
    last: &str,
    limit: u32,
) -> Result<Vec<String>> {
    let held = which == Which::Holding;
    // Each statement walks one index, in its order, and none but the last touches a row.
    let Sight::Some { namespaces, user, groups } = sight else {
        let all = match held {
            true => {
                "SELECT name FROM repo INDEXED BY repo_holding WHERE holds = 1 AND name > ?1
                     ORDER BY name LIMIT ?2"
            }
            false => "SELECT name FROM repo WHERE name > ?1 ORDER BY name LIMIT ?2",
        };
        let mut names = Vec::new();
        add(tx, &mut names, all, params![last, limit])?;
        return Ok(names);
    };
    let mut names = Vec::new();
    let public = "SELECT name FROM repo INDEXED BY repo_public
         WHERE private = 0 AND name > ?1 AND holds >= ?3 ORDER BY name LIMIT ?2";
    add(tx, &mut names, public, params![last, limit, held])?;
    let mut left = limit;
    for namespace in namespaces {
        let within = "SELECT name FROM repo WHERE namespace = ?4 AND private = 1 AND name > ?1
               AND holds >= ?3 ORDER BY name LIMIT ?2";
        left -= add(tx, &mut names, within, params![last, left, held, namespace])?;
        if left == 0 {
            break;
        }
    }
    for (holder, id) in std::iter::once(("user", user)).chain(groups.iter().map(|id| ("org_group", id))) {
        let granted = format!(
            "SELECT r.name FROM access_grant AS a CROSS JOIN repo AS r ON r.name = a.pattern
             WHERE a.{holder} = ?4 AND a.pattern > ?1 AND r.private = 1 AND r.holds >= ?3
             ORDER BY a.pattern LIMIT ?2"
        );
        add(tx, &mut names, &granted, params![last, limit, held, id])?;
    }
    names.sort_unstable();
    names.dedup();
    names.truncate(limit as usize);
    Ok(names)
}

/// Adds the names that a statement finds; says how many.
fn add(tx: &Connection, names: &mut Vec<String>, sql: &str, values: impl Params) -> Result<u32> {
    let before = names.len();
    let mut statement = tx.prepare_cached(sql)?;
    for name in statement.query_map(values, |row| row.get(0))? {
        names.push(name?);
    }
    Ok(u32::try_from(names.len() - before).unwrap_or(u32::MAX))
}

// search ----------------------------------------------------------------------

/// Most characters of a search that are looked for in the index; the rest is compared.
const INDEXED_CHARS_MAX: usize = 32;
/// Most namespaces whose marks are asked for. Whoever reads more is shown out of everything
/// that is found.
const MARKS_MAX: usize = 1_000;

/// How many names are looked at for a text that the index does not know.
const SHORT_LOOK: u32 = 10_000;

/// Names of repositories that may be read and that hold a text, or whose descriptions do: up
/// to `most` of them, by name. The text is in lower case.
///
/// One or two characters are looked for in names alone, in the first 10,000.
pub fn names_found(tx: &Connection, sight: &Sight, text: &str, most: u32) -> Result<Vec<String>> {
    if text.is_empty() {
        return names_seen(tx, sight, Which::All, "", most);
    }
    let Some(three) = in_threes(text) else {
        let mut names = names_seen(tx, sight, Which::All, "", SHORT_LOOK)?;
        names.retain(|name| name.contains(text));
        names.truncate(most as usize);
        return Ok(names);
    };
    // What an index entry promises is compared with the row it names.
    const HIT: &str = "(instr(r.name, ?1) OR instr(lower(r.description), ?1))";
    let mut names = Vec::new();
    match sight {
        Sight::Everything => {
            let sql = format!(
                "SELECT r.name FROM repo_words AS w CROSS JOIN repo AS r ON r.id = w.rowid
                 WHERE w.repo_words MATCH ?2 AND {HIT} LIMIT ?3"
            );
            add(tx, &mut names, &sql, params![text, three, most])?;
        }
        Sight::Some { namespaces, user, .. } => {
            let sql = format!(
                "SELECT r.name FROM repo_words AS w CROSS JOIN repo AS r ON r.id = w.rowid
                 WHERE w.repo_words MATCH ?3 AND {HIT}
                   AND (r.private = 0 OR r.namespace IN ({NAMESPACES_READ})) LIMIT ?4"
            );
            let three = match namespaces.len() > MARKS_MAX {
                true => three,
                false => format!("{three} AND ({})", marks(namespaces)),
            };
            add(tx, &mut names, &sql, params![text, user, three, most])?;
            // What was granted one by one has no mark.
            let granted = format!(
                "SELECT r.name FROM repo AS r WHERE r.name IN ({PATTERNS_READ}) AND r.private = 1 AND {HIT} LIMIT ?3"
            );
            add(tx, &mut names, &granted, params![text, user, most])?;
            names.sort_unstable();
            names.dedup();
        }
    }
    names.sort_unstable();
    names.truncate(most as usize);
    Ok(names)
}

/// What the index of words is asked for a text: every three characters that follow each other
/// in it. None if it has no three.
fn in_threes(text: &str) -> Option<String> {
    let letters: Vec<char> = text.chars().take(INDEXED_CHARS_MAX).collect();
    let quoted = |three: &[char]| quote(three.iter().copied());
    let threes: Vec<String> = letters.windows(3).map(quoted).collect();
    (!threes.is_empty()).then(|| threes.join(" AND "))
}

/// The marks that schema.sql puts behind a repository's words, for what is public and for each
/// of these namespaces.
fn marks(namespaces: &[i64]) -> String {
    let private_use = |number: i64| {
        let code = 0xe000 + u32::try_from(number.rem_euclid(4096)).unwrap_or(0);
        char::from_u32(code).unwrap_or('\u{e000}')
    };
    let mut marks = quote(['\u{1}'; 3]);
    for id in namespaces {
        marks.push_str(" OR ");
        marks.push_str(&quote(['\u{1}', private_use(*id), private_use(id / 4096)]));
    }
    marks
}

/// A text of FTS5's query language.
fn quote(letters: impl IntoIterator<Item = char>) -> String {
    let mut quoted = String::from("\"");
    for letter in letters {
        quoted.push(letter);
        if letter == '"' {
            quoted.push('"');
        }
    }
    quoted.push('"');
    quoted
}

// namespace -------------------------------------------------------------------

/// How much of a namespace a user sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Within {
    Whole,
    /// What is public, and what was granted to this user one by one.
    Some(i64),
}

pub fn within(tx: &Connection, namespace: i64, user: i64) -> Result<Within> {
    Ok(match namespace_reads(tx, namespace, user)? {
        true => Within::Whole,
        false => Within::Some(user),
    })
}
