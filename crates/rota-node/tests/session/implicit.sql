-- Several statements at once are one transaction.

DROP TABLE IF EXISTS several;
> DROP TABLE [I]

CREATE TABLE several(a INT PRIMARY KEY)
> CREATE TABLE [I]

INSERT INTO several VALUES(1); SELECT count(*) FROM several; INSERT INTO several VALUES(1)
> INSERT 0 1
> 1
> SELECT 1
> ERROR 23505 [I]

SELECT count(*) FROM several
> 0
> SELECT 1 [I]

INSERT INTO several VALUES(1); COMMIT; INSERT INTO several VALUES(2); SELECT nope
> INSERT 0 1
> WARNING 25P01
> COMMIT
> INSERT 0 1
> ERROR 42703 [I]

SELECT * FROM several
> 1
> SELECT 1 [I]

INSERT INTO several VALUES(2); ROLLBACK; INSERT INTO several VALUES(3)
> INSERT 0 1
> WARNING 25P01
> ROLLBACK
> INSERT 0 1 [I]

SELECT * FROM several ORDER BY a
> 1
> 3
> SELECT 2 [I]

INSERT INTO several VALUES(4); BEGIN; INSERT INTO several VALUES(5)
> INSERT 0 1
> BEGIN
> INSERT 0 1 [T]

2: SELECT count(*) FROM several
> 2
> SELECT 1 [I]

ROLLBACK
> ROLLBACK [I]

BEGIN; INSERT INTO several VALUES(5); COMMIT; INSERT INTO several VALUES(3)
> BEGIN
> INSERT 0 1
> COMMIT
> ERROR 23505 [I]

SELECT * FROM several ORDER BY a
> 1
> 3
> 5
> SELECT 3 [I]

INSERT INTO several VALUES(6); SAVEPOINT a
> INSERT 0 1
> ERROR 25P01 [I]

INSERT INTO several VALUES(6); COMMIT AND CHAIN
> INSERT 0 1
> ERROR 25P01 [I]

SELECT * FROM several ORDER BY a
> 1
> 3
> 5
> SELECT 3 [I]

SET a.b = 'x'; SHOW a.b; SELECT nope; SHOW a.b
> SET
> x
> SHOW
> ERROR 42703 [I]

DECLARE c CURSOR FOR SELECT 7; FETCH c; SELECT 8
> DECLARE CURSOR
> 7
> FETCH 1
> 8
> SELECT 1 [I]

FETCH c
> ERROR 34000 [I]

; ;
> empty [I]

-- So are those between two Syncs.

@parse i INSERT INTO several VALUES($1)
@bind - i 10
@execute -
@bind - i 11
@execute -
@sync
> INSERT 0 1
> INSERT 0 1 [I]

2: SELECT * FROM several WHERE a >= 10 ORDER BY a
> 10
> 11
> SELECT 2 [I]

@bind - i 12
@execute -
@bind - i 12
@execute -
@bind - i 13
@execute -
@sync
> INSERT 0 1
> ERROR 23505 [I]

SELECT * FROM several WHERE a >= 10 ORDER BY a
> 10
> 11
> SELECT 2 [I]

@parse b BEGIN
@parse c COMMIT
@bind - i 14
@execute -
@bind - b
@execute -
@bind - i 15
@execute -
@sync
> INSERT 0 1
> BEGIN
> INSERT 0 1 [T]

ROLLBACK
> ROLLBACK [I]

SELECT * FROM several WHERE a >= 12
> SELECT 0 [I]

@bind - i 14
@execute -
@bind - c
@execute -
@bind - i 14
@execute -
@sync
> INSERT 0 1
> WARNING 25P01
> COMMIT
> ERROR 23505 [I]

SELECT * FROM several WHERE a >= 12
> 14
> SELECT 1 [I]

@parse s SELECT count(*) FROM several
@bind - s
@describe -
@execute -
@bind - i 20
@describe -
@execute -
@bind - s
@describe -
@execute -
@sync
> 6
> SELECT 1
> INSERT 0 1
> 7
> SELECT 1 [I]
