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
  created_us INTEGER NOT NULL,
  -- How many repositories it has, and how many of them are public; see "Sums".
  repos        INTEGER NOT NULL DEFAULT 0,
  repos_public INTEGER NOT NULL DEFAULT 0
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
  updated_us INTEGER NOT NULL,                 -- pushed to, or described
  pushed_us  INTEGER,
  holds      INTEGER NOT NULL DEFAULT 0 CHECK (holds IN (0, 1)),   -- an image
  -- What searches look in. Behind the texts stand marks that no search holds: one for its
  -- namespace, made of two private-use characters, and one for what is public.
  words      TEXT GENERATED ALWAYS AS (name || char(10) || description || char(10) ||
    char(1, 57344 + namespace % 4096, 57344 + namespace / 4096 % 4096) ||
    CASE private WHEN 0 THEN char(1, 1, 1) ELSE '' END) VIRTUAL
) STRICT;
-- Lists walk these and touch no row that they do not show. What is public comes first, so
-- that a stranger walks past nothing.
CREATE INDEX repo_namespace ON repo (namespace, private, name, holds);
CREATE INDEX repo_updated ON repo (namespace, private, updated_us, name);
CREATE INDEX repo_public ON repo (name, holds) WHERE private = 0;
CREATE INDEX repo_holding ON repo (name) WHERE holds = 1;
CREATE INDEX repo_created_by ON repo (created_by) WHERE created_by IS NOT NULL;

-- Every three characters of `words`, and the repositories that have them.
CREATE VIRTUAL TABLE repo_words USING fts5 (
  words, content = 'repo', content_rowid = 'id', tokenize = 'trigram', detail = 'none', columnsize = 0
);

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
  UPDATE repo_sums SET blob_bytes = blob_bytes - (SELECT bytes FROM blob WHERE id = OLD.blob)
    WHERE repo = OLD.repo;
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
  -- A user's id, which is nobody's once they are gone: ids are not given twice.
  pushed_by     INTEGER,
  live          INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
  body          BLOB    NOT NULL,              -- as pushed, to the byte
  pushed_secs   INTEGER NOT NULL DEFAULT 0,    -- service time: the age that retention goes by
  UNIQUE (repo, digest)
) STRICT;
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
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
  pushed_by INTEGER,                           -- as in manifest
  pushed_secs INTEGER NOT NULL DEFAULT 0,      -- service time
  UNIQUE (repo, name)
) STRICT;
CREATE INDEX tag_manifest ON tag (manifest, name);
CREATE INDEX tag_pushed ON tag (repo, pushed_us, name);

-- Docker's v1 index: image ids and checksums that clients announced, in their order.
CREATE TABLE v1_image (
  repo     INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  image    TEXT    NOT NULL,                   -- 12 to 64 hex digits
  position INTEGER NOT NULL,
  checksum TEXT,
  PRIMARY KEY (repo, image)
) WITHOUT ROWID, STRICT;

-- Sums ------------------------------------------------------------------------
-- What lists say of how much there is, counted as rows come and go: whoever asks
-- reads one row, in a store of any size.

