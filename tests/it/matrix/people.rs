//! Who asks: people by what they hold, and what each of them may bring to say who they are.

use crate::harness::{PASSWORD, Site, Wishes, basic};
use outport::names::{RepoName, UserName, Uuid};
use outport::registry::{Access, Grantee, GroupName, Level, Pattern, Standing, TokenRow, User};
use serde_json::{Value, json};
use std::time::Duration;

/// A repository that is asked about.
pub struct Place {
    /// One the length of the other, so that answers about them can be compared.
    pub repo: &'static str,
    pub there: bool,
    pub public: bool,
}

const fn place(repo: &'static str, there: bool, public: bool) -> Place {
    Place { repo, there, public }
}

/// In an organisation, in the namespace without owners, and in a user's own.
pub static PLACES: [Place; 8] = [
    place("acme/secret", true, false),
    place("acme/absent", false, false),
    place("acme/public", true, true),
    place("library/secret", true, false),
    place("library/absent", false, false),
    place("library/public", true, true),
    place("nina/secret", true, false),
    place("nina/absent", false, false),
];

/// What somebody holds in `acme` and in `library`.
#[derive(Clone, Copy)]
pub enum Holds {
    Nothing,
    /// Granted to them, in each place by its name.
    Own(Level),
    /// Granted to a group of acme's that they are in, in the whole namespace.
    Group(Level),
    /// In a group of acme's that nothing was granted to.
    Membership,
    Ownership,
    /// An administrator.
    Everything,
}

pub struct Person {
    pub name: &'static str,
    pub holds: Holds,
}

const fn person(name: &'static str, holds: Holds) -> Person {
    Person { name, holds }
}

/// Everybody owns the namespace of their name besides.
pub static PEOPLE: [Person; 12] = [
    person("admin", Holds::Everything),
    person("sten", Holds::Nothing),
    person("rita", Holds::Own(Level::Read)),
    person("rolf", Holds::Group(Level::Read)),
    person("wilma", Holds::Own(Level::Write)),
    person("wolf", Holds::Group(Level::Write)),
    person("ada", Holds::Own(Level::Admin)),
    person("abel", Holds::Group(Level::Admin)),
    person("mona", Holds::Membership),
    person("otto", Holds::Ownership),
    person("nina", Holds::Nothing),
    // Put out of the house when everything of theirs had been made.
    person("ines", Holds::Own(Level::Admin)),
];

impl Person {
    pub fn is_admin(&self) -> bool {
        matches!(self.holds, Holds::Everything)
    }

    /// By what they hold themselves: what is public is another matter.
    pub fn holds(&self, access: Access, repo: &str) -> bool {
        let namespace = repo.split('/').next().unwrap();
        let level = match self.holds {
            Holds::Everything => Some(Level::Admin),
            _ if namespace == self.name => Some(Level::Admin),
            Holds::Ownership if namespace == "acme" => Some(Level::Admin),
            Holds::Own(level) | Holds::Group(level) if namespace != "nina" => Some(level),
            _ => None,
        };
        level
            >= Some(match access {
                Access::Pull => Level::Read,
                Access::Push => Level::Write,
                Access::Delete => Level::Admin,
            })
    }

