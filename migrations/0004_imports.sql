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
