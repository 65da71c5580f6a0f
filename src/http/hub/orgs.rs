//! The user who asks, organisations, their groups and members.

use hyper::StatusCode;
use hyper::header::USER_AGENT;
use serde_json::{Value, json};

use super::form::Form;
use super::pages::Paging;
use crate::error::{Kind, Result, Thing};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::http::rfc3339_us;
use crate::names::UserName;
use crate::registry::{
    Access, GroupInfo, GroupName, Listed, Member, OWNERS, OrgInfo, Person, Slice, Standing,
};

/// Longest description of a group, in characters.
const DESCRIPTION_MAX: usize = 250;
const NAME_MAX: usize = 64;
/// Most members in an answer without pages.
const BARE_MAX: u32 = 1_000;

/// The organisation of the path, if whoever asks is that much to it.
fn org_as(call: &Call, needs: Standing) -> Result<UserName> {
    let org = UserName::parse(call.param("org"))?;
    let access = if needs == Standing::Owner { Access::Delete } else { Access::Pull };
    super::check_caller(call, access)?;
    let user = call.user()?;
    match call.look(|registry| registry.org_standing(user, &org))? {
        standing if standing >= needs => Ok(org),
        _ => Err(Kind::Denied.into()),
    }
}

fn group_as(call: &Call, needs: Standing) -> Result<GroupName> {
    let org = org_as(call, needs)?;
    // A name that none can have is one we do not know.
    let missing = Kind::NotFound(Thing::User);
    Ok(GroupName::parse(&format!("{org}/{}", call.param("group"))).map_err(|_| missing)?)
}

/// Hub's ids of users and organisations: a UUID's 32 digits.
fn hex_id(uuid: &str) -> String {
    uuid.replace('-', "")
}

// The user who asks ---------------------------------------------------------------------

fn show_person(person: &Person) -> Value {
    json!({
        "id": hex_id(&person.uuid),
        "uuid": person.uuid,
        "username": person.name,
        "full_name": "",
        "location": "",
        "company": "",
        "gravatar_email": "",
        "gravatar_url": "",
        "profile_url": "",
        "is_staff": person.admin,
        "is_admin": person.admin,
        "date_joined": rfc3339_us(person.created_us),
        "type": "User",
    })
}

pub async fn user(call: Call) -> Result<Reply> {
    let person = call.look(|registry| registry.person(call.user()?))?;
    Ok(reply::json(StatusCode::OK, &show_person(&person)))
}

pub async fn orgs(call: Call) -> Result<Reply> {
    super::check_caller(&call, Access::Pull)?;
    let (user, paging) = (call.user()?.clone(), Paging::of(&call)?);
    let slice = paging.slice();
    let rows = call.run(move |registry| registry.orgs_of(&user, slice)).await?;
    paging.reply(&call, &rows, show_org)
}

// Organisations -------------------------------------------------------------------------

fn show_org(org: &OrgInfo) -> Value {
    json!({
        "id": hex_id(&org.uuid),
        "uuid": org.uuid,
        "orgname": org.name,
        "full_name": org.full_name,
        "location": "",
        "company": "",
        "gravatar_email": "",
        "gravatar_url": "",
        "profile_url": "",
        "date_joined": rfc3339_us(org.created_us),
        "type": "Organization",
    })
}

/// Whoever is known may see that there is such an organisation.
pub async fn org(call: Call) -> Result<Reply> {
    let org = org_as(&call, Standing::Stranger)?;
    let row = call.look(|registry| registry.org_info(&org))?;
    Ok(reply::json(StatusCode::OK, &show_org(&row)))
}

fn show_member(member: &Member) -> Value {
    let mut body = show_person(&member.person);
    body["role"] = if member.is_owner() { "Owner" } else { "Member" }.into();
    body["groups"] = json!(member.groups);
    body["is_guest"] = false.into();
    body
}

pub async fn org_members(call: Call) -> Result<Reply> {
    let (org, paging) = (org_as(&call, Standing::Member)?, Paging::of(&call)?);
    let slice = paging.slice();
    let rows = call.run(move |registry| registry.org_members(&org, slice)).await?;
    paging.reply(&call, &rows, show_member)
}

/// Makes a member an owner, or no longer one. Being a member is being in a group.
pub async fn org_role(mut call: Call) -> Result<Reply> {
    let (org, user) = (org_as(&call, Standing::Owner)?, UserName::parse(call.param("user"))?);
    let mut form = Form::read(&mut call).await?;
    let role = form.required("role", 16).to_ascii_lowercase();
    if !matches!(role.as_str(), "owner" | "member" | "editor") {
        form.fault("role", format!("\"{role}\" is not a valid choice."));
    }
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    let owns = role == "owner";
    let name = user.clone();
    call.run(move |registry| match owns {
        true => registry.group_join(&GroupName { org, group: OWNERS.to_owned() }, &user),
        false => registry.org_demote(&org, &user),
    })
    .await?;
    Ok(reply::json(StatusCode::OK, &json!({"username": name.as_str(), "role": role})))
}