    /// What they are to acme.
    pub fn standing(&self) -> Standing {
        match self.holds {
            Holds::Everything | Holds::Ownership => Standing::Owner,
            Holds::Membership | Holds::Group(_) => Standing::Member,
            Holds::Nothing | Holds::Own(_) => Standing::Stranger,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Nobody,
    Password,
    Robot,
    Generated,
    Bearer,
    Jwt,
    V1,
    /// What an ML Space service client is given.
    Service,
}

/// What a token that was made for a while was made for.
pub struct Scope {
    pub access: Vec<Access>,
    pub repos: Vec<&'static str>,
    pub lists: bool,
}

/// Somebody at the door.
pub struct Principal {
    pub name: String,
    pub person: Option<&'static Person>,
    pub scheme: Scheme,
    /// The most that a token which does not end by itself lets its owner do.
    pub limit: Option<(Access, &'static str)>,
    pub scope: Option<Scope>,
    /// What it gets wherever anything is demanded: it was good once, or is another's.
    pub ended: Option<u16>,
    pub header: Option<String>,
}

impl Principal {
    /// Whether what they bring reaches this far, whatever its owner may.
    pub fn reaches(&self, access: Access, repo: &str) -> bool {
        let within = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => repo.starts_with(start),
            None => repo == pattern,
        };
        self.limit.is_none_or(|(most, pattern)| access <= most && within(pattern))
    }

    pub fn is(&self, name: &str) -> bool {
        self.person.is_some_and(|person| person.name == name)
    }

    /// Whether what they bring was made for this repository, among others.
    pub fn is_for(&self, repo: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.repos.contains(&repo))
    }

    /// Whether it was made for one of them and not for the other.
    pub fn tells_apart(&self, repos: [&str; 2]) -> bool {
        let [one, other] = repos.map(|repo| (self.is_for(repo), self.reaches(Access::Pull, repo)));
        one != other
    }

    pub fn reaches_everywhere(&self, access: Access) -> bool {
        self.limit.is_none_or(|(most, pattern)| access <= most && pattern == "*")
    }
}

/// After so long no token is good that has an end.
const TOKEN_LIFE: Duration = Duration::from_secs(13 * 3_600);

pub fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

/// A registry where everybody holds what they hold, and everybody's credentials.
pub fn gather(open: bool) -> (Site, Vec<Principal>) {
    let site = Site::with(if open { Wishes::anonymous() } else { Wishes::default() });
    settle(&site);
    let mut crowd = Crowd { site: &site, open, all: Vec::new() };
    crowd.come();
    let all = crowd.all;
    (site, all)
}

fn settle(site: &Site) {
    for person in PEOPLE.iter().filter(|person| !person.is_admin()) {
        site.add_user(person.name);
    }
    for place in PLACES.iter().filter(|place| place.there) {
        site.push_image(place.repo, "v1", b"layer");
        site.registry.repo_set_private(&RepoName::parse(place.repo).unwrap(), !place.public).unwrap();
    }
    site.registry.org_add(&user("acme"), "Acme", &user("otto")).unwrap();
    for person in &PEOPLE {
        let group = GroupName { org: user("acme"), group: format!("{}s", person.name) };
        let join = || {
            site.registry.group_add(&group, "").unwrap();
            site.registry.group_join(&group, &user(person.name)).unwrap();
        };
        let grant = |pattern: &str, to: Grantee, level| {
            site.registry.grant(&Pattern::parse(pattern).unwrap(), &to, level).unwrap();
        };
        match person.holds {
            Holds::Own(level) => {
                for place in PLACES.iter().filter(|place| !place.repo.starts_with("nina")) {
                    grant(place.repo, Grantee::User(user(person.name)), level);
                }
            }
            Holds::Group(level) => {
                join();
                grant("acme/*", Grantee::Group(group.clone()), level);
                grant("library/*", Grantee::Group(group.clone()), level);
            }
            Holds::Membership => join(),
            Holds::Nothing | Holds::Ownership | Holds::Everything => {}
        }
    }
}

/// What is exchanged for a short-lived token: a password, or a robot token that may this much.
type Robot = Option<(Access, &'static str)>;

struct Crowd<'a> {
    site: &'a Site,
    open: bool,
    all: Vec<Principal>,
}

impl Crowd<'_> {
    /// Everybody who asks, a line each.
    fn come(&mut self) {
        use Access::{Delete, Pull, Push};
        const ALL: &[Access] = &Access::ALL;
        let places: Vec<&str> = PLACES.iter().map(|place| place.repo).collect();
        let places = places.as_slice();

        // Made before their time is over.
        self.robot("otto", Delete, "*").ended = Some(401);
        self.bearer("otto", None, ALL, places, true).ended = Some(401);
        self.jwt("otto", None).ended = Some(401);
        self.v1("otto", Delete, "acme/secret").ended = Some(401);
        self.service("otto", "acme").ended = Some(401);
        self.site.hands.advance(TOKEN_LIFE);

        self.nobody("nobody", None);
        self.nobody("nobody, with an empty name and password", Some(basic("", "")));
        for person in &PEOPLE {
            self.password(person.name);
        }

        for access in Access::ALL {
            for pattern in ["acme/secret", "acme/other", "acme/*", "*"] {
                self.robot("otto", access, pattern);
            }
        }
        self.robot("admin", Pull, "*");
        self.robot("admin", Delete, "*");
        self.robot("nina", Push, "nina/*");
        self.robot("rita", Delete, "*");
        self.robot("rita", Delete, "acme/secret");
        self.robot("wilma", Delete, "acme/*");
        self.robot("sten", Delete, "*");
        self.robot("ines", Delete, "*");
        self.access_token("otto", "repo:read", Pull);
        self.access_token("wolf", "repo:write", Push);
        self.access_token("rolf", "repo:admin", Delete);
        self.generated("otto");
        self.generated("rita");
        self.generated("sten");
        self.generated("ines");

        self.bearer("admin", None, ALL, places, false);
        self.bearer("otto", None, &[Pull], places, false);
        self.bearer("otto", None, &[Pull, Push], places, false);
        self.bearer("otto", None, &[Delete], places, false);
        self.bearer("otto", None, ALL, &["acme/secret"], false);
        self.bearer("otto", None, ALL, &["acme/other"], false);
        self.bearer("otto", None, &[], &[], false);
        self.bearer("otto", None, &[], &[], true);
        self.bearer("rita", None, ALL, places, false);
        self.bearer("wolf", None, ALL, places, true);
        self.bearer("nina", None, ALL, places, false);
        self.bearer("sten", None, ALL, places, true);
        self.bearer("ines", None, ALL, places, true);
        self.bearer("otto", Some((Pull, "acme/*")), ALL, places, true);
        self.bearer("otto", Some((Delete, "acme/other")), ALL, places, false);
        self.bearer("rita", Some((Delete, "*")), ALL, places, true);
        self.bearer("sten", Some((Delete, "*")), ALL, places, true);
        if self.open {
            self.bearer_of_nobody(ALL, places, false);
            self.bearer_of_nobody(ALL, places, true);
        }

        for name in ["admin", "otto", "ada", "rolf", "sten", "nina", "ines"] {
            self.jwt(name, None);
        }
        self.jwt("otto", Some((Pull, "*")));
        self.jwt("otto", Some((Delete, "acme/*")));
        self.jwt("otto", Some((Delete, "*")));
        self.jwt("rita", Some((Delete, "*")));

        for access in Access::ALL {
            self.v1("otto", access, "acme/secret");
        }
        self.v1("otto", Delete, "library/secret");
        self.v1("otto", Push, "acme/absent");
        self.v1("rita", Delete, "acme/secret");
        self.v1("wilma", Push, "library/secret");
        self.v1("sten", Pull, "acme/secret");
        self.v1("ines", Delete, "acme/secret");
        self.v1_of_nobody("acme/public");

        self.service("rita", "acme");
        self.service("admin", "acme");
        self.service("otto", "nina");
        self.service("nina", "nina");
        self.service("ines", "acme");

        // Made for somebody else, spent, put to sleep, taken back, and what they were exchanged for.
        self.robot_in_the_name_of("rita", "otto", Delete, "*").ended = Some(401);
        self.v1("otto", Delete, "acme/secret").ended = Some(401);
        self.spend_last();
        self.generated("mona").ended = Some(401);
        self.generated("mona");
        self.robot("otto", Delete, "*").ended = Some(401);
        self.sleep_last();
        self.robot("otto", Delete, "*").ended = Some(401);
        self.revoke_last();
        self.bearer("otto", Some((Delete, "*")), ALL, places, true).ended = Some(401);
        self.revoke_last();
        self.jwt("otto", Some((Delete, "*"))).ended = Some(401);
        self.revoke_last();
        self.service("otto", "acme").ended = Some(401);
        self.end_services_of("otto", "acme");
        self.service("otto", "acme");

        self.site.registry.user_set_active(&user("ines"), false).unwrap();
        for who in self.all.iter_mut().filter(|who| who.is("ines")) {
            // Told why, for the secret was right; what is signed is simply void.
            let long = matches!(who.scheme, Scheme::Password | Scheme::Robot | Scheme::Generated);
            who.ended = Some(if long { 403 } else { 401 });
        }
    }

