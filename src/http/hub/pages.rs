//! Pages by number: `{"count", "next", "previous", "results"}`.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::error::{Kind, Result, Thing};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::registry::{Listed, Order, Slice};

const SIZE_DEFAULT: u32 = 10;
const SIZE_MAX: u32 = 100;

pub struct Paging {
    page: u64,
    size: u32,
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
        Ok(Paging { page, size })
    }

    pub fn slice(&self) -> Slice {
        Slice { skip: (self.page - 1).saturating_mul(self.size.into()), take: self.size }
    }

    /// A page of rows, each as `show` has it. `NotFound(Page)` beyond the last.
    pub fn reply<T>(&self, call: &Call, listed: &Listed<T>, show: impl Fn(&T) -> Value) -> Result<Reply> {
        let Slice { skip, take } = self.slice();
        if self.page > 1 && skip >= listed.count {
            return Err(Kind::NotFound(Thing::Page).into());
        }
        let has_next = skip.saturating_add(take.into()) < listed.count;
        let body = json!({
            "count": listed.count,
            "next": has_next.then(|| address(call, self.page + 1)),
            "previous": (self.page > 1).then(|| address(call, self.page - 1)),
            "results": listed.rows.iter().map(show).collect::<Vec<_>>(),
        });
        Ok(reply::json(StatusCode::OK, &body))
    }
}

/// This request's address with another page: under the host and scheme that the client
/// used, for clients follow it to the letter.
fn address(call: &Call, page: u64) -> String {
    let (scheme, host) = call.app.origin(call.asked());
    format!("{scheme}://{host}{}", call.address_with("page", &page.to_string()))
}

/// `ordering`: the newest first, also for `last_updated`, as Hub has it.
pub fn order(call: &Call) -> Order {
    match call.query("ordering").as_deref() {
        Some("name") => Order::Name,
        Some("-name") => Order::NameDown,
        Some("-last_updated") => Order::Oldest,
        _ => Order::Newest,
    }
}
