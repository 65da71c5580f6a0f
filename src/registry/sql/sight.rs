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

/// What a user may read besides what is public.
pub enum Sight {
    Everything,
    Some {
        user: i64,
        /// Namespaces with something private in them, each with what names below it begin with,
        /// in the order of these names.
        namespaces: Vec<(i64, String)>,
        /// Groups of the user that something was granted to.
        groups: Vec<i64>,
    },
}

pub fn sight(tx: &Connection, user: i64) -> Result<Sight> {
    if reads_all(tx, user)? {
        return Ok(Sight::Everything);
    }
    let namespaces = tx
        .prepare_cached(&format!(
            "SELECT id, name || '/' FROM namespace WHERE id IN ({NAMESPACES_READ}) AND repos > repos_public + ?1
             ORDER BY name || '/'"
        ))?
        .query_map(params![0, user], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let groups = tx
        .prepare_cached(
            "SELECT org_group FROM group_member AS m WHERE user = ?1
               AND EXISTS (SELECT 1 FROM access_grant WHERE org_group = m.org_group)",
        )?
        .query_map([user], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Sight::Some { user, namespaces, groups })
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
    let mut names = Names { tx, limit, list: Vec::new(), holding: "" };
    names.look(sight, which, last)?;
    Ok(names.in_order())
}

/// Names as they are found, of those that hold a text.
struct Names<'a> {
    tx: &'a Connection,
    /// Most rows that one statement looks at.
    limit: u32,
    list: Vec<String>,
    holding: &'a str,
}

impl Names<'_> {
    /// Adds what a statement finds, and says how many rows it has looked at.
    fn add(&mut self, sql: &str, values: impl Params) -> Result<u32> {
        let mut looked = 0;
        let mut statement = self.tx.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            looked += 1;
            let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if name.contains(self.holding) {
                self.list.push(name.to_owned());
            }
        }
        Ok(looked)
    }

    /// Adds names after `last`. Each statement walks one index, in its order; none but that of
    /// grants touches a row.
    fn look(&mut self, sight: &Sight, which: Which, last: &str) -> Result<()> {
        let (held, limit) = (which == Which::Holding, self.limit);
        let Sight::Some { user, namespaces, groups } = sight else {
            let all = match held {
                true => {
                    "SELECT name FROM repo INDEXED BY repo_holding WHERE holds = 1 AND name > ?1
                         ORDER BY name LIMIT ?2"
                }
                false => "SELECT name FROM repo WHERE name > ?1 ORDER BY name LIMIT ?2",
            };
            self.add(all, params![last, limit])?;
            return Ok(());
        };
        let public = "SELECT name FROM repo INDEXED BY repo_public
             WHERE private = 0 AND name > ?1 AND holds >= ?3 ORDER BY name LIMIT ?2";
        self.add(public, params![last, limit, held])?;
        let mut left = limit;
        for (namespace, begin) in namespaces {
            if last > begin.as_str() && !last.starts_with(begin) {
                continue;
            }
            let within = "SELECT name FROM repo WHERE namespace = ?4 AND private = 1 AND name > ?1
                   AND holds >= ?3 ORDER BY name LIMIT ?2";
            left -= self.add(within, params![last, left, held, namespace])?;
            if left == 0 {
                break;
            }
        }
        let granted = |holder: &str| {
            format!(
                "SELECT r.name FROM access_grant AS a CROSS JOIN repo AS r ON r.name = a.pattern
                 WHERE a.{holder} = ?4 AND a.pattern > ?1 AND r.private = 1 AND r.holds >= ?3
                 ORDER BY a.pattern LIMIT ?2"
            )
        };
        self.add(&granted("user"), params![last, limit, held, user])?;
        for group in groups {
            self.add(&granted("org_group"), params![last, limit, held, group])?;
        }
        Ok(())
    }

    /// The first of them, each once.
    fn in_order(mut self) -> Vec<String> {
        self.list.sort_unstable();
        self.list.dedup();
        self.list.truncate(self.limit as usize);
        self.list
    }
}

// search ----------------------------------------------------------------------

/// Most characters of a search that are looked for in the index; the rest is compared.
const INDEXED_CHARS_MAX: usize = 32;
/// How many times what is shown may be looked at row by row, before the index is asked for less.
const LOOKED_TIMES: u32 = 3;
/// Most namespaces whose private repositories are found among too many to show.
const MARKS_MAX: usize = 256;
/// How many names are looked at for a text that is too short for the index, in each place.
const SHORT_LOOK: u32 = 5_000;

