-- Who and what there is when the attacks of statements.txt begin. `alice` has all rights on some
-- tables; `maker` has them too, and may make tables, and change all; `bob` has nothing but insert on
-- one; `carol` is a member of `readers`; `nobody` has nothing at all.
CREATE USER alice;
CREATE USER maker;
GRANT alice TO maker;
GRANT CREATE ON ALL TO maker;
CREATE USER bob;
CREATE USER carol;
CREATE USER nobody;
CREATE ROLE readers;
GRANT readers TO carol;

-- Nobody but the administrator and `readers` may read it.
CREATE TABLE secret(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO secret VALUES (1, 'hidden'), (2, 'kept');
CREATE INDEX secret_v ON secret(v);
CREATE TABLE hidden(id INTEGER PRIMARY KEY);
INSERT INTO hidden VALUES (1);
GRANT SELECT ON secret TO readers;

-- Alice's own, of the same shape.
CREATE TABLE mine(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO mine VALUES (1, 'a'), (2, 'b'), (3, 'c');
GRANT ALL ON mine TO alice;

-- Alice may look, or put something in, and no more.
CREATE TABLE shown(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
INSERT INTO shown VALUES (1, 'one'), (2, 'two');
GRANT SELECT, UPDATE ON shown TO alice;
CREATE TABLE box(id INTEGER PRIMARY KEY, v TEXT UNIQUE);
INSERT INTO box VALUES (1, 'first');
GRANT INSERT ON box TO alice, bob;

-- Rows that refer to others, and one that is made by somebody else's trigger.
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1);
GRANT ALL ON parent TO alice;
CREATE TABLE watched(id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE log(id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO log VALUES (1, 'an old line');
CREATE TRIGGER watched_log AFTER INSERT ON watched BEGIN INSERT INTO log VALUES (new.id, new.v); END;
GRANT ALL ON watched TO alice;
GRANT INSERT ON log TO alice;

-- A view over what is hidden, and one over what is alice's.
CREATE VIEW secret_view AS SELECT * FROM secret;
CREATE VIEW mine_view AS SELECT * FROM mine;
GRANT SELECT ON secret_view TO alice;
GRANT SELECT ON mine_view TO PUBLIC;

-- Generated keys.
CREATE TABLE numbered(id BIGINT NOT NULL PRIMARY KEY DEFAULT (rota_nextval('numbered_id_seq')), v TEXT);
INSERT INTO numbered(v) VALUES ('one');
GRANT INSERT ON numbered TO alice;
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
INSERT INTO counted(v) VALUES ('one');
