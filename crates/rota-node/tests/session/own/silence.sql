-- Who says nothing for too long loses the connection, and the transaction.

CREATE TABLE silent(a INT PRIMARY KEY)
> CREATE TABLE [I]

2: SET idle_in_transaction_session_timeout = '50ms'
> SET [I]

2: BEGIN; INSERT INTO silent VALUES(1)
> BEGIN
> INSERT 0 1 [T]

2: @hear
> FATAL 25P03
> closed

3: SET transaction_timeout = 50
> SET [I]

3: BEGIN; INSERT INTO silent VALUES(1)
> BEGIN
> INSERT 0 1 [T]

3: @hear
> FATAL 25P04
> closed

4: SET idle_session_timeout = 50
> SET [I]

4: @hear
> FATAL 57P05
> closed

SELECT count(*) FROM silent
> 0
> SELECT 1 [I]