/// Names of repositories that may be read and that hold a text, or whose descriptions do: up
/// to `most` of them, by name. The text is in lower case.
///
/// One or two characters are looked for in names alone, in the first thousands.
pub fn names_found(tx: &Connection, sight: &Sight, text: &str, most: u32) -> Result<Vec<String>> {
    if text.is_empty() {
        return names_seen(tx, sight, Which::All, "", most);
    }
    let mut names = Names { tx, limit: most, list: Vec::new(), holding: "" };
    let Some(three) = in_threes(text) else {
        names = Names { limit: SHORT_LOOK, holding: text, ..names };
        names.look(sight, Which::All, "")?;
        return Ok(Names { limit: most, ..names }.in_order());
    };
    // What an index entry promises is compared with the row it names.
    const HIT: &str = "(instr(r.name, ?1) OR instr(lower(r.description), ?1))";
    let from = "SELECT r.name FROM repo_words AS w CROSS JOIN repo AS r ON r.id = w.rowid";
    let Sight::Some { user, namespaces, .. } = sight else {
        names.add(
            &format!("{from} WHERE w.repo_words MATCH ?2 AND {HIT} LIMIT ?3"),
            params![text, three, most],
        )?;
        return Ok(names.in_order());
    };
    // Where many are found, the index leaves out what this user may not read; to ask it for
    // all their namespaces costs as much as to look at a thousand rows.
    let looked = most.saturating_mul(LOOKED_TIMES);
    let few = tx
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM repo_words WHERE repo_words MATCH ?1 LIMIT ?2)")?
        .query_row(params![three, looked], |row| row.get::<_, u32>(0))?
        < looked;
    let asked = if few { three } else { format!("{three} AND ({})", marks(namespaces)) };
    let readable = format!("r.private = 0 OR r.namespace IN ({NAMESPACES_READ})");
    match few {
        true => {
            let sql = format!(
                "{from} WHERE w.repo_words MATCH ?3 AND {HIT} AND ({readable} OR r.name IN ({PATTERNS_READ})) LIMIT ?4"
            );
            names.add(&sql, params![text, user, asked, most])?;
        }
        false => {
            let sql = format!("{from} WHERE w.repo_words MATCH ?3 AND {HIT} AND ({readable}) LIMIT ?4");
            // What was granted one by one has no mark.
            let granted = format!(
                "SELECT r.name FROM repo AS r WHERE r.name IN ({PATTERNS_READ}) AND r.private = 1 AND {HIT} LIMIT ?3"
            );
            let left = most - names.add(&sql, params![text, user, asked, most])?;
            if left > 0 {
                names.add(&granted, params![text, user, left])?;
            }
        }
    }
    Ok(names.in_order())
}

/// What the index of words is asked for a text: three characters each that follow each other
/// in it, side by side. None if it has no three.
fn in_threes(text: &str) -> Option<String> {
    let letters: Vec<char> = text.chars().take(INDEXED_CHARS_MAX).collect();
    let last = letters.len().checked_sub(3)?;
    let quoted = |at: usize| quote(&letters[at..at + 3]);
    let threes: Vec<String> = (0..last).step_by(3).chain([last]).map(quoted).collect();
    Some(threes.join(" AND "))
}

/// The marks that schema.sql puts behind a repository's words, for what is public and for
/// these namespaces.
fn marks(namespaces: &[(i64, String)]) -> String {
    let private_use = |number: i64| {
        let code = 0xe000 + u32::try_from(number.rem_euclid(4096)).unwrap_or(0);
        char::from_u32(code).unwrap_or('\u{e000}')
    };
    let mut marks = quote(&['\u{1}'; 3]);
    for (id, _) in namespaces.iter().take(MARKS_MAX) {
        marks.push_str(" OR ");
        marks.push_str(&quote(&['\u{1}', private_use(*id), private_use(id / 4096)]));
    }
    marks
}

/// A text of FTS5's query language.
fn quote(letters: &[char]) -> String {
    let text: String = letters.iter().collect();
    format!("\"{}\"", text.replace('"', "\"\""))
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