CREATE TABLE repo_sums (
  repo       INTEGER PRIMARY KEY REFERENCES repo ON DELETE CASCADE,
  tags       INTEGER NOT NULL DEFAULT 0,
  manifests  INTEGER NOT NULL DEFAULT 0,
  hidden     INTEGER NOT NULL DEFAULT 0,       -- manifests in the table of that name
  stars      INTEGER NOT NULL DEFAULT 0,
  blob_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Manifests that lists of images leave out: damaged ones, and those that an index beside
-- them lists and no tag points at.
CREATE TABLE hidden (
  manifest INTEGER PRIMARY KEY REFERENCES manifest ON DELETE CASCADE,
  repo     INTEGER NOT NULL
) STRICT;

CREATE TRIGGER repo_new AFTER INSERT ON repo BEGIN
  INSERT INTO repo_sums (repo) VALUES (NEW.id);
  UPDATE namespace SET repos = repos + 1, repos_public = repos_public + (NEW.private = 0)
    WHERE id = NEW.namespace;
  INSERT INTO repo_words (rowid, words) VALUES (NEW.id, NEW.words);
END;
CREATE TRIGGER repo_private AFTER UPDATE OF private ON repo WHEN OLD.private <> NEW.private BEGIN
  UPDATE namespace SET repos_public = repos_public + (NEW.private = 0) - (OLD.private = 0)
    WHERE id = NEW.namespace;
END;
CREATE TRIGGER repo_described AFTER UPDATE OF description, private ON repo
  WHEN OLD.words <> NEW.words
BEGIN
  INSERT INTO repo_words (repo_words, rowid, words) VALUES ('delete', OLD.id, OLD.words);
  INSERT INTO repo_words (rowid, words) VALUES (NEW.id, NEW.words);
END;
CREATE TRIGGER repo_gone AFTER DELETE ON repo BEGIN
  UPDATE namespace SET repos = repos - 1, repos_public = repos_public - (OLD.private = 0)
    WHERE id = OLD.namespace;
  INSERT INTO repo_words (repo_words, rowid, words) VALUES ('delete', OLD.id, OLD.words);
END;

CREATE TRIGGER star_new AFTER INSERT ON star BEGIN
  UPDATE repo_sums SET stars = stars + 1 WHERE repo = NEW.repo;
END;
CREATE TRIGGER star_gone AFTER DELETE ON star BEGIN
  UPDATE repo_sums SET stars = stars - 1 WHERE repo = OLD.repo;
END;
CREATE TRIGGER repo_blob_new AFTER INSERT ON repo_blob BEGIN
  UPDATE repo_sums SET blob_bytes = blob_bytes + (SELECT bytes FROM blob WHERE id = NEW.blob)
    WHERE repo = NEW.repo;
END;

CREATE TRIGGER manifest_new AFTER INSERT ON manifest BEGIN
  UPDATE repo_sums SET manifests = manifests + 1 WHERE repo = NEW.repo;
  UPDATE repo SET holds = 1 WHERE id = NEW.repo AND holds = 0;
  INSERT INTO hidden (manifest, repo) SELECT NEW.id, NEW.repo
    WHERE EXISTS (SELECT 1 FROM child AS c CROSS JOIN manifest AS p ON p.id = c.manifest
      WHERE c.digest = NEW.digest AND p.repo = NEW.repo);
END;
-- Of what an index lists, that shows again which no other one beside it lists.
CREATE TRIGGER manifest_going BEFORE DELETE ON manifest BEGIN
  DELETE FROM hidden WHERE manifest IN
    (SELECT m.id FROM child AS c CROSS JOIN manifest AS m ON m.repo = OLD.repo AND m.digest = c.digest
     WHERE c.manifest = OLD.id AND m.live AND NOT EXISTS
       (SELECT 1 FROM child AS o CROSS JOIN manifest AS p ON p.id = o.manifest
        WHERE o.digest = c.digest AND p.repo = OLD.repo AND p.id <> OLD.id));
END;
CREATE TRIGGER manifest_gone AFTER DELETE ON manifest BEGIN
  UPDATE repo_sums SET manifests = manifests - 1 WHERE repo = OLD.repo;
  UPDATE repo SET holds = 0 WHERE id = OLD.repo AND holds = 1
    AND NOT EXISTS (SELECT 1 FROM manifest WHERE repo = OLD.repo);
END;
CREATE TRIGGER manifest_damaged AFTER UPDATE OF live ON manifest WHEN OLD.live > NEW.live BEGIN
  INSERT INTO hidden (manifest, repo) SELECT NEW.id, NEW.repo
    WHERE NEW.id NOT IN (SELECT manifest FROM hidden);
END;
CREATE TRIGGER manifest_healed AFTER UPDATE OF live ON manifest WHEN OLD.live < NEW.live BEGIN
  DELETE FROM hidden WHERE manifest = NEW.id AND (EXISTS (SELECT 1 FROM tag WHERE manifest = NEW.id)
    OR NOT EXISTS (SELECT 1 FROM child AS c CROSS JOIN manifest AS p ON p.id = c.manifest
      WHERE c.digest = NEW.digest AND p.repo = NEW.repo));
END;
CREATE TRIGGER child_new AFTER INSERT ON child BEGIN
  INSERT INTO hidden (manifest, repo)
    SELECT m.id, m.repo FROM manifest AS p CROSS JOIN manifest AS m ON m.repo = p.repo AND m.digest = NEW.digest
    WHERE p.id = NEW.manifest AND NOT EXISTS (SELECT 1 FROM tag WHERE manifest = m.id)
      AND m.id NOT IN (SELECT manifest FROM hidden);
END;
CREATE TRIGGER tag_new AFTER INSERT ON tag BEGIN
  UPDATE repo_sums SET tags = tags + 1 WHERE repo = NEW.repo;
  DELETE FROM hidden WHERE manifest = NEW.manifest;
END;
CREATE TRIGGER tag_moved AFTER UPDATE OF manifest ON tag WHEN OLD.manifest <> NEW.manifest BEGIN
  DELETE FROM hidden WHERE manifest = NEW.manifest;
  INSERT INTO hidden (manifest, repo) SELECT m.id, m.repo FROM manifest AS m
    WHERE m.id = OLD.manifest AND NOT EXISTS (SELECT 1 FROM tag WHERE manifest = m.id)
      AND m.id NOT IN (SELECT manifest FROM hidden)
      AND EXISTS (SELECT 1 FROM child AS c CROSS JOIN manifest AS p ON p.id = c.manifest
        WHERE c.digest = m.digest AND p.repo = m.repo);
END;
CREATE TRIGGER tag_gone AFTER DELETE ON tag BEGIN
  UPDATE repo_sums SET tags = tags - 1 WHERE repo = OLD.repo;
  INSERT INTO hidden (manifest, repo) SELECT m.id, m.repo FROM manifest AS m
    WHERE m.id = OLD.manifest AND NOT EXISTS (SELECT 1 FROM tag WHERE manifest = m.id)
      AND m.id NOT IN (SELECT manifest FROM hidden)
      AND EXISTS (SELECT 1 FROM child AS c CROSS JOIN manifest AS p ON p.id = c.manifest
        WHERE c.digest = m.digest AND p.repo = m.repo);
END;
CREATE TRIGGER hidden_new AFTER INSERT ON hidden BEGIN
  UPDATE repo_sums SET hidden = hidden + 1 WHERE repo = NEW.repo;
END;
CREATE TRIGGER hidden_gone AFTER DELETE ON hidden BEGIN
  UPDATE repo_sums SET hidden = hidden - 1 WHERE repo = OLD.repo;
END;

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
