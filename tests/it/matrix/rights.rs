//! What a row demands, as rights.txt says it, and what must come of it for whoever asks.
//!
//! It is the same law that the registry keeps, written a second time, from the documents.

use outport::registry::{Access, Standing};

use super::people::{Person, Place, Principal, Scheme};

/// The words of rights.txt; what they mean stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Nothing,
    Known,
    User,
    Password,
    Own,
    Session,
    Exchange,
    SignUp,
    List,
    Catalog,
    Bring,
    Everywhere,
    Workspace,
    Org(Standing),
    Repo(Access),
    Star,
    Spend,
    Create,
    Id(Access),
    IdStar,
    IdsDelete,
}

const WORDS: [(&str, Right); 25] = [
    ("nothing", Right::Nothing),
    ("known", Right::Known),
    ("user", Right::User),
    ("password", Right::Password),
    ("self", Right::Own),
    ("session", Right::Session),
    ("exchange", Right::Exchange),
    ("sign-up", Right::SignUp),
    ("list", Right::List),
    ("catalog", Right::Catalog),
    ("bring", Right::Bring),
    ("everywhere", Right::Everywhere),
    ("workspace", Right::Workspace),
    ("org-member", Right::Org(Standing::Member)),
    ("org-owner", Right::Org(Standing::Owner)),
    ("pull", Right::Repo(Access::Pull)),
    ("push", Right::Repo(Access::Push)),
    ("delete", Right::Repo(Access::Delete)),
    ("star", Right::Star),
    ("spend", Right::Spend),
    ("create", Right::Create),
    ("id-pull", Right::Id(Access::Pull)),
    ("id-push", Right::Id(Access::Push)),
    ("id-star", Right::IdStar),
    ("ids-delete", Right::IdsDelete),
];

impl Right {
    pub fn parse(word: &str) -> Right {
        let found = WORDS.iter().find(|(known, _)| *known == word);
        found.unwrap_or_else(|| panic!("rights.txt has no word {word:?}")).1
    }

    /// Whether it is a right in one repository.
    pub fn is_about_a_repo(self) -> bool {
        use Right::{Create, Id, IdStar, IdsDelete, Repo, Spend, Star};
        matches!(self, Repo(_) | Star | Spend | Create | Id(_) | IdStar | IdsDelete)
    }
}

/// A row of the route table with its line of rights.txt.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub dialect: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub handler: &'static str,
    pub right: Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Whatever the answer is then.
    Allowed,
    /// With this status.
    Refused(u16),
    /// 200, and a list of nothing that was done.
    PassedBy,
}

/// Whom `/v1/users/{user}` is asked about.
pub const ONESELF: &str = "rita";

/// What must come of it. `place` for rights in a repository.
pub fn verdict(row: &Row, who: &Principal, place: Option<&Place>, open: bool) -> Verdict {
    if row.right == Right::Nothing {
        return Verdict::Allowed;
    }
    let taken = is_taken(row, who, place);
    if let Some(status) = if taken { who.ended } else { Some(401) } {
        // A v1 token that is not good is one that may not be spent.
        let token = matches!(who.scheme, Scheme::Bearer | Scheme::V1 | Scheme::Service);
        return Verdict::Refused(if row.right == Right::Spend && token { 403 } else { status });
    }
    let (is_user, is_known) = (who.person.is_some(), who.person.is_some() || who.scope.is_some());
    let or = |fits: bool, status: u16| if fits { Verdict::Allowed } else { Verdict::Refused(status) };
    // Nobody is asked who they are; a user is told no.
    let user_who = |fits: bool| or(is_user && fits, if is_user { 403 } else { 401 });
    let known_who = |fits: bool| or(is_known && fits, if is_known { 403 } else { 401 });
    let lists = who.reaches_everywhere(Access::Pull) && who.scope.as_ref().is_none_or(|scope| scope.lists);
    match row.right {
        Right::Nothing => Verdict::Allowed,
        Right::Known => or(is_known, 401),
        Right::User => or(is_user, 401),
        Right::Password => known_who(who.scheme == Scheme::Password),
        Right::Own => known_who(who.scheme == Scheme::Password && (is_admin(who) || who.is(ONESELF))),
        Right::SignUp => known_who(who.scheme == Scheme::Password && is_admin(who)),
        Right::Session => user_who(who.limit.is_none()),
        Right::Exchange => or(is_user || open, 401),
        Right::List if !is_user => or(open, 401),
        Right::List => or(lists, 403),
        // The registry's own clients ask again where a token does not do.
        Right::Catalog => or(is_known && lists, 401),
        Right::Bring => user_who(who.limit.is_none_or(|(access, _)| access >= Access::Push)),
        Right::Everywhere => user_who(who.reaches_everywhere(Access::Pull)),
        // A service client knows of no workspace but its own.
        Right::Workspace if who.scheme == Scheme::Service => or(who.reaches(Access::Pull, "acme/any"), 401),
        // Robot tokens see of the list what they reach.
        Right::Workspace if who.scope.is_some() && !lists => Verdict::Refused(403),
        Right::Workspace => or(is_user, 401),
        Right::Org(needs) => {
            let access = if needs == Standing::Owner { Access::Delete } else { Access::Pull };
            let stands = who.person.is_some_and(|person| person.standing() >= needs);
            user_who(stands && who.reaches_everywhere(access))
        }
        _ => in_repo(row, who, place.unwrap(), open),
    }
}

