//! What is asked: a request for each row, principal and place.

use crate::harness::{Answer, Ask, Site, sha256};
use outport::names::{RepoName, Tag};
use outport::registry::Access;
use serde_json::{Value, json};

use super::people::{PLACES, Place, Principal, Scheme, user};
use super::rights::{ONESELF, Right, Row, Verdict, verdict};

const NO_UUID: &str = "00000000-0000-4000-8000-000000000000";
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const NO_UPLOAD: &str = "00000000000000000000000000000000";
/// Who asks for heads too: rows do not tell them from GET.
const HEADS: [&str; 4] = ["nobody", "sten", "rita", "otto"];

/// One request, and what must come of it.
pub struct Case<'a> {
    pub row: Row,
    pub method: &'static str,
    pub place: Option<&'static Place>,
    pub who: &'a Principal,
    pub verdict: Verdict,
}

impl Case<'_> {
    pub fn text(&self) -> String {
        let Case { row, who, place, .. } = self;
        let about = place.map_or(String::new(), |place| format!(" about {}", place.repo));
        let ended = if who.ended.is_some() { " (ended)" } else { "" };
        format!("{} {} {}{about} by {}{ended}", row.dialect, self.method, row.path, who.name)
    }

    /// It changes something where it is allowed.
    pub fn writes(&self) -> bool {
        !matches!(self.method, "GET" | "HEAD") || self.row.handler == "generate_password"
    }

    /// Where pulls are allowed they work; elsewhere the request may be wanting.
    pub fn is_as_expected(&self, answer: &Answer) -> bool {
        let there = self.place.is_some_and(|place| place.there);
        let pulls = matches!(self.row.right, Right::Repo(Access::Pull) | Right::Id(Access::Pull));
        match self.verdict {
            Verdict::Refused(status) => answer.status == status,
            Verdict::PassedBy => answer.status == 200 && answer.body == b"[]",
            Verdict::Allowed if pulls && there => answer.status == 200,
            Verdict::Allowed if self.row.right == Right::IdsDelete => answer.body.len() > 2,
            Verdict::Allowed if self.row.dialect == "mlspace" && there => answer.status == 200,
            Verdict::Allowed => !matches!(answer.status, 401 | 403 | 429 | 500..),
        }
    }
}

/// What the things of a place are called where they are asked for by UUID.
struct Ids {
    repo: String,
    image: String,
    tag: String,
}

impl Ids {
    fn of(site: &Site, place: &Place) -> Ids {
        if !place.there {
            return Ids { repo: NO_UUID.into(), image: NO_UUID.into(), tag: NO_UUID.into() };
        }
        let name = RepoName::parse(place.repo).unwrap();
        let repo = site.registry.repo_seen(None, &name).unwrap();
        let tag = site.registry.tag_row(&name, &Tag::parse("v1").unwrap()).unwrap();
        Ids { repo: repo.uuid, image: tag.image_uuid, tag: tag.uuid }
    }
}

/// Where a site's requests go.
pub struct Map<'a> {
    site: &'a Site,
    workspace: String,
    ids: Vec<Ids>,
}

