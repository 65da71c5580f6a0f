-- From version 5 to 6: who pushed is remembered by a number that refers to nothing, for looking
-- after such a reference took an index on each table, and a page of each at every push.
--
-- Rows stay as they are, so the text of the tables may be changed in place
-- (sqlite.org/lang_altertable.html §8).
DROP INDEX manifest_pushed_by;
DROP INDEX tag_pushed_by;
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
  SET sql = replace(sql, 'pushed_by     INTEGER REFERENCES user ON DELETE SET NULL', 'pushed_by     INTEGER')
  WHERE type = 'table' AND name = 'manifest';
UPDATE sqlite_schema
  SET sql = replace(sql, 'pushed_by INTEGER REFERENCES user ON DELETE SET NULL', 'pushed_by INTEGER')
  WHERE type = 'table' AND name = 'tag';
PRAGMA writable_schema = RESET;
