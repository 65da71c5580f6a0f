//! A body's fields as values, and what is wrong with them, in the words and the shape of
//! Django REST framework: `{"field": ["sentence"]}`.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::http::call::Call;
use crate::http::reply::{self, Reply};

/// Fields are asked for one by one; what is wrong gathers, so that a client hears it all.
pub struct Form {
    fields: Map<String, Value>,
    faults: Map<String, Value>,
}

impl Form {
    pub async fn read(call: &mut Call) -> Result<Form> {
        Ok(Form { fields: call.fields().await?, faults: Map::new() })
    }

    pub fn fault(&mut self, name: &str, sentence: impl Into<String>) {
        self.faults.entry(name).or_insert_with(|| json!([sentence.into()]));
    }

    /// The answer to a form with faults.
    pub fn refusal(&self) -> Option<Reply> {
        (!self.faults.is_empty()).then(|| reply::json(StatusCode::BAD_REQUEST, &self.faults))
    }

    /// A text of at most `max` characters; None if it is absent, null, or wrong. Numbers are
    /// texts too: forms do not tell.
    pub fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let text = match self.fields.get(name)? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                self.fault(name, "Not a valid string.");
                return None;
            }
        };
        if text.chars().count() > max {
            self.fault(name, format!("Ensure this field has no more than {max} characters."));
            return None;
        }
        if text.contains('\0') {
            self.fault(name, "Null characters are not allowed.");
            return None;
        }
        Some(text)
    }

    /// A text that must be there; "" beside a fault.
    pub fn required(&mut self, name: &str, max: usize) -> String {
        if !self.is_there(name) {
            return String::new();
        }
        let text = self.text(name, max).unwrap_or_default();
        if text.is_empty() {
            self.fault(name, "This field may not be blank.");
        }
        text
    }

    /// Whether a required field is there at all; a fault if not.
    pub fn is_there(&mut self, name: &str) -> bool {
        match self.fields.get(name) {
            Some(Value::Null) => self.fault(name, "This field may not be null."),
            Some(_) => return true,
            None => self.fault(name, "This field is required."),
        }
        false
    }

    /// A boolean in any of the spellings that Django takes, an empty one being false.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let word = match self.fields.get(name)? {
            Value::Null => return None,
            Value::Bool(flag) => return Some(*flag),
            Value::Number(number) => number.to_string(),
            Value::String(word) => word.trim().to_ascii_lowercase(),
            _ => "neither".to_owned(),
        };
        match word.as_str() {
            "t" | "y" | "yes" | "true" | "on" | "1" => Some(true),
            "f" | "n" | "no" | "false" | "off" | "0" | "0.0" | "" => Some(false),
            _ => {
                self.fault(name, "Must be a valid boolean.");
                None
            }
        }
    }

    /// An integer, or its digits.
    pub fn number(&mut self, name: &str) -> Option<i64> {
        let number = match self.fields.get(name)? {
            Value::Null => return None,
            Value::Number(number) => number.as_i64(),
            Value::String(digits) => digits.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.fault(name, "A valid integer is required.");
        }
        number
    }

    /// Texts of a list; one text is a list of one.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let texts = match self.fields.get(name)? {
            Value::Null => return None,
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.fault(name, "Expected a list of strings.");
        }
        texts
    }
}
