//! What a request brings, and what is wrong with it, as FastAPI says that.

use hyper::StatusCode;
use hyper::header::LINK;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;

use crate::error::{Error, Kind, Result, Thing};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::names::{Tag, Uuid};
use crate::registry::{Listed, Mark, Slice, TAG_COLOR_MAX};

/// Most ids to be deleted at once: one transaction deletes them.
const LIST_MAX: usize = 100;
/// Rows of a page, where no number is asked for and at the most: a repository shows its tags
/// and its newest image, so a page is about a thousand rows of the database.
const PAGE_MAX: u32 = 50;

/// What an answer says beside its status: where a value is wrong, or one of ML Space's codes.
#[derive(Debug)]
pub enum Fault {
    Field { at: Value, kind: &'static str },
    Code(u16),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

/// A value that is wrong. `at` is a path: `["body", "tag_ids", 0]`.
fn fault(at: Value, message: &'static str, kind: &'static str) -> Error {
    Kind::Invalid(Thing::Request).because(message).with_cause(Fault::Field { at, kind })
}

fn missing(at: Value) -> Error {
    fault(at, "field required", "value_error.missing")
}

/// One of the refusals that ML Space numbers.
pub fn coded(kind: Kind, code: u16, message: &'static str) -> Error {
    kind.because(message).with_cause(Fault::Code(code))
}

fn uuid(value: &str, at: Value) -> Result<Uuid> {
    Uuid::parse(value).ok_or_else(|| fault(at, "value is not a valid uuid", "type_error.uuid"))
}

/// A body's fields.
pub struct Fields(Map<String, Value>);

impl Fields {
    pub async fn read(call: &mut Call) -> Result<Fields> {
        Ok(Fields(call.fields().await?))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn required(&self, name: &str) -> Result<&Value> {
        self.0.get(name).filter(|value| !value.is_null()).ok_or_else(|| missing(json!(["body", name])))
    }

    pub fn uuid(&self, name: &str) -> Result<Uuid> {
        uuid(self.required(name)?.as_str().unwrap_or_default(), json!(["body", name]))
    }

    fn list(&self, name: &str) -> Result<&Vec<Value>> {
        self.required(name)?
            .as_array()
            .ok_or_else(|| fault(json!(["body", name]), "value is not a valid list", "type_error.list"))
    }

    pub fn uuids(&self, name: &str) -> Result<Vec<Uuid>> {
        let list = self.list(name)?;
        if list.len() > LIST_MAX {
            let message = "ensure this value has at most 100 items";
            return Err(fault(json!(["body", name]), message, "value_error.list.max_items"));
        }
        let ids = list.iter().enumerate();
        ids.map(|(n, id)| uuid(id.as_str().unwrap_or_default(), json!(["body", name, n]))).collect()
    }

    /// A text that must be there.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.required(name)?
            .as_str()
            .ok_or_else(|| fault(json!(["body", name]), "str type expected", "type_error.str"))
    }

    /// A text; None if it is null or not there.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(name).map(|text| Some(text.to_owned())),
        }
    }

    /// Texts of a list; none if it is null or not there.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        if self.0.get(name).is_none_or(Value::is_null) {
            return Ok(Vec::new());
        }
        let wrong = |n| fault(json!(["body", name, n]), "str type expected", "type_error.str");
        let texts = self.list(name)?.iter().enumerate();
        texts.map(|(n, text)| Ok(text.as_str().ok_or_else(|| wrong(n))?.to_owned())).collect()
    }

    pub fn flag(&self, name: &str) -> Result<bool> {
        let wrong =
            || fault(json!(["body", name]), "value could not be parsed to a boolean", "type_error.bool");
        self.required(name)?.as_bool().ok_or_else(wrong)
    }

    pub fn color(&self) -> Result<Option<String>> {
        let color = self.optional_text("color")?;
        if color.as_ref().is_some_and(|color| color.chars().count() > TAG_COLOR_MAX) {
            let message = "ensure this value has at most 32 characters";
            return Err(fault(json!(["body", "color"]), message, "value_error.any_str.max_length"));
        }
        Ok(color)
    }

    pub fn tag(&self) -> Result<Tag> {
        let (at, kind) = (json!(["body", "name"]), "value_error.str.regex");
        Tag::parse(self.text("name")?).map_err(|error| error.with_cause(Fault::Field { at, kind }))
    }
}

/// The id of a path, by the name that ML Space gives it.
pub fn path_id(call: &Call, name: &str) -> Result<Uuid> {
    uuid(call.param("id"), json!(["path", name]))
}

pub fn query_id(call: &Call, name: &str) -> Result<Uuid> {
    let at = json!(["query", name]);
    match call.query(name) {
        Some(id) => uuid(&id, at),
        None => Err(missing(at)),
    }
}

/// Which stretch of a list is asked for: `page`, from 1 on, and `page_size`.
pub struct Paging {
    page: u32,
    size: u32,
    after: Option<Mark>,
}

impl Paging {
    pub fn of(call: &Call) -> Result<Paging> {
        let (page, size) = (number(call, "page", 1)?, number(call, "page_size", PAGE_MAX)?);
        // A shorter page than was asked for would look like the last one.
        if size > PAGE_MAX {
            let message = "ensure this value is less than or equal to 50";
            return Err(fault(json!(["query", "page_size"]), message, "value_error.number.not_le"));
        }
        Ok(Paging { page, size, after: call.after()? })
    }

    pub fn slice(&self) -> Slice {
        Slice { skip: u64::from(self.page - 1) * u64::from(self.size), take: self.size }
    }

    /// Where the page begins, if numbers do not reach it.
    pub fn after(&self) -> Option<Mark> {
        self.after.clone()
    }

    /// A bare list of rows, as they are shown. Where there are more, `Link` says so, for the
    /// list has no place to.
    pub fn reply<'a, T, S: Serialize>(
        &self,
        call: &Call,
        listed: &'a Listed<T>,
        show: impl Fn(&'a T) -> S,
    ) -> Reply {
        let shown: Vec<S> = listed.rows.iter().map(show).collect();
        let reply = reply::json(StatusCode::OK, &shown);
        match call.next_address(u64::from(self.page) + 1, &listed.next) {
            None => reply,
            Some(next) => reply::with(reply, LINK, format!("<{next}>; rel=\"next\"")),
        }
    }
}

/// A number from 1 on.
fn number(call: &Call, name: &str, default: u32) -> Result<u32> {
    let Some(text) = call.query(name) else { return Ok(default) };
    let at = json!(["query", name]);
    match text.parse() {
        Ok(0) => {
            Err(fault(at, "ensure this value is greater than or equal to 1", "value_error.number.not_ge"))
        }
        Ok(number) => Ok(number),
        Err(_) => Err(fault(at, "value is not a valid integer", "type_error.integer")),
    }
}
