//! Service clients: programs that log in to ML Space's API by id and secret, each for one
//! user in one workspace.

use serde::Serialize;

use super::grants::Pattern;
use super::mlspace::Workspace;
use super::people::{User, user_id};
use super::tokens::{TOKEN_PREFIX, TokenScope, hash, mint};
use super::{Access, Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::UserName;

/// A service client as lists show it; its secrets are nowhere.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceRow {
    /// ML Space's `client_id`.
    pub id: String,
    pub user: String,
    /// The namespace it is confined to, and that one's UUID: ML Space's `x-workspace-id`.
    pub workspace: String,
    pub workspace_id: String,
    pub created_us: i64,
}

/// A service client that was just made, with what is not shown again.
#[derive(Debug, Serialize)]
pub struct ServiceMade {
    #[serde(flatten)]
    pub row: ServiceRow,
    /// ML Space's `client_secret`.
    pub secret: String,
    /// ML Space's `x-api-key`.
    pub api_key: String,
}

/// For whom a service client acts, and where: everything its user may, in one workspace.
#[derive(Debug)]
pub struct Service {
    pub user: User,
    pub workspace: Workspace,
    pub scope: TokenScope,
}

impl Registry {
    /// Makes a service client for a user in a namespace; in the user's own, if none is named.
    pub fn service_add(&self, user: &UserName, namespace: Option<&str>) -> Result<ServiceMade> {
        let (secret, secret_hash) = mint(&format!("{TOKEN_PREFIX}secret_"))?;
        let (api_key, key_hash) = mint(&format!("{TOKEN_PREFIX}key_"))?;
        let (user, namespace) = (user.clone(), namespace.unwrap_or(user.as_str()).to_owned());
        let row = self.db.write(move |write| {
            let user = user_id(write.tx, &user)?;
            let missing = || {
                Kind::NotFound(Thing::Repo).because(format!(
                    "there is no namespace {namespace}; it comes with its user, its organisation or its first push"
                ))
            };
            let workspace = sql::workspace_named(write.tx, &namespace)?.ok_or_else(missing)?;
            let id =
                sql::service_insert(write.tx, user, workspace.id, &secret_hash, &key_hash, write.now_us)?;
            Ok(sql::service(write.tx, &id)?.ok_or(Kind::NotFound(Thing::User))?)
        })?;
        Ok(ServiceMade { row, secret, api_key })
    }

    pub fn services(&self) -> Result<Vec<ServiceRow>> {
        self.db.read(sql::services)
    }

    /// Ends a service client; what it was given is void with the next request.
    pub fn service_remove(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.db.write(move |write| match sql::service_delete(write.tx, &id)? {
            true => Ok(()),
            false => Err(Kind::NotFound(Thing::User)
                .because(format!("there is no service client {id}; `outport service list` shows them"))),
        })
    }

    /// The service client of an id and a secret. The secret is random: nothing to guess, so
    /// nothing is counted.
    pub fn service_verify(&self, id: &str, secret: &str) -> Result<Option<Service>> {
        let hash = hash(secret);
        self.db.read(|tx| Ok(sql::service_holder(tx, id, Some(&hash))?.map(service)))
    }

    /// A service client that logged in a while ago, as it is now.
    pub fn service_still(&self, id: &str) -> Result<Option<Service>> {
        self.db.read(|tx| Ok(sql::service_holder(tx, id, None)?.map(service)))
    }

    /// Whether an API key is that of a service client of this workspace.
    pub fn service_key_fits(&self, workspace: &Workspace, api_key: &str) -> Result<bool> {
        let hash = hash(api_key);
        self.db.read(|tx| sql::service_key_fits(tx, workspace.id, &hash))
    }
}

fn service((user, workspace): (User, Workspace)) -> Service {
    let pattern = Pattern::Namespace(workspace.name.clone()).text();
    Service { user, scope: TokenScope { access: Access::Delete, pattern }, workspace }
}
