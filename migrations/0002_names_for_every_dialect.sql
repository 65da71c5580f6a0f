-- From version 1 to 2: what the v1 index, Docker Hub and ML Space call things by; and
-- organisations, groups, grants and tokens.
--
-- A table that gains a column that must not be null is made anew and filled, for SQLite
-- adds no such column. Foreign keys are off meanwhile, and checked at the end (db.rs).

-- user
CREATE TABLE user_new (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid       TEXT    NOT NULL UNIQUE,
  name       TEXT    NOT NULL UNIQUE,
  password   TEXT    NOT NULL,
  admin      INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
  active     INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  generation INTEGER NOT NULL DEFAULT 1,
  created_us INTEGER NOT NULL
) STRICT;
INSERT INTO user_new (id, uuid, name, password, admin, generation, created_us)
  SELECT id, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
    substr('89ab', 1 + abs(random() % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    name, password, admin, generation, created_us FROM user;

-- email
CREATE TABLE email_new (
  address    TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  created_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO email_new (address, user, created_us)
  SELECT e.address, e.user, u.created_us FROM email AS e JOIN user AS u ON u.id = e.user;

-- namespace
CREATE TABLE namespace_new (
  id         INTEGER PRIMARY KEY,
  uuid       TEXT    NOT NULL UNIQUE,
  name       TEXT    NOT NULL UNIQUE,
  kind       TEXT    NOT NULL DEFAULT 'plain' CHECK (kind IN ('plain', 'user', 'org')),
  owner      INTEGER REFERENCES user ON DELETE SET NULL,
  full_name  TEXT    NOT NULL DEFAULT '',
  created_us INTEGER NOT NULL
) STRICT;
INSERT INTO namespace_new (id, uuid, name, kind, owner, created_us)
  SELECT id, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
    substr('89ab', 1 + abs(random() % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    name, CASE WHEN owner IS NULL THEN 'plain' ELSE 'user' END, owner, created_us FROM namespace;

-- repo
CREATE TABLE repo_new (
  id         INTEGER PRIMARY KEY,
  uuid       TEXT    NOT NULL UNIQUE,
  namespace  INTEGER NOT NULL REFERENCES namespace,
  name       TEXT    NOT NULL UNIQUE,
  private    INTEGER NOT NULL CHECK (private IN (0, 1)),
  pushed     INTEGER NOT NULL DEFAULT 0 CHECK (pushed IN (0, 1)),
  description      TEXT NOT NULL DEFAULT '',
  full_description TEXT NOT NULL DEFAULT '',
  labels     TEXT    NOT NULL DEFAULT '[]',
  pulls      INTEGER NOT NULL DEFAULT 0,
  created_by INTEGER REFERENCES user ON DELETE SET NULL,
  created_us INTEGER NOT NULL,
  updated_us INTEGER NOT NULL,
  pushed_us  INTEGER
) STRICT;
INSERT INTO repo_new (id, uuid, namespace, name, private, pushed, created_us, updated_us, pushed_us)
  SELECT id, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
    substr('89ab', 1 + abs(random() % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    namespace, name, private, EXISTS (SELECT 1 FROM manifest WHERE repo = r.id), created_us,
    coalesce((SELECT max(pushed_us) FROM manifest WHERE repo = r.id), created_us),
    (SELECT max(pushed_us) FROM manifest WHERE repo = r.id) FROM repo AS r;

-- manifest
CREATE TABLE manifest_new (
  id            INTEGER PRIMARY KEY,
  uuid          TEXT    NOT NULL UNIQUE,
  repo          INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  digest        TEXT    NOT NULL,
  media_type    TEXT    NOT NULL,
  bytes         INTEGER NOT NULL,
  config        TEXT,
  content_bytes INTEGER NOT NULL DEFAULT 0,
  subject       TEXT,
  artifact_type TEXT,
  annotations   TEXT,
  pushed_us     INTEGER NOT NULL,
  pushed_by     INTEGER REFERENCES user ON DELETE SET NULL,
  live          INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
  body          BLOB    NOT NULL,
  UNIQUE (repo, digest)
) STRICT;
INSERT INTO manifest_new (id, uuid, repo, digest, media_type, bytes, config, content_bytes, subject,
    artifact_type, annotations, pushed_us, pushed_by, live, body)
  SELECT id, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
    substr('89ab', 1 + abs(random() % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    repo, digest, media_type, bytes,
    CASE WHEN json_valid(CAST(body AS TEXT)) THEN json_extract(CAST(body AS TEXT), '$.config.digest') END,
    CASE WHEN json_valid(CAST(body AS TEXT)) THEN
      coalesce(json_extract(CAST(body AS TEXT), '$.config.size'), 0) +
      coalesce((SELECT sum(json_extract(value, '$.size')) FROM json_each(CAST(body AS TEXT), '$.layers')), 0)
    ELSE 0 END,
    subject, artifact_type, annotations, pushed_us, pushed_by, live, body FROM manifest;

-- tag
CREATE TABLE tag_new (
  id        INTEGER PRIMARY KEY,
  uuid      TEXT    NOT NULL UNIQUE,
  repo      INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  name      TEXT    NOT NULL,
  manifest  INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  color     TEXT,
  pushed_us INTEGER NOT NULL,
  pushed_by INTEGER REFERENCES user ON DELETE SET NULL,
  UNIQUE (repo, name)
) STRICT;
INSERT INTO tag_new (id, uuid, repo, name, manifest, pushed_us)
  SELECT id, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
    substr('89ab', 1 + abs(random() % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))),
    repo, name, manifest, pushed_us FROM tag;

-- in place of the old ones

DROP TABLE user;
ALTER TABLE user_new RENAME TO user;

DROP TABLE email;
ALTER TABLE email_new RENAME TO email;
CREATE INDEX email_user ON email (user, created_us);

DROP TABLE namespace;
ALTER TABLE namespace_new RENAME TO namespace;
CREATE INDEX namespace_owner ON namespace (owner);

DROP TABLE repo;
ALTER TABLE repo_new RENAME TO repo;
CREATE INDEX repo_namespace ON repo (namespace, name);
CREATE INDEX repo_public ON repo (name) WHERE private = 0;
CREATE INDEX repo_created_by ON repo (created_by) WHERE created_by IS NOT NULL;

DROP TABLE manifest;
ALTER TABLE manifest_new RENAME TO manifest;
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_pushed_by ON manifest (pushed_by) WHERE pushed_by IS NOT NULL;
CREATE INDEX manifest_pushed ON manifest (repo, pushed_us);

DROP TABLE tag;
ALTER TABLE tag_new RENAME TO tag;
CREATE INDEX tag_manifest ON tag (manifest);
CREATE INDEX tag_pushed_by ON tag (pushed_by) WHERE pushed_by IS NOT NULL;

-- new

CREATE TABLE generated_password (
  user       INTEGER PRIMARY KEY REFERENCES user ON DELETE CASCADE,
  hash       BLOB    NOT NULL UNIQUE,
  created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid       TEXT    NOT NULL UNIQUE,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  hash       BLOB    NOT NULL UNIQUE,
  label      TEXT    NOT NULL,
  access     TEXT    NOT NULL CHECK (access IN ('pull', 'push', 'delete')),
  pattern    TEXT    NOT NULL,
  active     INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  created_us INTEGER NOT NULL,
  expires_us INTEGER
) STRICT;
CREATE INDEX token_user ON token (user);

CREATE TABLE service_client (
  id         TEXT    PRIMARY KEY,
  secret     BLOB    NOT NULL,
  api_key    BLOB    NOT NULL,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  namespace  INTEGER NOT NULL REFERENCES namespace ON DELETE CASCADE,
  created_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE v1_token (
  hash         BLOB    PRIMARY KEY,
  user         INTEGER REFERENCES user ON DELETE CASCADE,
  repo         TEXT    NOT NULL,
  access       TEXT    NOT NULL CHECK (access IN ('read', 'write', 'delete')),
  expires_secs INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX v1_token_expires ON v1_token (expires_secs);

CREATE TABLE org_group (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid        TEXT    NOT NULL UNIQUE,
  namespace   INTEGER NOT NULL REFERENCES namespace ON DELETE CASCADE,
  name        TEXT    NOT NULL,
  description TEXT    NOT NULL DEFAULT '',
  UNIQUE (namespace, name)
) STRICT;

CREATE TABLE group_member (
  user      INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  org_group INTEGER NOT NULL REFERENCES org_group ON DELETE CASCADE,
  PRIMARY KEY (user, org_group)
) WITHOUT ROWID, STRICT;
CREATE INDEX group_member_group ON group_member (org_group);

CREATE TABLE access_grant (
  pattern   TEXT    NOT NULL,
  user      INTEGER REFERENCES user ON DELETE CASCADE,
  org_group INTEGER REFERENCES org_group ON DELETE CASCADE,
  level     INTEGER NOT NULL CHECK (level IN (1, 2, 3)),
  CHECK ((user IS NULL) <> (org_group IS NULL))
) STRICT;
CREATE UNIQUE INDEX grant_user ON access_grant (user, pattern) WHERE user IS NOT NULL;
CREATE UNIQUE INDEX grant_group ON access_grant (org_group, pattern) WHERE org_group IS NOT NULL;
CREATE INDEX grant_pattern ON access_grant (pattern);

CREATE TABLE star (
  repo       INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  user       INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
  created_us INTEGER NOT NULL,
  PRIMARY KEY (repo, user)
) WITHOUT ROWID, STRICT;
CREATE INDEX star_user ON star (user);

CREATE TABLE v1_image (
  repo     INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  image    TEXT    NOT NULL,
  position INTEGER NOT NULL,
  checksum TEXT,
  PRIMARY KEY (repo, image)
) WITHOUT ROWID, STRICT;