impl Map<'_> {
    pub fn new(site: &Site) -> Map<'_> {
        let workspace = site.registry.org_info(&user("acme")).unwrap().uuid;
        Map { site, workspace, ids: PLACES.iter().map(|place| Ids::of(site, place)).collect() }
    }

    /// A request that is right in everything, so that nothing but permission can fail before
    /// the registry is touched. What is to be deleted inside a repository, or changed, is not
    /// there: who may, does no harm.
    pub fn ask(&self, case: &Case) -> Ask {
        let Case { row, place, .. } = case;
        let repo = place.map_or("acme/secret", |place| place.repo);
        let ids = &self.ids[PLACES.iter().position(|place| place.repo == repo).unwrap()];
        let (namespace, name) = repo.split_once('/').unwrap();
        let reads = row.method == "GET";
        let id = match row.path {
            path if path.contains("/images/") => &ids.image,
            path if path.contains("/tags/") => &ids.tag,
            path if path.contains("/groups/") => "1",
            _ => &ids.repo,
        };
        let layer = sha256(b"layer");
        let segment = |part: &'static str| match part {
            "{ns}" => namespace,
            "{name}" | "{repo}" => name,
            "{name*}" => repo,
            "{tag}" | "{reference}" if reads => "v1",
            "{tag}" | "{reference}" => "none",
            "{digest}" if reads => &layer,
            "{digest}" => NO_DIGEST,
            "{upload}" => NO_UPLOAD,
            "{org}" => "acme",
            "{group}" if row.method == "DELETE" => "none",
            "{group}" => "monas",
            "{user}" if row.dialect == "v1" => ONESELF,
            "{user}" => "none",
            "{uuid}" => NO_UUID,
            "{id}" => id,
            part if part.starts_with('{') => panic!("what stands for {part}?"),
            part => part,
        };
        let path: Vec<&str> = row.path.trim_end_matches("[/]").split('/').map(segment).collect();
        let query = match (row.dialect, row.handler) {
            ("mlspace", "images") => format!("?repository_id={}", ids.repo),
            ("mlspace", "tags") => format!("?image_id={}", ids.image),
            ("oci", "upload_post") => "?digest=none".to_owned(),
            _ => String::new(),
        };
        let ask = self.site.ask(case.method, &format!("{}{query}", path.join("/"))).by_nobody();
        let ask = match &case.who.header {
            Some(header) => ask.header("Authorization", header),
            None => ask,
        };
        // What names its thing by UUID needs no workspace.
        let ask = match row.right {
            Right::Workspace => ask.header("X-Workspace-Id", &self.workspace),
            _ => ask,
        };
        match body(row, repo, ids) {
            Some(body) => ask.json(&body),
            None => ask,
        }
    }
}

/// What rows take that look at the body before they know what it is about.
fn body(row: &Row, repo: &str, ids: &Ids) -> Option<Value> {
    let (namespace, name) = repo.split_once('/').unwrap();
    match (row.dialect, row.handler) {
        ("v1", "repo_put" | "images_put") => Some(json!([])),
        ("hub", "repo_create") => Some(json!({"namespace": namespace, "name": name, "is_private": true})),
        ("mlspace", "favorite") => Some(json!({"favorite": true})),
        ("mlspace", "repo_change") => Some(json!({"description": "changed"})),
        ("mlspace", "tag_change") => Some(json!({"color": "red"})),
        ("mlspace", "tag_create") => Some(json!({"image_id": ids.image, "name": "v2"})),
        ("mlspace", "repos_delete") => Some(json!({"repository_ids": [ids.repo]})),
        ("mlspace", "images_delete") => Some(json!({"image_ids": [ids.image]})),
        ("mlspace", "tags_delete") => Some(json!({"tag_ids": [ids.tag]})),
        _ => None,
    }
}

/// Every request that could come to another end than those that are asked.
pub fn cases<'a>(rows: &[Row], crowd: &'a [Principal], open: bool) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for &row in rows {
        let bare = row.dialect == "v1" && row.path.starts_with("/v1/repositories/{name}");
        let places: Vec<Option<&Place>> = match row.right.is_about_a_repo() {
            // Names of one part are in library.
            true => PLACES.iter().filter(|p| bare == p.repo.starts_with("library/")).map(Some).collect(),
            false => vec![None],
        };
        for place in places {
            for who in crowd {
                let verdict = verdict(&row, who, place, open);
                let case = |method| Case { row, method, place, who, verdict };
                if !says_more(&case(row.method), bare, open) {
                    continue;
                }
                cases.push(case(row.method));
                if row.method == "GET" && HEADS.contains(&who.name.as_str()) {
                    cases.push(case("HEAD"));
                }
            }
        }
    }
    cases
}

/// Whether this is not just what another case says.
fn says_more(case: &Case, bare: bool, open: bool) -> bool {
    let Case { place, who, .. } = case;
    let of_password = matches!(who.scheme, Scheme::Nobody | Scheme::Password);
    let here = place.is_none_or(|place| match who.ended {
        // Nothing depends on where.
        Some(_) => place.repo == if bare { "library/secret" } else { "acme/secret" },
        // How far tokens reach is seen in acme.
        None => {
            bare || of_password
                || who.is("nina")
                || who.name.ends_with("in nina")
                || place.repo.starts_with("acme/")
        }
    });
    // What tokens let somebody do where it is private, they let them do where it is public.
    let once = !(case.writes() && case.verdict == Verdict::Allowed && !of_password)
        || place.is_none_or(|place| !place.public);
    // That nobody may pull is nothing to those who are somebody, but for the challenge.
    let now = !open || who.person.is_none() || who.is("sten");
    here && once && now
}
