-- From version 3 to 4: lists and searches that cost the same in any store. What they count
-- is kept as rows come and go, indexes hold what lists walk, and words can be searched for.

DROP INDEX repo_namespace;
DROP INDEX repo_public;
DROP INDEX tag_manifest;
DROP TRIGGER repo_blob_gone;

ALTER TABLE namespace ADD COLUMN repos INTEGER NOT NULL DEFAULT 0;
ALTER TABLE namespace ADD COLUMN repos_public INTEGER NOT NULL DEFAULT 0;
ALTER TABLE repo ADD COLUMN holds INTEGER NOT NULL DEFAULT 0 CHECK (holds IN (0, 1));
ALTER TABLE repo ADD COLUMN words TEXT GENERATED ALWAYS AS (name || char(10) || description || char(10) ||
    char(1, 57344 + namespace % 4096, 57344 + namespace / 4096 % 4096) ||
    CASE private WHEN 0 THEN char(1, 1, 1) ELSE '' END) VIRTUAL;

CREATE INDEX repo_namespace ON repo (namespace, private, name, holds);
CREATE INDEX repo_updated ON repo (namespace, private, updated_us, name);
CREATE INDEX repo_public ON repo (name, holds) WHERE private = 0;
CREATE INDEX repo_holding ON repo (name) WHERE holds = 1;
CREATE INDEX tag_manifest ON tag (manifest, name);
CREATE INDEX tag_pushed ON tag (repo, pushed_us, name);

CREATE TABLE repo_sums (
  repo       INTEGER PRIMARY KEY REFERENCES repo ON DELETE CASCADE,
  tags       INTEGER NOT NULL DEFAULT 0,
  manifests  INTEGER NOT NULL DEFAULT 0,
  hidden     INTEGER NOT NULL DEFAULT 0,
  stars      INTEGER NOT NULL DEFAULT 0,
  blob_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE hidden (
  manifest INTEGER PRIMARY KEY REFERENCES manifest ON DELETE CASCADE,
  repo     INTEGER NOT NULL
) STRICT;


-- what there is

UPDATE repo SET holds = 1 WHERE EXISTS (SELECT 1 FROM manifest AS m WHERE m.repo = repo.id);
UPDATE namespace SET
  repos = (SELECT count(*) FROM repo AS r WHERE r.namespace = namespace.id),
  repos_public = (SELECT count(*) FROM repo AS r WHERE r.namespace = namespace.id AND r.private = 0);
INSERT OR IGNORE INTO hidden (manifest, repo)
  SELECT m.id, m.repo FROM child AS c JOIN manifest AS p ON p.id = c.manifest
    CROSS JOIN manifest AS m ON m.repo = p.repo AND m.digest = c.digest
  WHERE NOT EXISTS (SELECT 1 FROM tag WHERE manifest = m.id);
INSERT OR IGNORE INTO hidden (manifest, repo) SELECT id, repo FROM manifest WHERE live = 0;
INSERT INTO repo_sums (repo, tags, manifests, stars, blob_bytes)
  SELECT id,
    (SELECT count(*) FROM tag WHERE repo = r.id),
    (SELECT count(*) FROM manifest WHERE repo = r.id),
    (SELECT count(*) FROM star WHERE repo = r.id),
    (SELECT coalesce(sum(b.bytes), 0) FROM repo_blob AS rb JOIN blob AS b ON b.id = rb.blob
     WHERE rb.repo = r.id)
  FROM repo AS r;
UPDATE repo_sums SET hidden = h.count
  FROM (SELECT repo, count(*) AS count FROM hidden GROUP BY repo) AS h WHERE h.repo = repo_sums.repo;

CREATE VIRTUAL TABLE repo_words USING fts5 (
  words, content = 'repo', content_rowid = 'id', tokenize = 'trigram', detail = 'none', columnsize = 0
);
INSERT INTO repo_words (repo_words) VALUES ('rebuild');

-- and from now on

CREATE TRIGGER repo_blob_gone AFTER DELETE ON repo_blob BEGIN
  INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (0, OLD.blob);
  UPDATE repo_sums SET blob_bytes = blob_bytes - (SELECT bytes FROM blob WHERE id = OLD.blob)
    WHERE repo = OLD.repo;
END;
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
