-- From version 2 to 3: what a collection looks at, and the age of tags and manifests in
-- service time, which a wrong clock does not change.

CREATE TABLE gc_candidate (
  since_secs INTEGER NOT NULL,
  blob       INTEGER NOT NULL,
  PRIMARY KEY (since_secs, blob)
) WITHOUT ROWID, STRICT;
CREATE TRIGGER edge_gone AFTER DELETE ON edge BEGIN
  INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (0, OLD.blob);
END;
CREATE TRIGGER repo_blob_gone AFTER DELETE ON repo_blob BEGIN
  INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (0, OLD.blob);
END;
-- Once, everything: what was pushed before candidates were noted.
INSERT OR IGNORE INTO gc_candidate (since_secs, blob) SELECT 0, id FROM blob;

ALTER TABLE manifest ADD COLUMN pushed_secs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tag ADD COLUMN pushed_secs INTEGER NOT NULL DEFAULT 0;
-- The newest thing we know is as good as now: nothing is older than it was.
UPDATE manifest SET pushed_secs = (SELECT coalesce(max(seen_secs), 0) FROM repo_blob);
UPDATE tag SET pushed_secs = (SELECT coalesce(max(seen_secs), 0) FROM repo_blob);