    fn add(
        &mut self,
        name: String,
        person: Option<&str>,
        scheme: Scheme,
        header: Option<String>,
    ) -> &mut Principal {
        let person = person.map(|name| PEOPLE.iter().find(|person| person.name == name).unwrap());
        self.all.push(Principal { name, person, scheme, limit: None, scope: None, ended: None, header });
        self.all.last_mut().unwrap()
    }

    fn nobody(&mut self, name: &str, header: Option<String>) {
        self.add(name.to_owned(), None, Scheme::Nobody, header);
    }

    fn password(&mut self, name: &str) {
        self.add(name.to_owned(), Some(name), Scheme::Password, Some(basic(name, PASSWORD)));
    }

    fn robot_token(&self, owner: &str, access: Access, pattern: &str) -> String {
        let ends_us = (self.site.registry.clock().wall_us)() + i64::try_from(TOKEN_LIFE.as_micros()).unwrap();
        let pattern = Pattern::parse(pattern).unwrap();
        self.site.registry.token_new(&user(owner), "robot", access, &pattern, Some(ends_us)).unwrap().1
    }

    fn robot(&mut self, owner: &str, access: Access, pattern: &'static str) -> &mut Principal {
        self.robot_in_the_name_of(owner, owner, access, pattern)
    }

    fn robot_in_the_name_of(
        &mut self,
        login: &str,
        owner: &str,
        access: Access,
        pattern: &'static str,
    ) -> &mut Principal {
        let header = basic(login, &self.robot_token(owner, access, pattern));
        let name = format!("{login} with {owner}'s robot token to {} {pattern}", access.word());
        let who = self.add(name, Some(login), Scheme::Robot, Some(header));
        who.limit = Some((access, pattern));
        who
    }

