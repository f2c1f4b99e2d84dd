-- What COMMIT finds changed: 40001 for whoever was shown what is no longer so.

CREATE TABLE accounts(id INT PRIMARY KEY, balance INT NOT NULL)
> CREATE TABLE [I]

INSERT INTO accounts VALUES(1, 100), (2, 100)
> INSERT 0 2 [I]

-- A lost update: both have read what they write.

1: BEGIN
> BEGIN [T]

2: BEGIN
> BEGIN [T]

1: SELECT balance FROM accounts WHERE id = 1
> 100
> SELECT 1 [T]

2: SELECT balance FROM accounts WHERE id = 1
> 100
> SELECT 1 [T]

1: UPDATE accounts SET balance = 90 WHERE id = 1
> UPDATE 1 [T]

2: UPDATE accounts SET balance = 80 WHERE id = 1
> UPDATE 1 [T]

1: COMMIT
> COMMIT [I]

2: COMMIT
> ERROR 40001 [I]

2: SHOW rota.transaction
> 
> SHOW [I]

SELECT * FROM accounts
> 1|90
> 2|100
> SELECT 2 [I]

-- A write skew: each reads what the other writes.

1: BEGIN
> BEGIN [T]

2: BEGIN
> BEGIN [T]

1: SELECT sum(balance) FROM accounts
> 190
> SELECT 1 [T]

2: SELECT sum(balance) FROM accounts
> 190
> SELECT 1 [T]

1: UPDATE accounts SET balance = balance - 150 WHERE id = 1
> UPDATE 1 [T]

2: UPDATE accounts SET balance = balance - 150 WHERE id = 2
> UPDATE 1 [T]

1: COMMIT
> COMMIT [I]

2: COMMIT
> ERROR 40001 [I]

-- A phantom: a row that was not there.

1: BEGIN
> BEGIN [T]

2: BEGIN
> BEGIN [T]

1: SELECT count(*) FROM accounts WHERE balance > 1000
> 0
> SELECT 1 [T]

2: INSERT INTO accounts VALUES(3, 2000)
> INSERT 0 1 [T]

1: INSERT INTO accounts VALUES(4, 0)
> INSERT 0 1 [T]

2: COMMIT
> COMMIT [I]

1: COMMIT
> ERROR 40001 [I]

-- Increments show nothing that changes: no conflict.

1: BEGIN
> BEGIN [T]

2: BEGIN
> BEGIN [T]

1: UPDATE accounts SET balance = balance + 1 WHERE id = 2
> UPDATE 1 [T]

2: UPDATE accounts SET balance = balance + 1 WHERE id = 2
> UPDATE 1 [T]

1: COMMIT
> COMMIT [I]

2: COMMIT
> COMMIT [I]

SELECT * FROM accounts ORDER BY id
> 1|-60
> 2|102
> 3|2000
> SELECT 3 [I]

-- Who only reads is never in anybody's way.

1: BEGIN
> BEGIN [T]

1: SELECT balance FROM accounts WHERE id = 2
> 102
> SELECT 1 [T]

2: UPDATE accounts SET balance = 0 WHERE id = 2
> UPDATE 1 [I]

1: SELECT balance FROM accounts WHERE id = 2
> 102
> SELECT 1 [T]

1: COMMIT
> COMMIT [I]
