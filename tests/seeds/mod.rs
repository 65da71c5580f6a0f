//! The documents that people's scripts were written by: every example of theirs, against a
//! server.
//!
//! | Module | Document |
//! |---|---|
//! | `hub` | "How to create a docker private repository via docker hub api?", a question of 2015 and its two answers |
//! | `index_v1` | Docker's Index API of 2015, chapter 2: a request and an answer for each endpoint |
//! | `mlspace` | ML Space, "Working with Docker registry through the API": steps 1 to 14 |
//! | `registry` | a company's guide to its registry: chapters 1 to 6, and an appendix in Python |
//!
//! A call is as its document has it, but for the host and what a reader is to fill in:
//! credentials, tokens, ids. Where the document itself is broken a comment says how, and the
//! call is the one that was meant.
//!
//! What is curl or Python in the documents lies beside this file as curl and Python, for
//! `.ci/e2e` to run; here are the requests that they send.

mod hub;
mod index_v1;
mod mlspace;
mod registry;

use crate::harness::{Answer, Site};
use serde_json::Value;

/// The lines up to the first empty one, and those after it.
fn parts(printed: &str) -> (Vec<&str>, String) {
    let mut lines = printed.trim().lines().map(str::trim);
    let head = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    (head, lines.collect::<Vec<_>>().join("\n"))
}

/// Sends a request as a document prints it. What a reader fills in is given as what is
/// printed and what to put there; the host is the site's, and a body's length is added.
fn send(site: &Site, printed: &str, filled_in: &[(&str, &str)]) -> Answer {
    let filled = filled_in.iter().fold(printed.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    });
    let (head, body) = parts(&filled);
    let [method, target, "HTTP/1.1"] = head[0].split(' ').collect::<Vec<_>>()[..] else {
        panic!("no request: {filled}")
    };
    let mut ask = site.ask(method, target).by_nobody();
    for (name, value) in head[1..].iter().map(|line| line.split_once(": ").unwrap()) {
        if name != "Host" {
            ask = ask.header(name, value);
        }
    }
    ask.body(body.as_bytes()).send()
}

/// Compares an answer with the printed one: the status, each header that is printed, and the
/// body as JSON.
fn answers(answer: &Answer, printed: &str) {
    let (head, body) = parts(printed);
    let status: u16 = head[0].split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(answer.status, status, "{answer:?}");
    for (name, value) in head[1..].iter().map(|line| line.split_once(": ").unwrap()) {
        assert_eq!(answer.headers_named(&name.to_ascii_lowercase()), [value], "{name} of {answer:?}");
    }
    match body.is_empty() {
        true => assert!(answer.body.is_empty(), "{answer:?}"),
        false => assert_eq!(answer.json(), serde_json::from_str::<Value>(&body).unwrap()),
    }
}
