-- What PostgreSQL does not have, or has and Rota has not.

CREATE TABLE t(a INT PRIMARY KEY)
> CREATE TABLE [I]

LISTEN a
> ERROR 0A000 [I]

NOTIFY a, 'b'
> ERROR 0A000 [I]

PREPARE TRANSACTION 'a'
> ERROR 0A000 [I]

SET TIME ZONE 'Europe/Berlin'
> ERROR 0A000 [I]

SHOW TRANSACTION ISOLATION LEVEL
> serializable
> SHOW [I]

BEGIN ISOLATION LEVEL READ UNCOMMITTED
> BEGIN [T]

SHOW transaction_isolation
> serializable
> SHOW [T]

ROLLBACK
> ROLLBACK [I]

SHOW rota.transaction
> 
> SHOW [I]

-- Nothing is known of a write that nobody waits for.

SET rota.wait = none
> SET [I]

INSERT INTO t VALUES(1) RETURNING a
> ERROR 0A000 [I]

SET rota.wait = final
> SET [I]

SET rota.read = newest
> ERROR 22023 [I]

SET rota.read = latest
> SET [I]

BEGIN
> BEGIN [T]

SELECT count(*) FROM t
> 0
> SELECT 1 [T]

COMMIT
> COMMIT [I]

RESET rota.read
> RESET [I]

-- Words that SQLite does not know are found when their turn comes.

INSERT INTO t VALUES(9); SELEC
> INSERT 0 1
> ERROR 42601 [I]

SELECT * FROM t WHERE a = 9
> SELECT 0 [I]

BEGIN
> BEGIN [T]

SELEC
> ERROR 42601 [E]

SELEC
> ERROR 25P02 [E]

ROLLBACK
> ROLLBACK [I]

-- Times that run out.

SET statement_timeout = '50ms'
> SET [I]

WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n WHERE x < 0
> ERROR 57014 [I]

BEGIN
> BEGIN [T]

WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n WHERE x < 0
> ERROR 57014 [E]

SELECT 1
> ERROR 25P02 [E]

ROLLBACK
> ROLLBACK [I]

RESET statement_timeout
> RESET [I]
