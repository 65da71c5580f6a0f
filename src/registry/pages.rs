//! Long lists, a page at a time: by number near their beginning, and from a mark anywhere.

use std::fmt;

use crate::error::{Kind, Result, Thing};

/// How far page numbers reach, in rows, and how many rows a filter looks at for one page.
/// What lies further is reached from page to page, by marks. Walking past a row costs 40 ns,
/// looking at its name 150 (x86).
pub const REACH: u64 = 10_000;

/// A stretch of a list.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub skip: u64,
    pub take: u32,
}

impl Slice {
    /// This stretch of a list that is at hand.
    pub(super) fn of<T>(self, list: &[T]) -> &[T] {
        let start = usize::try_from(self.skip).unwrap_or(usize::MAX).min(list.len());
        let end = start.saturating_add(self.take as usize).min(list.len());
        &list[start..end]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Newest,
    Oldest,
    Name,
    NameDown,
}

/// A row's place in a list: by its time, its name, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Microseconds since 1970.
    pub us: i64,
    pub name: String,
}

impl Mark {
    /// Reads back what was shown. None if it was not one.
    pub fn parse(text: &str) -> Option<Mark> {
        let (us, name) = text.split_once('.')?;
        Some(Mark { us: us.parse().ok()?, name: name.to_owned() })
    }

    /// Moves here, without another allocation.
    fn set(&mut self, us: i64, name: &str) {
        self.us = us;
        self.name.clear();
        self.name.push_str(name);
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.us, self.name)
    }
}

/// Which rows of a list somebody wants.
#[derive(Debug)]
pub struct Wish {
    /// Those whose names hold this, in whatever case.
    pub needle: String,
    pub order: Order,
    /// The page. Where it begins at a mark, `skip` says what its number is.
    pub slice: Slice,
    pub after: Option<Mark>,
}

/// What comes after a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    End,
    /// The page of the next number.
    Page,
    /// The page of the next number, which begins here: numbers alone do not reach it.
    After(Mark),
}

/// A stretch of a list, and how long the whole list is: at least so long, where a filter did
/// not look at all of it.
#[derive(Debug)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    pub count: u64,
    pub next: Next,
}

impl<T> Listed<T> {
    /// A page of a list that is short enough to be counted and skipped through.
    pub(super) fn of(rows: Vec<T>, count: u64, slice: Slice) -> Listed<T> {
        let more = slice.skip.saturating_add(slice.take.into()) < count;
        Listed { rows, count, next: if more { Next::Page } else { Next::End } }
    }

    /// The same stretch, with other rows in place of these.
    pub(super) fn with<U>(self, rows: Vec<U>) -> Listed<U> {
        Listed { rows, count: self.count, next: self.next }
    }
}

/// A row on a walk through a list, in its order.
pub(super) struct Step<'a> {
    pub id: i64,
    pub us: i64,
    pub name: &'a str,
}

/// Where a walk begins, and how far it goes at the most.
pub(super) struct Walk<'a> {
    pub order: Order,
    pub after: Option<&'a Mark>,
    pub skip: u64,
    pub take: u64,
}

impl Wish {
    /// The first rows by name, whatever they are called.
    pub(super) fn by_name(slice: Slice, after: Option<Mark>) -> Wish {
        Wish { needle: String::new(), order: Order::Name, slice, after }
    }

    /// The ids of the rows of this page, by one walk through a list of `all` rows. Names are
    /// compared from their byte `from` on.
    ///
    /// `Invalid(Page)` where there are rows that the page's number does not reach.
    pub(super) fn find(
        &self,
        all: u64,
        from: usize,
        walk: impl FnOnce(Walk, &mut dyn FnMut(Step) -> bool) -> Result<()>,
    ) -> Result<Listed<i64>> {
        let Slice { skip, take } = self.slice;
        let (long, take) = (all > REACH, u64::from(take));
        if long && self.after.is_none() && skip < all && skip.saturating_add(take) > REACH {
            return Err(Kind::Invalid(Thing::Page)
                .because("page numbers reach the first 10000 rows; follow the address of the next page"));
        }
        let filtered = !self.needle.is_empty();
        let needle = self.needle.to_ascii_lowercase();
        // Where names are not looked at, the database skips what comes before the page.
        let before = if self.after.is_some() { 0 } else { skip };
        // One row more says whether there is one.
        let (unwanted, walked) = match filtered {
            true => (before, Walk { skip: 0, take: REACH + 1, ..self.start() }),
            false => (0, Walk { skip: before, take: take + 1, ..self.start() }),
        };
        let mut ids = Vec::new();
        let (mut looked, mut hits, mut more) = (0, 0, false);
        let (mut place, mut end) = (Mark::default(), Mark::default());
        walk(walked, &mut |step| {
            looked += 1;
            if filtered && looked > REACH {
                return false;
            }
            place.set(step.us, step.name);
            if filtered && !holds(&step.name[from..], &needle) {
                return true;
            }
            hits += 1;
            if hits <= unwanted {
                return true;
            }
            if (ids.len() as u64) < take {
                ids.push(step.id);
                end.set(step.us, step.name);
                return true;
            }
            more = true;
            // Of a list that is short enough the rest is counted.
            filtered && !long
        })?;
        let shown = ids.len() as u64;
        let next = match (more, long) {
            (true, true) => Next::After(end),
            (true, false) => Next::Page,
            // The filter looks no further; there may be more.
            (false, true) if filtered && looked > REACH => Next::After(place),
            (false, _) => Next::End,
        };
        let count = match (filtered, long) {
            (false, _) => all,
            (true, false) => skip - before + hits,
            (true, true) => skip + shown + u64::from(next != Next::End),
        };
        Ok(Listed { rows: ids, count, next })
    }

    fn start(&self) -> Walk<'_> {
        Walk { order: self.order, after: self.after.as_ref(), skip: 0, take: 0 }
    }
}

/// Whether a name holds a text, which is in lower case.
fn holds(name: &str, needle: &str) -> bool {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().contains(needle),
        false => name.contains(needle),
    }
}
