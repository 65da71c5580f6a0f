-- Whose bundles this site takes.
CREATE TABLE trusted_key (
  name       TEXT    PRIMARY KEY,              -- as its bundles name their sender
  public     BLOB    NOT NULL UNIQUE,          -- Ed25519, 32 bytes
  -- Of the newest bundle that was taken: an older one, or the same again, is not.
  sequence   INTEGER NOT NULL DEFAULT 0,
  trusted_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