fn in_repo(row: &Row, who: &Principal, place: &Place, open: bool) -> Verdict {
    let is_user = who.person.is_some();
    let covers = |access| covers(who, access, place, open);
    let may = |access| covers(access) && holds(who, access, place, open);
    let denied = Verdict::Refused(if is_user { 403 } else { 401 });
    let narrow = Verdict::Refused(if row.dialect == "oci" { 401 } else { 403 });
    let of_repo = |access| match may(access) {
        true => Verdict::Allowed,
        false if !covers(access) => narrow,
        // To old clients what is closed is not there.
        false if row.dialect == "v1" && access == Access::Pull && is_user => Verdict::Refused(404),
        false => denied,
    };
    let of_thing = |access| match may(Access::Pull) && place.there {
        _ if !is_user && who.scope.is_none() => Verdict::Refused(401),
        false => Verdict::Refused(404),
        true if may(access) => Verdict::Allowed,
        true => Verdict::Refused(403),
    };
    let as_user = |verdict| match verdict {
        Verdict::Allowed if !is_user => Verdict::Refused(401),
        verdict => verdict,
    };
    match row.right {
        Right::Repo(access) => of_repo(access),
        Right::Star => as_user(of_repo(Access::Pull)),
        Right::Create if !is_user => Verdict::Refused(401),
        Right::Create => of_repo(Access::Push),
        Right::Id(access) => of_thing(access),
        Right::IdStar => as_user(of_thing(Access::Pull)),
        Right::IdsDelete if !is_user && who.scope.is_none() => Verdict::Refused(401),
        Right::IdsDelete if place.there && may(Access::Pull) && may(Access::Delete) => Verdict::Allowed,
        Right::IdsDelete => Verdict::PassedBy,
        Right::Spend => match (who.scheme, &who.scope) {
            (Scheme::V1, Some(scope)) => {
                let meant = *scope.access.last().unwrap();
                match covers(Access::Pull) {
                    true if holds(who, meant, place, open) => Verdict::Allowed,
                    true => denied,
                    false => narrow,
                }
            }
            (Scheme::Nobody, _) => Verdict::Refused(401),
            _ => Verdict::Refused(403),
        },
        _ => unreachable!("{row:?}"),
    }
}

/// Whether what they bring is read at all where they bring it.
fn is_taken(row: &Row, who: &Principal, place: Option<&Place>) -> bool {
    match who.scheme {
        Scheme::Nobody | Scheme::Password | Scheme::Robot => true,
        // It is for the registry.
        Scheme::Generated => row.dialect != "hub",
        Scheme::Bearer => matches!(row.dialect, "oci" | "v1" | "mlspace"),
        Scheme::Jwt => row.dialect == "hub",
        Scheme::Service => row.dialect == "mlspace",
        Scheme::V1 => {
            // Nobody's is known by where it is shown.
            let here = who.person.is_some() || place.is_some_and(|place| who.is_for(place.repo));
            row.dialect == "v1" && row.path.starts_with("/v1/repositories/") && here
        }
    }
}

/// Whether it is no secret to them what is there, and what is not.
pub fn sees(who: &Principal, place: &Place, open: bool) -> bool {
    covers(who, Access::Pull, place, open) && holds(who, Access::Pull, place, open)
}

/// Whether what they bring was made for this.
fn covers(who: &Principal, access: Access, place: &Place, open: bool) -> bool {
    let meant =
        who.scope.as_ref().is_none_or(|scope| scope.access.contains(&access)) && who.is_for(place.repo);
    match who.scheme {
        // Cut to what its user might when it was made.
        Scheme::Bearer => meant && holds(who, access, place, open),
        _ => meant,
    }
}

/// Whether they may, as far as a robot token reaches.
pub fn holds(who: &Principal, access: Access, place: &Place, open: bool) -> bool {
    let read = access == Access::Pull && place.public && (who.person.is_some() || open);
    let held = who.person.is_some_and(|person| person.holds(access, place.repo));
    who.reaches(access, place.repo) && (read || held)
}

fn is_admin(who: &Principal) -> bool {
    who.person.is_some_and(Person::is_admin)
}
