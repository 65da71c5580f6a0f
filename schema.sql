-- The whole schema of Outport's database: what a new data directory gets.
--
-- PRAGMA user_version counts its versions; migrations/ brings older ones here.
-- Times are microseconds since 1970, UTC, unless a name says otherwise; they order
-- and show, and nothing is deleted by them (a clock may jump).
-- Digests are text, `sha256:…` or `sha512:…`, as the protocol writes them.
-- What the ML Space dialect names by UUID has one from its first day; Docker Hub's
-- dialect names the same things by their integer id.

-- What the process must know again after a restart.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- People ----------------------------------------------------------------------
-- Ids that credentials are remembered by are never given twice (AUTOINCREMENT).

CREATE TABLE user (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid       TEXT    NOT NULL UNIQUE,
  name       TEXT    NOT NULL UNIQUE,          -- lower case, one component of a repository name
  password   TEXT    NOT NULL,                 -- PHC string (argon2id), or bcrypt from an htpasswd file
  admin      INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
  -- 0: signed up, and waits for an administrator.
  active     INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  -- Counts changes of password and rights: whoever remembers an older one must ask again.
  generation INTEGER NOT NULL DEFAULT 1,
  created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE email (
  address    TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,   -- another name to log in with
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  created_us INTEGER NOT NULL                  -- the first is the one that is shown
) WITHOUT ROWID, STRICT;
CREATE INDEX email_user ON email (user, created_us);

-- The password that ML Space's generate_password made last: for the registry alone.
CREATE TABLE generated_password (
  user       INTEGER PRIMARY KEY REFERENCES user ON DELETE CASCADE,
  hash       BLOB    NOT NULL UNIQUE,          -- SHA-256; the password is random
  created_us INTEGER NOT NULL
) STRICT;

-- Tokens of people and robots: a password that does less, and ends.
CREATE TABLE token (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid       TEXT    NOT NULL UNIQUE,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  hash       BLOB    NOT NULL UNIQUE,          -- SHA-256; the token is random
  label      TEXT    NOT NULL,
  -- What it may at the most, where its user may it too: pull, push or delete …
  access     TEXT    NOT NULL CHECK (access IN ('pull', 'push', 'delete')),
  -- … in which repositories: a name, `namespace/*`, or `*`.
  pattern    TEXT    NOT NULL,
  active     INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  created_us INTEGER NOT NULL,
  expires_us INTEGER                           -- none: until it is revoked
) STRICT;
CREATE INDEX token_user ON token (user);

-- ML Space: programs that log in by id and secret, each in one workspace for one user.
CREATE TABLE service_client (
  id         TEXT    PRIMARY KEY,
  secret     BLOB    NOT NULL,                 -- SHA-256
  api_key    BLOB    NOT NULL,                 -- SHA-256
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  namespace  INTEGER NOT NULL REFERENCES namespace ON DELETE CASCADE,
  created_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Docker's v1 index: tokens that a push or a delete is given, until they are used up.
CREATE TABLE v1_token (
  hash         BLOB    PRIMARY KEY,            -- SHA-256 of the signature
  user         INTEGER REFERENCES user ON DELETE CASCADE,   -- none: nobody, reading what is public
  repo         TEXT    NOT NULL,               -- name in full; it may be deleted meanwhile
  access       TEXT    NOT NULL CHECK (access IN ('read', 'write', 'delete')),
  expires_secs INTEGER NOT NULL                -- service time
) WITHOUT ROWID, STRICT;
CREATE INDEX v1_token_expires ON v1_token (expires_secs);

-- The first component of repository names, and whose it is.
CREATE TABLE namespace (
  id         INTEGER PRIMARY KEY,
  uuid       TEXT    NOT NULL UNIQUE,          -- ML Space: registry and workspace
  name       TEXT    NOT NULL UNIQUE,
  kind       TEXT    NOT NULL DEFAULT 'plain' CHECK (kind IN ('plain', 'user', 'org')),
  owner      INTEGER REFERENCES user ON DELETE SET NULL,  -- none: administrators only
  full_name  TEXT    NOT NULL DEFAULT '',
  created_us INTEGER NOT NULL
) STRICT;
CREATE INDEX namespace_owner ON namespace (owner);

-- An organisation's groups. `owners` is made with it; its members own the namespace.
CREATE TABLE org_group (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid        TEXT    NOT NULL UNIQUE,
  namespace   INTEGER NOT NULL REFERENCES namespace ON DELETE CASCADE,
  name        TEXT    NOT NULL,
  description TEXT    NOT NULL DEFAULT '',
  UNIQUE (namespace, name)
) STRICT;

-- Being in any of its groups is being a member of the organisation.
CREATE TABLE group_member (
  user      INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  org_group INTEGER NOT NULL REFERENCES org_group ON DELETE CASCADE,
  PRIMARY KEY (user, org_group)
) WITHOUT ROWID, STRICT;
CREATE INDEX group_member_group ON group_member (org_group);

-- Who may what, besides owners: a user or a group, in a repository by name, in
-- `namespace/*`, or in `*`.
CREATE TABLE access_grant (
  pattern   TEXT    NOT NULL,
  user      INTEGER REFERENCES user ON DELETE CASCADE,
  org_group INTEGER REFERENCES org_group ON DELETE CASCADE,
  level     INTEGER NOT NULL CHECK (level IN (1, 2, 3)),   -- read, write, admin
  CHECK ((user IS NULL) <> (org_group IS NULL))
) STRICT;
CREATE UNIQUE INDEX grant_user ON access_grant (user, pattern) WHERE user IS NOT NULL;
CREATE UNIQUE INDEX grant_group ON access_grant (org_group, pattern) WHERE org_group IS NOT NULL;
CREATE INDEX grant_pattern ON access_grant (pattern);

-- Content ---------------------------------------------------------------------

CREATE TABLE repo (
  id         INTEGER PRIMARY KEY,
  uuid       TEXT    NOT NULL UNIQUE,
  namespace  INTEGER NOT NULL REFERENCES namespace,
  name       TEXT    NOT NULL UNIQUE,          -- in full: `library/nginx`, `org/a/b`
  private    INTEGER NOT NULL CHECK (private IN (0, 1)),
  -- Announced by a v1 push or made empty; 1 once it was pushed to, or v1 said it was.
  pushed     INTEGER NOT NULL DEFAULT 0 CHECK (pushed IN (0, 1)),
  description      TEXT NOT NULL DEFAULT '',
  full_description TEXT NOT NULL DEFAULT '',
  labels     TEXT    NOT NULL DEFAULT '[]',    -- JSON list of texts
  pulls      INTEGER NOT NULL DEFAULT 0,       -- written down with other commits only
  created_by INTEGER REFERENCES user ON DELETE SET NULL,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  pushed_us  INTEGER
) STRICT;
CREATE INDEX repo_namespace ON repo (namespace, name);
CREATE INDEX repo_public ON repo (name) WHERE private = 0;
CREATE INDEX repo_created_by ON repo (created_by) WHERE created_by IS NOT NULL;

-- Docker Hub's star and ML Space's favourite.
CREATE TABLE star (
  repo       INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  created_us INTEGER NOT NULL,
  PRIMARY KEY (repo, user)
) WITHOUT ROWID, STRICT;
CREATE INDEX star_user ON star (user);

-- A live row says: the file blobs/<algorithm>/<hex> is there, whole and synced.
CREATE TABLE blob (
  id     INTEGER PRIMARY KEY,
  digest TEXT    NOT NULL UNIQUE,
  bytes  INTEGER NOT NULL CHECK (bytes >= 0),
  -- 0: found to be wrong or missing. It is answered as absent until a push heals it.
  live   INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
  -- CRC32C of each 64 KiB, little-endian, checked before the bytes leave.
  crcs   BLOB    NOT NULL
) STRICT;

-- Which repository holds which blob: what may be seen through it, and mounted from it.
CREATE TABLE repo_blob (
  repo      INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  blob      INTEGER NOT NULL REFERENCES blob,
  seen_secs INTEGER NOT NULL,                  -- service time (see db.rs) of the last push
  PRIMARY KEY (repo, blob)
) WITHOUT ROWID, STRICT;
CREATE INDEX repo_blob_blob ON repo_blob (blob);

-- What a collection looks at: every blob from when it was pushed or mounted (service
-- time), and those that lost a user (0). A row that is not needed does no harm.
CREATE TABLE gc_candidate (
  since_secs INTEGER NOT NULL,
  blob       INTEGER NOT NULL,
  PRIMARY KEY (since_secs, blob)
) WITHOUT ROWID, STRICT;
CREATE TRIGGER repo_blob_gone AFTER DELETE ON repo_blob BEGIN
  INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (0, OLD.blob);
END;

-- An image: one manifest in one repository.
CREATE TABLE manifest (
  id            INTEGER PRIMARY KEY,
  uuid          TEXT    NOT NULL UNIQUE,       -- survives a push of the same bytes, not a deletion
  repo          INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  digest        TEXT    NOT NULL,
  media_type    TEXT    NOT NULL,
  bytes         INTEGER NOT NULL,
  config        TEXT,                          -- digest of its config
  content_bytes INTEGER NOT NULL DEFAULT 0,    -- what it names: config and layers, by their sizes
  subject       TEXT,                          -- digest; it may be missing
  artifact_type TEXT,
  annotations   TEXT,                          -- JSON, for referrers lists
  pushed_us     INTEGER NOT NULL,
  pushed_by     INTEGER REFERENCES user ON DELETE SET NULL,
  live          INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
  body          BLOB    NOT NULL,              -- as pushed, to the byte
  pushed_secs   INTEGER NOT NULL DEFAULT 0,    -- service time: the age that retention goes by
  UNIQUE (repo, digest)
) STRICT;
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_pushed_by ON manifest (pushed_by) WHERE pushed_by IS NOT NULL;
CREATE INDEX manifest_pushed ON manifest (repo, pushed_us);

-- The blobs a manifest relies on.
CREATE TABLE edge (
  manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  blob     INTEGER NOT NULL REFERENCES blob,
  PRIMARY KEY (manifest, blob)
) WITHOUT ROWID, STRICT;
CREATE INDEX edge_blob ON edge (blob);
CREATE TRIGGER edge_gone AFTER DELETE ON edge BEGIN
  INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (0, OLD.blob);
END;

-- The manifests an index lists. By digest, for they may be missing.
CREATE TABLE child (
  manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  digest   TEXT    NOT NULL,
  PRIMARY KEY (manifest, digest)
) WITHOUT ROWID, STRICT;
CREATE INDEX child_digest ON child (digest);

CREATE TABLE tag (
  id        INTEGER PRIMARY KEY,
  uuid      TEXT    NOT NULL UNIQUE,           -- and the colour: survive a re-push, not a deletion
  repo      INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  name      TEXT    NOT NULL,
  manifest  INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  color     TEXT,
  pushed_us INTEGER NOT NULL,
  pushed_by INTEGER REFERENCES user ON DELETE SET NULL,
  pushed_secs INTEGER NOT NULL DEFAULT 0,      -- service time
  UNIQUE (repo, name)
) STRICT;
CREATE INDEX tag_manifest ON tag (manifest);
CREATE INDEX tag_pushed_by ON tag (pushed_by) WHERE pushed_by IS NOT NULL;

-- Docker's v1 index: image ids and checksums that clients announced, in their order.
CREATE TABLE v1_image (
  repo     INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  image    TEXT    NOT NULL,                   -- 12 to 64 hex digits
  position INTEGER NOT NULL,
  checksum TEXT,
  PRIMARY KEY (repo, image)
) WITHOUT ROWID, STRICT;

-- The air gap ------------------------------------------------------------------

-- What archives brought, so that their tags can be put back.
CREATE TABLE import (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  source         TEXT    NOT NULL,             -- a file's name, for people
  sender         TEXT,                         -- who signed a bundle, and which of theirs it was
  sequence       INTEGER,
  imported_by    INTEGER REFERENCES user ON DELETE SET NULL,
  imported_us    INTEGER NOT NULL,
  rolled_back_us INTEGER
) STRICT;

-- The tags an import moved. By name and digest, for repositories and images may go meanwhile.
CREATE TABLE import_tag (
  import INTEGER NOT NULL REFERENCES import ON DELETE CASCADE,
  repo   TEXT    NOT NULL,
  tag    TEXT    NOT NULL,
  before TEXT,                                 -- digest; none: there was no such tag
  after  TEXT    NOT NULL,
  PRIMARY KEY (import, repo, tag)
) WITHOUT ROWID, STRICT;

-- Keys whose bundles are taken.
CREATE TABLE trusted_key (
  name       TEXT    PRIMARY KEY,
  public     BLOB    NOT NULL UNIQUE CHECK (length(public) = 32),   -- Ed25519
  sequence   INTEGER NOT NULL DEFAULT 0,       -- of the last bundle that was taken
  trusted_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
