//! Who may what: every row of every table, asked by every kind of principal, about private,
//! public and missing repositories, with anonymous pulls on and off.
//!
//! What is expected is written down once, apart from the code: `rights.txt` says what each
//! row demands, `people.rs` who holds what, and `rights.rs` what follows.

mod cases;
mod people;
mod rights;
mod snapshot;

use crate::harness::{Answer, Line, Site};
use cases::{Case, Map, cases};
use outport::http::DIALECTS;
use outport::registry::Access;
use people::{PLACES, Place, Scheme, gather};
use rights::{Right, Row, Verdict, holds, sees};
use serde_json::Value;
use snapshot::Snapshot;
use std::collections::HashMap;
use std::sync::LazyLock;

const RIGHTS: &str = include_str!("matrix/rights.txt");
/// Connections that ask at once.
const LINES: usize = 3;
/// Faults that are shown; there is no use in thousands.
const SHOWN_MAX: usize = 40;

/// Lines of rights.txt: dialect, method, path, right.
fn lines() -> Vec<[&'static str; 4]> {
    let lines = RIGHTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let fields = |line: &'static str| line.split_whitespace().collect::<Vec<_>>().try_into();
    lines.map(|line| fields(line).unwrap_or_else(|_| panic!("not four fields: {line}"))).collect()
}

/// Every row of the route table that rights.txt has a line for.
fn rows() -> Vec<Row> {
    let lines = lines();
    let rows = DIALECTS.iter().flat_map(|dialect| {
        dialect.routes.iter().filter_map(|route| {
            let line = lines.iter().find(|line| line[..3] == [dialect.name, route.method, route.path])?;
            let right = Right::parse(line[3]);
            let (method, path, handler) = (route.method, route.path, route.handler);
            Some(Row { dialect: dialect.name, method, path, handler, right })
        })
    });
    rows.collect()
}

#[test]
fn every_row_of_the_route_table_says_once_what_it_demands() {
    let mut routes: Vec<_> = DIALECTS
        .iter()
        .flat_map(|dialect| dialect.routes.iter().map(|route| [dialect.name, route.method, route.path]))
        .collect();
    let mut said: Vec<_> = lines().iter().map(|line| [line[0], line[1], line[2]]).collect();
    routes.sort_unstable();
    said.sort_unstable();
    let without: Vec<_> = routes.iter().filter(|row| !said.contains(row)).collect();
    let too_many: Vec<_> = said.iter().filter(|row| !routes.contains(row)).collect();
    assert!(without.is_empty() && too_many.is_empty(), "rights.txt lacks {without:?}, and has {too_many:?}");
    assert_eq!(routes, said, "once each");
}