pub async fn org_leave(call: Call) -> Result<Reply> {
    let (org, user) = (org_as(&call, Standing::Owner)?, UserName::parse(call.param("user"))?);
    call.run(move |registry| registry.org_leave(&org, &user)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

// Groups --------------------------------------------------------------------------------

fn show_group(group: &GroupInfo) -> Value {
    json!({
        "id": group.id,
        "uuid": group.uuid,
        "name": group.name,
        "description": group.description,
        "member_count": group.members,
    })
}

/// `search` in their names, and those that `username` is in.
pub async fn groups(call: Call) -> Result<Reply> {
    let (org, paging) = (org_as(&call, Standing::Member)?, Paging::of(&call)?);
    let needle = call.query("search").unwrap_or_default().into_owned();
    let with = call.query("username").filter(|name| !name.is_empty()).map(std::borrow::Cow::into_owned);
    let slice = paging.slice();
    let rows = call.run(move |registry| registry.groups_of(&org, &needle, with.as_deref(), slice)).await?;
    paging.reply(&call, &rows, show_group)
}

pub async fn group_create(mut call: Call) -> Result<Reply> {
    let org = org_as(&call, Standing::Owner)?;
    let mut form = Form::read(&mut call).await?;
    let name = form.required("name", NAME_MAX);
    let description = form.text("description", DESCRIPTION_MAX).unwrap_or_default();
    let group = GroupName::parse(&format!("{org}/{name}")).ok();
    if group.is_none() {
        form.fault("name", "A group's name is made of letters, digits, '-' and '_'.");
    }
    let (Some(group), None) = (group, form.refusal()) else {
        return form.refusal().ok_or(Kind::Invalid(Thing::Request).into());
    };
    let made = call
        .run(move |registry| {
            registry.group_add(&group, &description)?;
            registry.group_info(&group)
        })
        .await?;
    Ok(reply::json(StatusCode::CREATED, &show_group(&made)))
}

pub async fn group(call: Call) -> Result<Reply> {
    let group = group_as(&call, Standing::Member)?;
    let row = call.look(|registry| registry.group_info(&group))?;
    Ok(reply::json(StatusCode::OK, &show_group(&row)))
}

/// PUT and PATCH alike: what is not sent stays.
pub async fn group_change(mut call: Call) -> Result<Reply> {
    let group = group_as(&call, Standing::Owner)?;
    let mut form = Form::read(&mut call).await?;
    let description = form.text("description", DESCRIPTION_MAX);
    let name = match form.text("name", NAME_MAX) {
        None => None,
        Some(name) => {
            let name = GroupName::parse(&format!("{}/{name}", group.org)).ok();
            if name.is_none() {
                form.fault("name", "A group's name is made of letters, digits, '-' and '_'.");
            }
            name
        }
    };
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    let row = call.run(move |registry| registry.group_change(&group, name, description)).await?;
    Ok(reply::json(StatusCode::OK, &show_group(&row)))
}

pub async fn group_delete(call: Call) -> Result<Reply> {
    let group = group_as(&call, Standing::Owner)?;
    call.run(move |registry| registry.group_remove(&group)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// In pages; but hub-tool takes only a bare list, and sends what others send who take pages.
pub async fn group_members(call: Call) -> Result<Reply> {
    let (group, paging) = (group_as(&call, Standing::Member)?, Paging::of(&call)?);
    let bare = call.header(USER_AGENT).is_some_and(|agent| agent.starts_with("hub-tool/"));
    let slice = if bare { Slice { skip: 0, take: BARE_MAX } } else { paging.slice() };
    let rows: Listed<Member> = call.run(move |registry| registry.group_members(&group, slice)).await?;
    if bare {
        let rows: Vec<Value> = rows.rows.iter().map(show_member).collect();
        return Ok(reply::json(StatusCode::OK, &json!(rows)));
    }
    paging.reply(&call, &rows, show_member)
}

pub async fn group_join(mut call: Call) -> Result<Reply> {
    let group = group_as(&call, Standing::Owner)?;
    let mut form = Form::read(&mut call).await?;
    let member = form.required("member", NAME_MAX);
    let user = UserName::parse(&member);
    if let Err(error) = &user {
        form.fault("member", error.detail());
    }
    if let Some(refusal) = form.refusal() {
        return Ok(refusal);
    }
    let user = user?;
    call.run(move |registry| registry.group_join(&group, &user)).await?;
    Ok(reply::json(StatusCode::OK, &json!({"member": member})))
}

pub async fn group_leave(call: Call) -> Result<Reply> {
    let (group, user) = (group_as(&call, Standing::Owner)?, UserName::parse(call.param("user"))?);
    call.run(move |registry| registry.group_leave(&group, &user)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
