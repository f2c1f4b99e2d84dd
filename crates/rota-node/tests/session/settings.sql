-- SET, SHOW, RESET, and what a transaction's end undoes of them.

SET LOCAL statement_timeout = 100
> WARNING 25P01
> SET [I]

BEGIN
> BEGIN [T]

SET LOCAL statement_timeout = 100
> SET [T]

SHOW statement_timeout
> 100ms
> SHOW [T]

COMMIT
> COMMIT [I]

SHOW statement_timeout
> 0
> SHOW [I]

BEGIN
> BEGIN [T]

SET statement_timeout = '2s'
> SET [T]

SAVEPOINT a
> SAVEPOINT [T]

SET statement_timeout = 3000
> SET [T]

ROLLBACK TO a
> ROLLBACK [T]

SHOW statement_timeout
> 2s
> SHOW [T]

COMMIT
> COMMIT [I]

SHOW statement_timeout
> 2s
> SHOW [I]

BEGIN
> BEGIN [T]

SET statement_timeout = '5min'
> SET [T]

ROLLBACK
> ROLLBACK [I]

SHOW statement_timeout
> 2s
> SHOW [I]

RESET statement_timeout
> RESET [I]

SHOW statement_timeout
> 0
> SHOW [I]

SET statement_timeout = 'x'
> ERROR 22023 [I]

SET statement_timeout TO DEFAULT
> SET [I]

SET nonsense = 1
> ERROR 42704 [I]

SHOW nonsense
> ERROR 42704 [I]

SET app.name = 'x'
> SET [I]

SHOW app.name
> x
> SHOW [I]

SET application_name = 'y'
> SET
> application_name=y [I]

SET application_name = 'y'
> SET [I]

BEGIN; SET application_name = 'z'
> BEGIN
> SET
> application_name=z [T]

ROLLBACK
> ROLLBACK
> application_name=y [I]

SELECT set_config('app.name', 'z', false)
> z
> SELECT 1 [I]

SHOW app.name
> z
> SHOW [I]

BEGIN
> BEGIN [T]

SELECT set_config('app.name', 'local', true)
> local
> SELECT 1 [T]

SHOW app.name
> local
> SHOW [T]

COMMIT
> COMMIT [I]

SHOW app.name
> z
> SHOW [I]

SET SESSION AUTHORIZATION DEFAULT
> SET [I]

RESET SESSION AUTHORIZATION
> RESET [I]

SET ROLE NONE
> SET [I]

SET TIME ZONE 'UTC'
> SET [I]

DISCARD PLANS
> DISCARD PLANS [I]

DISCARD TEMP
> DISCARD TEMP [I]

DISCARD SEQUENCES
> DISCARD SEQUENCES [I]

UNLISTEN *
> UNLISTEN [I]

DISCARD ALL
> DISCARD ALL
> application_name [I]

SHOW application_name
> 
> SHOW [I]

RESET ALL
> RESET [I]
