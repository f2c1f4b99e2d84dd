-- The views of PostgreSQL's catalog: other looks at its tables.

CREATE VIEW pg_catalog.pg_tables AS
SELECT n.nspname AS schemaname, c.relname AS tablename, a.rolname AS tableowner,
    NULL AS tablespace, c.relhasindex AS hasindexes, c.relhasrules AS hasrules,
    c.relhastriggers AS hastriggers, c.relrowsecurity AS rowsecurity
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_authid AS a ON a.oid = c.relowner WHERE c.relkind IN ('r', 'p');

CREATE VIEW pg_catalog.pg_views AS
SELECT n.nspname AS schemaname, c.relname AS viewname, a.rolname AS viewowner,
    d.definition AS definition
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_authid AS a ON a.oid = c.relowner
LEFT JOIN rota_definition AS d ON d.oid = c.oid WHERE c.relkind = 'v';

CREATE VIEW pg_catalog.pg_matviews AS
SELECT n.nspname AS schemaname, c.relname AS matviewname, NULL AS matviewowner,
    NULL AS tablespace, c.relhasindex AS hasindexes, c.relispopulated AS ispopulated,
    NULL AS definition
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'm';

CREATE VIEW pg_catalog.pg_indexes AS
SELECT n.nspname AS schemaname, t.relname AS tablename, c.relname AS indexname,
    NULL AS tablespace, d.definition AS indexdef
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = t.relnamespace
LEFT JOIN rota_definition AS d ON d.oid = c.oid;

CREATE VIEW pg_catalog.pg_sequences AS
SELECT n.nspname AS schemaname, c.relname AS sequencename, a.rolname AS sequenceowner,
    'bigint' AS data_type, s.seqstart AS start_value, s.seqmin AS min_value,
    s.seqmax AS max_value, s.seqincrement AS increment_by, s.seqcycle AS cycle,
    s.seqcache AS cache_size, NULL AS last_value
FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_authid AS a ON a.oid = c.relowner;

-- Nobody is told of passwords by these.
CREATE VIEW pg_catalog.pg_roles AS
SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
    rolconnlimit, '********' AS rolpassword, rolvaliduntil, rolbypassrls, NULL AS rolconfig, oid
FROM pg_authid;

CREATE VIEW pg_catalog.pg_shadow AS
SELECT rolname AS usename, oid AS usesysid, rolcreatedb AS usecreatedb, rolsuper AS usesuper,
    rolreplication AS userepl, rolbypassrls AS usebypassrls, rolpassword AS passwd,
    rolvaliduntil AS valuntil, NULL AS useconfig
FROM pg_authid WHERE rolcanlogin;

CREATE VIEW pg_catalog.pg_user AS
SELECT usename, usesysid, usecreatedb, usesuper, userepl, usebypassrls, '********' AS passwd,
    valuntil, useconfig
FROM pg_shadow;

CREATE VIEW pg_catalog.pg_group AS
SELECT r.rolname AS groname, r.oid AS grosysid,
    (SELECT json_group_array(m.member) FROM pg_auth_members AS m WHERE m.roleid = r.oid) AS grolist
FROM pg_authid AS r WHERE NOT r.rolcanlogin;

CREATE VIEW information_schema.enabled_roles AS
SELECT role_name FROM rota_role WHERE rota_is_enabled(role_name);

CREATE VIEW information_schema.applicable_roles AS
SELECT grantee, role_name, is_grantable FROM rota_membership WHERE rota_is_enabled(grantee);

CREATE VIEW information_schema.administrable_role_authorizations AS
SELECT grantee, role_name, is_grantable FROM applicable_roles WHERE is_grantable = 'YES';

CREATE VIEW information_schema.table_privileges AS
SELECT * FROM rota_privilege
WHERE grantee = 'PUBLIC' OR rota_is_enabled(grantee) OR rota_is_enabled(grantor);

CREATE VIEW information_schema.role_table_grants AS
SELECT * FROM rota_privilege WHERE rota_is_enabled(grantee) OR rota_is_enabled(grantor);

CREATE VIEW pg_catalog.pg_stat_all_tables AS
SELECT c.oid AS relid, n.nspname AS schemaname, c.relname AS relname, 0 AS seq_scan,
    0 AS seq_tup_read, 0 AS idx_scan, 0 AS idx_tup_fetch, 0 AS n_tup_ins, 0 AS n_tup_upd,
    0 AS n_tup_del, 0 AS n_tup_hot_upd, 0 AS n_live_tup, 0 AS n_dead_tup,
    0 AS n_mod_since_analyze, 0 AS n_ins_since_vacuum, NULL AS last_vacuum,
    NULL AS last_autovacuum, NULL AS last_analyze, NULL AS last_autoanalyze, 0 AS vacuum_count,
    0 AS autovacuum_count, 0 AS analyze_count, 0 AS autoanalyze_count
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind = 'r';

CREATE VIEW pg_catalog.pg_stat_user_tables AS
SELECT * FROM pg_stat_all_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema');

CREATE VIEW pg_catalog.pg_stat_activity AS
SELECT s.datid, s.datname, s.pid, s.leader_pid, a.oid AS usesysid, a.rolname AS usename,
    s.application_name, s.client_addr, s.client_hostname, s.client_port, s.backend_start,
    s.xact_start, s.query_start, s.state_change, s.wait_event_type, s.wait_event, s.state,
    s.backend_xid, s.backend_xmin, s.query_id, s.query, s.backend_type
FROM rota_activity AS s LEFT JOIN pg_authid AS a ON a.rolname = current_user();
