-- information_schema, filled from pg_catalog each time that it was filled anew.

DELETE FROM information_schema.tables;
INSERT INTO information_schema.tables (
    table_catalog, table_schema, table_name, table_type, is_insertable_into, is_typed
)
SELECT 'rota', n.nspname, c.relname, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'BASE TABLE' END,
    iif(c.relkind = 'v', 'NO', 'YES'), 'NO'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v');

DELETE FROM information_schema.columns;
INSERT INTO information_schema.columns (
    table_catalog, table_schema, table_name, column_name, ordinal_position, column_default,
    is_nullable, data_type, character_maximum_length, character_octet_length, numeric_precision,
    numeric_precision_radix, numeric_scale, datetime_precision, udt_catalog, udt_schema, udt_name,
    dtd_identifier, is_self_referencing, is_identity, identity_cycle, is_generated,
    generation_expression, is_updatable
)
SELECT 'rota', 'public', c.relname, a.attname, a.attnum, iif(a.attgenerated = '', d.adbin, NULL),
    iif(a.attnotnull, 'NO', 'YES'),
    iif(t.typcategory = 'A', 'ARRAY', format_type(a.atttypid, NULL)),
    iif(a.atttypid IN (1042, 1043) AND a.atttypmod > 4, a.atttypmod - 4, NULL),
    CASE WHEN a.atttypid IN (1042, 1043) AND a.atttypmod > 4 THEN 4 * (a.atttypmod - 4)
        WHEN t.typcategory = 'S' THEN 1073741824 END,
    CASE a.atttypid WHEN 21 THEN 16 WHEN 23 THEN 32 WHEN 20 THEN 64 WHEN 700 THEN 24
        WHEN 701 THEN 53 WHEN 1700 THEN iif(a.atttypmod > 0, (a.atttypmod - 4) >> 16, NULL) END,
    CASE WHEN a.atttypid IN (20, 21, 23, 700, 701) THEN iif(a.atttypid >= 700, 2, 2)
        WHEN a.atttypid = 1700 THEN 10 END,
    CASE WHEN a.atttypid IN (20, 21, 23) THEN 0
        WHEN a.atttypid = 1700 AND a.atttypmod > 0 THEN (a.atttypmod - 4) & 2047 END,
    CASE WHEN a.atttypid IN (1083, 1114, 1184, 1266) THEN iif(a.atttypmod < 0, 6, a.atttypmod)
        WHEN a.atttypid = 1082 THEN 0 END,
    'rota', 'pg_catalog', t.typname, a.attnum, 'NO', 'NO', 'NO',
    iif(a.attgenerated = '', 'NEVER', 'ALWAYS'), iif(a.attgenerated = '', NULL, d.adbin),
    iif(c.relkind = 'v', 'NO', 'YES')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'v') AND c.relnamespace = 2200 ORDER BY c.oid, a.attnum;

DELETE FROM information_schema.table_constraints;
INSERT INTO information_schema.table_constraints (
    constraint_catalog, constraint_schema, constraint_name, table_catalog, table_schema,
    table_name, constraint_type, is_deferrable, initially_deferred, enforced, nulls_distinct
)
SELECT 'rota', 'public', r.conname, 'rota', 'public', c.relname,
    CASE r.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY'
        ELSE 'CHECK' END,
    iif(r.condeferrable, 'YES', 'NO'), iif(r.condeferred, 'YES', 'NO'), 'YES',
    iif(r.contype = 'u', 'YES', NULL)
FROM pg_catalog.pg_constraint AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.conrelid;
INSERT INTO information_schema.table_constraints (
    constraint_catalog, constraint_schema, constraint_name, table_catalog, table_schema,
    table_name, constraint_type, is_deferrable, initially_deferred, enforced
)
SELECT 'rota', 'public', '2200_' || c.oid || '_' || a.attnum || '_not_null', 'rota', 'public',
    c.relname, 'CHECK', 'NO', 'NO', 'YES'
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull
WHERE c.relkind = 'r' AND c.relnamespace = 2200;

DELETE FROM information_schema.check_constraints;
INSERT INTO information_schema.check_constraints
SELECT 'rota', 'public', r.conname, r.conbin FROM pg_catalog.pg_constraint AS r
WHERE r.contype = 'c'
UNION ALL
SELECT 'rota', 'public', '2200_' || c.oid || '_' || a.attnum || '_not_null',
    a.attname || ' IS NOT NULL'
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull
WHERE c.relkind = 'r' AND c.relnamespace = 2200;

DELETE FROM information_schema.key_column_usage;
INSERT INTO information_schema.key_column_usage
SELECT 'rota', 'public', r.conname, 'rota', 'public', c.relname, a.attname, k.place,
    iif(r.contype = 'f', (SELECT o.place FROM pg_catalog.pg_constraint AS p
        JOIN pg_catalog.rota_key AS o ON o.rota_owner = p.oid
        WHERE p.conindid = r.conindid AND p.contype IN ('p', 'u') AND o.attnum = k.confattnum), NULL)
FROM pg_catalog.pg_constraint AS r JOIN pg_catalog.rota_key AS k ON k.rota_owner = r.oid
JOIN pg_catalog.pg_class AS c ON c.oid = r.conrelid
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.conrelid AND a.attnum = k.attnum
WHERE r.contype IN ('p', 'u', 'f') ORDER BY r.oid, k.place;

DELETE FROM information_schema.referential_constraints;
INSERT INTO information_schema.referential_constraints
SELECT 'rota', 'public', r.conname, 'rota', 'public', p.conname, 'NONE',
    CASE r.confupdtype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT'
        WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END,
    CASE r.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT'
        WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END
FROM pg_catalog.pg_constraint AS r
LEFT JOIN pg_catalog.pg_constraint AS p ON p.conindid = r.conindid AND p.contype IN ('p', 'u')
WHERE r.contype = 'f';

DELETE FROM information_schema.constraint_column_usage;
INSERT INTO information_schema.constraint_column_usage
SELECT 'rota', 'public', c.relname, a.attname, 'rota', 'public', r.conname
FROM pg_catalog.pg_constraint AS r JOIN pg_catalog.rota_key AS k ON k.rota_owner = r.oid
JOIN pg_catalog.pg_class AS c ON c.oid = iif(r.contype = 'f', r.confrelid, r.conrelid)
JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = c.oid AND a.attnum = iif(r.contype = 'f', k.confattnum, k.attnum);

DELETE FROM information_schema.constraint_table_usage;
INSERT INTO information_schema.constraint_table_usage
SELECT 'rota', 'public', c.relname, 'rota', 'public', r.conname
FROM pg_catalog.pg_constraint AS r
JOIN pg_catalog.pg_class AS c ON c.oid = iif(r.contype = 'f', r.confrelid, r.conrelid)
WHERE r.contype IN ('p', 'u', 'f');

DELETE FROM information_schema.views;
INSERT INTO information_schema.views
SELECT 'rota', 'public', viewname, definition, 'NONE', 'NO', 'NO', 'NO', 'NO', 'NO'
FROM pg_catalog.pg_views WHERE schemaname = 'public';

DELETE FROM information_schema.sequences;
INSERT INTO information_schema.sequences
SELECT 'rota', 'public', c.relname, 'bigint', 64, 2, 0, s.seqstart, s.seqmin, s.seqmax,
    s.seqincrement, 'NO'
FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid;

DELETE FROM information_schema.rota_role;
INSERT INTO information_schema.rota_role SELECT rolname FROM pg_catalog.pg_authid;

UPDATE information_schema.schemata
SET schema_owner = (SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10);
