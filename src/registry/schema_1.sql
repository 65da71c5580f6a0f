-- The whole schema of Outport's database: what a new data directory gets.
--
-- PRAGMA user_version counts its versions; migrations/ brings older ones here.
-- Times are microseconds since 1970, UTC, unless a name says otherwise; they order
-- and show, and nothing is deleted by them (a clock may jump).
-- Digests are text, `sha256:…` or `sha512:…`, as the protocol writes them.

-- What the process must know again after a restart.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

-- People ----------------------------------------------------------------------

CREATE TABLE user (
  id         INTEGER PRIMARY KEY,
  name       TEXT    NOT NULL UNIQUE,          -- lower case, one component of a repository name
  password   TEXT    NOT NULL,                 -- PHC string (argon2id), or bcrypt from an htpasswd file
  admin      INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1)),
  -- Counts changes of password and rights: whoever remembers an older one must ask again.
  generation INTEGER NOT NULL DEFAULT 1,
  created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE email (
  address TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,   -- another name to log in with
  user    INTEGER NOT NULL REFERENCES user ON DELETE CASCADE
) WITHOUT ROWID, STRICT;
CREATE INDEX email_user ON email (user);

-- Content ---------------------------------------------------------------------

-- The first component of repository names, and whose it is.
CREATE TABLE namespace (
  id         INTEGER PRIMARY KEY,
  name       TEXT    NOT NULL UNIQUE,
  owner      INTEGER REFERENCES user ON DELETE SET NULL,  -- none: administrators only
  created_us INTEGER NOT NULL
) STRICT;
CREATE INDEX namespace_owner ON namespace (owner);

CREATE TABLE repo (
  id         INTEGER PRIMARY KEY,
  namespace  INTEGER NOT NULL REFERENCES namespace,
  name       TEXT    NOT NULL UNIQUE,          -- in full: `library/nginx`, `org/a/b`
  private    INTEGER NOT NULL CHECK (private IN (0, 1)),
  created_us INTEGER NOT NULL
) STRICT;
CREATE INDEX repo_namespace ON repo (namespace, name);
CREATE INDEX repo_public ON repo (name) WHERE private = 0;

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

CREATE TABLE manifest (
  id            INTEGER PRIMARY KEY,
  repo          INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  digest        TEXT    NOT NULL,
  media_type    TEXT    NOT NULL,
  bytes         INTEGER NOT NULL,
  subject       TEXT,                          -- digest; it may be missing
  artifact_type TEXT,
  annotations   TEXT,                          -- JSON, for referrers lists
  pushed_us     INTEGER NOT NULL,
  pushed_by     INTEGER REFERENCES user ON DELETE SET NULL,
  live          INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
  body          BLOB    NOT NULL,              -- as pushed, to the byte
  UNIQUE (repo, digest)
) STRICT;
CREATE INDEX manifest_subject ON manifest (repo, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifest_pushed_by ON manifest (pushed_by) WHERE pushed_by IS NOT NULL;

-- The blobs a manifest relies on.
CREATE TABLE edge (
  manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  blob     INTEGER NOT NULL REFERENCES blob,
  PRIMARY KEY (manifest, blob)
) WITHOUT ROWID, STRICT;
CREATE INDEX edge_blob ON edge (blob);

-- The manifests an index lists. By digest, for they may be missing.
CREATE TABLE child (
  manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  digest   TEXT    NOT NULL,
  PRIMARY KEY (manifest, digest)
) WITHOUT ROWID, STRICT;
CREATE INDEX child_digest ON child (digest);

CREATE TABLE tag (
  id        INTEGER PRIMARY KEY,
  repo      INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
  name      TEXT    NOT NULL,
  manifest  INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
  pushed_us INTEGER NOT NULL,
  UNIQUE (repo, name)
) STRICT;
CREATE INDEX tag_manifest ON tag (manifest);