    /// A robot token by Docker Hub's name.
    fn access_token(&mut self, owner: &str, scope: &str, access: Access) {
        let body = json!({"token_label": "pat", "scopes": [scope]});
        let made = self.site.ask("POST", "/v2/access-tokens").by(owner).json(&body).send();
        let header = basic(owner, text(&made.json(), "token"));
        let name = format!("{owner}'s access token of {scope}");
        self.add(name, Some(owner), Scheme::Robot, Some(header)).limit = Some((access, "*"));
    }

    fn generated(&mut self, owner: &str) -> &mut Principal {
        let target = "/public/v2/docker_registry/v1/users/generate_password";
        let made = self.site.ask("GET", target).by(owner).send();
        let header = basic(owner, text(&made.json(), "password"));
        let name = format!("{owner}'s generated password");
        let who = self.add(name, Some(owner), Scheme::Generated, Some(header));
        who.limit = Some((Access::Push, "*"));
        who
    }

    fn bearer(
        &mut self,
        owner: &str,
        robot: Robot,
        access: &[Access],
        repos: &[&'static str],
        lists: bool,
    ) -> &mut Principal {
        let password = robot.map(|(access, pattern)| self.robot_token(owner, access, pattern));
        let header = basic(owner, password.as_deref().unwrap_or(PASSWORD));
        let who = self.exchanged(Some(owner), Some(&header), access, repos, lists);
        who.limit = robot;
        if let Some((access, pattern)) = robot {
            who.name += &format!(", by a robot token to {} {pattern}", access.word());
        }
        who
    }

    fn bearer_of_nobody(&mut self, access: &[Access], repos: &[&'static str], lists: bool) {
        self.exchanged(None, None, access, repos, lists);
    }

    fn exchanged(
        &mut self,
        owner: Option<&str>,
        header: Option<&str>,
        access: &[Access],
        repos: &[&'static str],
        lists: bool,
    ) -> &mut Principal {
        let words = access.iter().map(|access| access.word()).collect::<Vec<_>>().join(",");
        let mut scopes: Vec<String> = repos.iter().map(|repo| format!("repository:{repo}:{words}")).collect();
        scopes.extend(lists.then(|| "registry:catalog:*".to_owned()));
        let mut ask = self.site.ask("GET", &format!("/token?scope={}", scopes.join("%20"))).by_nobody();
        if let Some(header) = header {
            ask = ask.header("Authorization", header);
        }
        let answer = ask.send();
        let bearer = format!("Bearer {}", text(&answer.json(), "token"));
        let more = if lists { " and lists" } else { "" };
        let at = if let [one] = repos { (*one).to_owned() } else { format!("{} places", repos.len()) };
        let name = format!("{}'s bearer token to {words} {at}{more}", owner.unwrap_or("nobody"));
        let scope = Scope { access: access.to_vec(), repos: repos.to_vec(), lists };
        let who = self.add(name, owner, Scheme::Bearer, Some(bearer));
        who.scope = Some(scope);
        who
    }

    fn jwt(&mut self, owner: &str, robot: Robot) -> &mut Principal {
        let password = robot.map(|(access, pattern)| self.robot_token(owner, access, pattern));
        let body = json!({"username": owner, "password": password.as_deref().unwrap_or(PASSWORD)});
        let answer = self.site.ask("POST", "/v2/users/login").by_nobody().json(&body).send();
        let header = format!("JWT {}", text(&answer.json(), "token"));
        let by = robot.map(|(access, pattern)| format!(", by a robot token to {} {pattern}", access.word()));
        let name = format!("{owner}'s JWT{}", by.unwrap_or_default());
        let who = self.add(name, Some(owner), Scheme::Jwt, Some(header));
        who.limit = robot;
        who
    }

    fn v1(&mut self, owner: &str, access: Access, repo: &'static str) -> &mut Principal {
        self.v1_token(Some(owner), access, repo)
    }

    fn v1_of_nobody(&mut self, repo: &'static str) {
        self.v1_token(None, Access::Pull, repo);
    }

    fn v1_token(&mut self, owner: Option<&str>, access: Access, repo: &'static str) -> &mut Principal {
        let holder = owner.map(|owner| self.known(owner));
        let name = RepoName::parse(repo).unwrap();
        let signature = self.site.registry.v1_token_new(holder.as_ref(), &name, access).unwrap();
        let header = format!("Token signature={signature}");
        let name = format!("{}'s v1 token to {} {repo}", owner.unwrap_or("nobody"), access.word());
        let who = self.add(name, owner, Scheme::V1, Some(header));
        // To change something one may look at it.
        let access = if access == Access::Pull { vec![access] } else { vec![Access::Pull, access] };
        who.scope = Some(Scope { access, repos: vec![repo], lists: false });
        who
    }

    fn service(&mut self, owner: &str, workspace: &'static str) -> &mut Principal {
        let made = self.site.registry.service_add(&user(owner), Some(workspace)).unwrap();
        let body = json!({"client_id": made.row.id, "client_secret": made.secret});
        let answer = self.site.ask("POST", "/public/v2/service_auth").by_nobody().json(&body).send();
        let header = format!("Bearer {}", text(&answer.json()["token"], "access_token"));
        let name = format!("{owner}'s service client in {workspace}");
        let who = self.add(name, Some(owner), Scheme::Service, Some(header));
        who.limit = Some((Access::Delete, if workspace == "acme" { "acme/*" } else { "nina/*" }));
        who
    }

    fn end_services_of(&self, owner: &str, workspace: &str) {
        let rows = self.site.registry.services().unwrap();
        for row in rows.iter().filter(|row| row.user == owner && row.workspace == workspace) {
            self.site.registry.service_remove(&row.id).unwrap();
        }
    }

    /// Uses the v1 token up that was made last.
    fn spend_last(&self) {
        let header = self.all.last().unwrap().header.as_deref().unwrap();
        let ask = self.site.ask("PUT", "/v1/repositories/acme/secret/auth").by_nobody();
        assert_eq!(ask.header("Authorization", header).send().status, 200);
    }

    fn known(&self, name: &str) -> User {
        let rows = self.site.registry.users().unwrap();
        rows.into_iter().map(|row| row.user).find(|user| user.name == name).unwrap()
    }

    fn last_robot(&self) -> TokenRow {
        self.site.registry.tokens().unwrap().into_iter().max_by_key(|row| row.id).unwrap()
    }

    fn sleep_last(&self) {
        let row = self.last_robot();
        let owner = self.known(&row.owner);
        let uuid = Uuid::parse(&row.uuid).unwrap();
        self.site.registry.token_change(&owner, &uuid, None, Some(false)).unwrap();
    }

    fn revoke_last(&self) {
        self.site.registry.token_revoke(self.last_robot().id).unwrap();
    }
}

fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}"))
}
