//! Pages by number: `{"count", "next", "previous", "results"}`.
//!
//! Numbers reach the first 10,000 rows of a list. `next` reaches all of them: beyond that it
//! also says where it begins.

use hyper::StatusCode;
use serde::Serialize;

use crate::error::{Kind, Result, Thing};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::registry::{Listed, Mark, Order, REACH, Slice, Wish};

const SIZE_DEFAULT: u32 = 10;
const SIZE_MAX: u32 = 100;

pub struct Paging {
    page: u64,
    size: u32,
    after: Option<Mark>,
}

/// A page as Django shows it.
#[derive(Serialize)]
struct Shown<S> {
    count: u64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<S>,
}

impl Paging {
    /// `page`, from 1 on, and `page_size`, of which too much means the most, and nonsense
    /// nothing.
    pub fn of(call: &Call) -> Result<Paging> {
        let page = match call.query("page") {
            None => 1,
            Some(page) => page.parse().ok().filter(|page| *page >= 1).ok_or(Kind::NotFound(Thing::Page))?,
        };
        let size = match call.query("page_size") {
            Some(size) if !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()) => {
                match size.parse().unwrap_or(SIZE_MAX) {
                    0 => SIZE_DEFAULT,
                    size => size.min(SIZE_MAX),
                }
            }
            _ => SIZE_DEFAULT,
        };
        Ok(Paging { page, size, after: call.after()? })
    }

    pub fn slice(&self) -> Slice {
        Slice { skip: (self.page - 1).saturating_mul(self.size.into()), take: self.size }
    }

    /// These rows of a list that can be ordered, and filtered by `name`.
    pub fn wish(&self, call: &Call) -> Wish {
        Wish {
            needle: call.query("name").unwrap_or_default().into_owned(),
            order: order(call),
            slice: self.slice(),
            after: self.after.clone(),
        }
    }

    /// A page of rows, each as `show` has it. `NotFound(Page)` for a number beyond the last; a
    /// mark is where a filter stopped looking, and there may be nothing behind it.
    pub fn reply<'a, T, S: Serialize>(
        &self,
        call: &Call,
        listed: &'a Listed<T>,
        show: impl Fn(&'a T) -> S,
    ) -> Result<Reply> {
        let Slice { skip, .. } = self.slice();
        if self.after.is_none() && self.page > 1 && skip >= listed.count && listed.rows.is_empty() {
            return Err(Kind::NotFound(Thing::Page).into());
        }
        // Under the host and scheme that the client used, for clients follow it to the letter.
        let (scheme, host) = call.app.origin(call.asked());
        let whole = |address: String| format!("{scheme}://{host}{address}");
        let page = Shown {
            count: listed.count,
            next: call.next_address(self.page.saturating_add(1), &listed.next).map(whole),
            previous: (self.page > 1 && skip <= REACH).then(|| whole(call.page_address(self.page - 1, None))),
            results: listed.rows.iter().map(show).collect(),
        };
        Ok(reply::json(StatusCode::OK, &page))
    }
}

/// `ordering`: the newest first, also for `last_updated`, as Hub has it.
fn order(call: &Call) -> Order {
    match call.query("ordering").as_deref() {
        Some("name") => Order::Name,
        Some("-name") => Order::NameDown,
        Some("-last_updated") => Order::Oldest,
        _ => Order::Newest,
    }
}