/// Asks over a few connections at once. Answers stand where their cases stand.
fn ask_all(map: &Map, cases: &[Case]) -> Vec<Answer> {
    let piece = cases.len().div_ceil(LINES).max(1);
    std::thread::scope(|scope| {
        let ask = |cases: &[Case]| -> Vec<Answer> {
            let mut line = Line::default();
            cases.iter().map(|case| line.send(map.ask(case))).collect()
        };
        let asking: Vec<_> = cases.chunks(piece).map(|cases| scope.spawn(move || ask(cases))).collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// What a whole matrix came to.
#[derive(Default)]
struct Outcome {
    asked: usize,
    /// Answers that should have been others.
    faults: Vec<String>,
    /// What requests left behind that were refused.
    left: Vec<String>,
    /// Refusals that told a private repository from a missing one.
    told: Vec<String>,
    /// Refusals that did not say how to come back.
    unasked: Vec<String>,
    /// Lists that showed too much, or too little.
    shown: Vec<String>,
}

fn ask_the_matrix(open: bool) -> Outcome {
    let (site, crowd) = gather(open);
    let map = Map::new(&site);
    let cases = cases(&rows(), &crowd, open);
    let mut outcome = Outcome { asked: cases.len(), ..Outcome::default() };
    let check = |outcome: &mut Outcome, case: &Case, answer: &Answer| {
        if !case.is_as_expected(answer) {
            let text = String::from_utf8_lossy(&answer.body);
            outcome.faults.push(format!("{}: {:?}, but {} {text}", case.text(), case.verdict, answer.status));
        }
    };
    let (allowed, refused): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| case.verdict == Verdict::Allowed);
    let (writes, reads): (Vec<_>, Vec<_>) = allowed.into_iter().partition(Case::writes);

    let before = Snapshot::take(&site);
    let answers = ask_all(&map, &refused);
    outcome.left = before.differences(&Snapshot::take(&site));
    // One fault shall not bring others.
    before.restore(&site);
    refused.iter().zip(&answers).for_each(|(case, answer)| check(&mut outcome, case, answer));
    outcome.told = told(&refused, &answers, open);
    outcome.unasked = unasked(&site, &refused, &answers, open);
    for (case, answer) in reads.iter().zip(ask_all(&map, &reads)) {
        check(&mut outcome, case, &answer);
        outcome.shown.extend(misshown(case, &answer, open));
    }

    let mut line = Line::default();
    for case in &writes {
        let answer = line.send(map.ask(case));
        check(&mut outcome, case, &answer);
        if answer.status < 300 {
            before.restore(&site);
        }
    }
    outcome
}

/// An answer without what is its own: request ids, dates, and the name it was asked about.
fn plain(answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap();
    let own = |name: &String| matches!(name.as_str(), "date" | "x-request-id");
    let headers: Vec<_> = answer.headers.iter().filter(|(name, _)| !own(name)).collect();
    let text = format!("{} {headers:?} {}", answer.status, String::from_utf8_lossy(&answer.body));
    text.replace(id, "ID").replace("absent", "secret")
}

/// Where a private repository and a missing one are refused in different words to somebody
/// who may read neither.
fn told(cases: &[Case], answers: &[Answer], open: bool) -> Vec<String> {
    let mut said = HashMap::new();
    let mut found = Vec::new();
    for (case, answer) in cases.iter().zip(answers) {
        let Some(place) = case.place.filter(|place| !place.public && !sees(case.who, place, open)) else {
            continue;
        };
        let namespace = place.repo.split('/').next().unwrap();
        // A token says of what it is for; it was made for what is there.
        if case.who.tells_apart([&format!("{namespace}/secret"), &format!("{namespace}/absent")]) {
            continue;
        }
        let question =
            (case.row.dialect, case.row.path, case.method, namespace, std::ptr::from_ref(case.who));
        let plain = plain(answer);
        if let Some(other) = said.insert(question, plain.clone())
            && other != plain
        {
            found.push(format!("{}:\n  {plain}\n  {other}", case.text()));
        }
    }
    found
}

/// Where a 401 does not have the one challenge that its dialect's clients know.
fn unasked(site: &Site, cases: &[Case], answers: &[Answer], open: bool) -> Vec<String> {
    let mut found = Vec::new();
    for (case, answer) in cases.iter().zip(answers).filter(|(_, answer)| answer.status == 401) {
        let challenges = answer.headers_named("www-authenticate");
        if challenges.len() != 1 || !is_the_challenge(case, site, open, challenges[0]) {
            found.push(format!("{}: {challenges:?}", case.text()));
        }
    }
    found
}

fn is_the_challenge(case: &Case, site: &Site, open: bool, challenge: &str) -> bool {
    let Case { row, who, .. } = case;
    let token_was_sent = matches!(who.scheme, Scheme::Bearer | Scheme::V1 | Scheme::Service);
    match row.dialect {
        "hub" => challenge == "JWT realm=\"api\"",
        "mlspace" => challenge == "Basic realm=\"outport\"",
        "token" | "gap" => challenge == "Basic realm=\"Outport\"",
        "v1" if token_was_sent && challenge == "Token" => true,
        "v1" if row.path.contains("{name}") => challenge == "Basic realm=\"auth required\",Token",
        "v1" => challenge == "Basic realm=\"auth required\"",
        // Docker pulls what is public with a token alone. Who sent one is asked for one, and who
        // sent a robot token for one that does for lists.
        _ if open || token_was_sent || (row.right == Right::Catalog && who.limit.is_some()) => {
            let scope = match (case.place, row.right) {
                (Some(place), Right::Repo(access)) => {
                    let actions = if access == Access::Push { "pull,push" } else { access.word() };
                    format!(",scope=\"repository:{}:{actions}\"", place.repo)
                }
                (_, Right::Catalog) => ",scope=\"registry:catalog:*\"".to_owned(),
                _ => String::new(),
            };
            let host = site.address;
            let whole = format!("Bearer realm=\"http://{host}/token\",service=\"{host}\"{scope}");
            let rest = challenge.strip_prefix(&whole);
            let refused = challenge == "Basic realm=\"Outport\"" && !open;
            refused || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(",error="))
        }
        _ => challenge == "Basic realm=\"Outport\"",
    }
}

/// Whether a list of repositories is not that of those which whoever asks may pull.
fn misshown(case: &Case, answer: &Answer, open: bool) -> Option<String> {
    let Case { row, who, .. } = case;
    if case.method == "HEAD" || answer.status != 200 {
        return None;
    }
    let json = || answer.json();
    let named = |list: &Value, key: &str, before: &str| -> Vec<String> {
        let rows = list.as_array().unwrap();
        rows.iter().map(|row| format!("{before}{}", row[key].as_str().unwrap())).collect()
    };
    let (mut shown, within) = match (row.dialect, row.handler) {
        ("oci", "catalog") => (answer.strings("repositories"), ""),
        ("v1", "search") => (named(&json()["results"], "name", ""), ""),
        ("hub", "search") => (named(&json()["results"], "repo_name", ""), ""),
        ("hub", "repos") => (named(&json()["results"], "name", "acme/"), "acme/"),
        ("mlspace", "repos") => (named(&json(), "name", "acme/"), "acme/"),
        _ => return None,
    };
    shown.sort_unstable();
    // A token that is for lists is for whole lists.
    let visible = |place: &&Place| place.there && holds(who, Access::Pull, place, open);
    let here = PLACES.iter().filter(|place| place.repo.starts_with(within));
    let mut expected: Vec<_> = here.filter(visible).map(|place| place.repo).collect();
    expected.sort_unstable();
    (shown != expected).then(|| format!("{}: {shown:?}, not {expected:?}", case.text()))
}

/// With anonymous pulls off, and on.
static OUTCOMES: LazyLock<[Outcome; 2]> = LazyLock::new(|| {
    std::thread::scope(|scope| {
        let asking = [false, true].map(|open| scope.spawn(move || ask_the_matrix(open)));
        asking.map(|thread| thread.join().unwrap())
    })
});

fn none_of(what: fn(&Outcome) -> &Vec<String>) {
    let found: Vec<_> = OUTCOMES.iter().flat_map(what).collect();
    let shown: Vec<_> = found.iter().take(SHOWN_MAX).map(|fault| fault.as_str()).collect();
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), shown.join("\n"));
}

#[test]
fn everybody_may_just_what_they_hold_by_whatever_they_bring() {
    none_of(|outcome| &outcome.faults);
    assert!(OUTCOMES.iter().all(|outcome| outcome.asked > 3_000), "it is the whole of it");
}

#[test]
fn what_is_refused_changes_nothing() {
    none_of(|outcome| &outcome.left);
}

#[test]
fn a_refusal_does_not_tell_a_private_repository_from_a_missing_one() {
    none_of(|outcome| &outcome.told);
}

#[test]
fn every_401_has_the_one_challenge_that_its_clients_know() {
    none_of(|outcome| &outcome.unasked);
}

#[test]
fn every_list_shows_everybody_just_what_they_may_pull() {
    none_of(|outcome| &outcome.shown);
}
