-- The tables of PostgreSQL's catalog, each with the columns that PostgreSQL 15 gives it.
-- Most stay empty: Rota has nothing of the kind, and tools ask all the same.

CREATE TABLE pg_catalog.pg_aggregate (
    aggfnoid text, aggkind """char""", aggnumdirectargs int2, aggtransfn text, aggfinalfn text,
    aggcombinefn text, aggserialfn text, aggdeserialfn text, aggmtransfn text, aggminvtransfn
    text, aggmfinalfn text, aggfinalextra bool, aggmfinalextra bool, aggfinalmodify """char""",
    aggmfinalmodify """char""", aggsortop oid, aggtranstype oid, aggtransspace int4, aggmtranstype
    oid, aggmtransspace int4, agginitval text, aggminitval text
);

CREATE TABLE pg_catalog.pg_am (
    oid oid, amname text, amhandler text, amtype """char"""
);

CREATE TABLE pg_catalog.pg_amop (
    oid oid, amopfamily oid, amoplefttype oid, amoprighttype oid, amopstrategy int2,
    amoppurpose """char""", amopopr oid, amopmethod oid, amopsortfamily oid
);

CREATE TABLE pg_catalog.pg_amproc (
    oid oid, amprocfamily oid, amproclefttype oid, amprocrighttype oid, amprocnum int2, amproc
    text
);

CREATE TABLE pg_catalog.pg_attrdef (
    oid oid, adrelid oid, adnum int2, adbin text
);

CREATE TABLE pg_catalog.pg_attribute (
    attrelid oid, attname text, atttypid oid, attstattarget int4, attlen int2, attnum int2,
    attndims int4, attcacheoff int4, atttypmod int4, attbyval bool, attalign """char""",
    attstorage """char""", attcompression """char""", attnotnull bool, atthasdef bool, atthasmissing
    bool, attidentity """char""", attgenerated """char""", attisdropped bool, attislocal bool,
    attinhcount int4, attcollation oid, attacl text, attoptions text[], attfdwoptions text,
    attmissingval text
);

CREATE TABLE pg_catalog.pg_auth_members (
    roleid oid, member oid, grantor oid, admin_option bool
);

CREATE TABLE pg_catalog.pg_authid (
    oid oid, rolname text, rolsuper bool, rolinherit bool, rolcreaterole bool, rolcreatedb
    bool, rolcanlogin bool, rolreplication bool, rolbypassrls bool, rolconnlimit int4,
    rolpassword text, rolvaliduntil timestamptz
);

CREATE TABLE pg_catalog.pg_available_extensions (
    name text, default_version text, installed_version text, comment text
);

CREATE TABLE pg_catalog.pg_cast (
    oid oid, castsource oid, casttarget oid, castfunc oid, castcontext """char""", castmethod
    """char"""
);

CREATE TABLE pg_catalog.pg_class (
    oid oid, relname text, relnamespace oid, reltype oid, reloftype oid, relowner oid, relam
    oid, relfilenode oid, reltablespace oid, relpages int4, reltuples float4, relallvisible
    int4, reltoastrelid oid, relhasindex bool, relisshared bool, relpersistence """char""",
    relkind """char""", relnatts int2, relchecks int2, relhasrules bool, relhastriggers bool,
    relhassubclass bool, relrowsecurity bool, relforcerowsecurity bool, relispopulated bool,
    relreplident """char""", relispartition bool, relrewrite oid, relfrozenxid int4, relminmxid
    int4, relacl text[], reloptions text[], relpartbound text
);

CREATE TABLE pg_catalog.pg_collation (
    oid oid, collname text, collnamespace oid, collowner oid, collprovider """char""",
    collisdeterministic bool, collencoding int4, collcollate text, collctype text,
    colliculocale text, collversion text
);

CREATE TABLE pg_catalog.pg_constraint (
    oid oid, conname text, connamespace oid, contype """char""", condeferrable bool, condeferred
    bool, convalidated bool, conrelid oid, contypid oid, conindid oid, conparentid oid,
    confrelid oid, confupdtype """char""", confdeltype """char""", confmatchtype """char""", conislocal
    bool, coninhcount int4, connoinherit bool, conkey int2[], confkey int2[], conpfeqop text,
    conppeqop text, conffeqop text, confdelsetcols text, conexclop text, conbin text
);

CREATE TABLE pg_catalog.pg_conversion (
    oid oid, conname text, connamespace oid, conowner oid, conforencoding int4, contoencoding
    int4, conproc text, condefault bool
);

CREATE TABLE pg_catalog.pg_cursors (
    name text, statement text, is_holdable bool, is_binary bool, is_scrollable bool,
    creation_time timestamptz
);

CREATE TABLE pg_catalog.pg_database (
    oid oid, datname text, datdba oid, encoding int4, datlocprovider """char""", datistemplate
    bool, datallowconn bool, datconnlimit int4, datfrozenxid int4, datminmxid int4,
    dattablespace oid, datcollate text, datctype text, daticulocale text, datcollversion text,
    datacl text[]
);

CREATE TABLE pg_catalog.pg_db_role_setting (
    setdatabase oid, setrole oid, setconfig text
);

CREATE TABLE pg_catalog.pg_default_acl (
    oid oid, defaclrole oid, defaclnamespace oid, defaclobjtype """char""", defaclacl text
);

CREATE TABLE pg_catalog.pg_depend (
    classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4,
    deptype """char"""
);

CREATE TABLE pg_catalog.pg_description (
    objoid oid, classoid oid, objsubid int4, description text
);

CREATE TABLE pg_catalog.pg_enum (
    oid oid, enumtypid oid, enumsortorder float4, enumlabel text
);

CREATE TABLE pg_catalog.pg_event_trigger (
    oid oid, evtname text, evtevent text, evtowner oid, evtfoid oid, evtenabled """char""",
    evttags text
);

CREATE TABLE pg_catalog.pg_extension (
    oid oid, extname text, extowner oid, extnamespace oid, extrelocatable bool, extversion
    text, extconfig text, extcondition text
);

CREATE TABLE pg_catalog.pg_foreign_data_wrapper (
    oid oid, fdwname text, fdwowner oid, fdwhandler oid, fdwvalidator oid, fdwacl text,
    fdwoptions text
);

CREATE TABLE pg_catalog.pg_foreign_server (
    oid oid, srvname text, srvowner oid, srvfdw oid, srvtype text, srvversion text, srvacl
    text, srvoptions text
);

CREATE TABLE pg_catalog.pg_foreign_table (
    ftrelid oid, ftserver oid, ftoptions text
);

CREATE TABLE pg_catalog.pg_index (
    indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique bool,
    indnullsnotdistinct bool, indisprimary bool, indisexclusion bool, indimmediate bool,
    indisclustered bool, indisvalid bool, indcheckxmin bool, indisready bool, indislive bool,
    indisreplident bool, indkey int2vector, indcollation oidvector, indclass oidvector, indoption int2vector,
    indexprs text, indpred text
);

CREATE TABLE pg_catalog.pg_inherits (
    inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool
);

CREATE TABLE pg_catalog.pg_language (
    oid oid, lanname text, lanowner oid, lanispl bool, lanpltrusted bool, lanplcallfoid oid,
    laninline oid, lanvalidator oid, lanacl text
);

CREATE TABLE pg_catalog.pg_largeobject_metadata (
    oid oid, lomowner oid, lomacl text
);

CREATE TABLE pg_catalog.pg_locks (
    locktype text, database oid, relation oid, page int4, tuple int2, virtualxid text,
    transactionid int4, classid oid, objid oid, objsubid int2, virtualtransaction text, pid
    int4, mode text, granted bool, fastpath bool, waitstart timestamptz
);

CREATE TABLE pg_catalog.pg_namespace (
    oid oid, nspname text, nspowner oid, nspacl text[]
);

CREATE TABLE pg_catalog.pg_opclass (
    oid oid, opcmethod oid, opcname text, opcnamespace oid, opcowner oid, opcfamily oid,
    opcintype oid, opcdefault bool, opckeytype oid
);

CREATE TABLE pg_catalog.pg_operator (
    oid oid, oprname text, oprnamespace oid, oprowner oid, oprkind """char""", oprcanmerge bool,
    oprcanhash bool, oprleft oid, oprright oid, oprresult oid, oprcom oid, oprnegate oid,
    oprcode text, oprrest text, oprjoin text
);

CREATE TABLE pg_catalog.pg_opfamily (
    oid oid, opfmethod oid, opfname text, opfnamespace oid, opfowner oid
);

CREATE TABLE pg_catalog.pg_partitioned_table (
    partrelid oid, partstrat """char""", partnatts int2, partdefid oid, partattrs text, partclass
    text, partcollation text, partexprs text
);

CREATE TABLE pg_catalog.pg_policy (
    oid oid, polname text, polrelid oid, polcmd """char""", polpermissive bool, polroles oid[],
    polqual text, polwithcheck text
);

CREATE TABLE pg_catalog.pg_prepared_statements (
    name text, statement text, prepare_time timestamptz, parameter_types text, from_sql bool,
    generic_plans int8, custom_plans int8
);

CREATE TABLE pg_catalog.pg_prepared_xacts (
    "transaction" int4, gid text, prepared timestamptz, owner text, database text
);

CREATE TABLE pg_catalog.pg_proc (
    oid oid, proname text, pronamespace oid, proowner oid, prolang oid, procost float4,
    prorows float4, provariadic oid, prosupport text, prokind """char""", prosecdef bool,
    proleakproof bool, proisstrict bool, proretset bool, provolatile """char""", proparallel
    """char""", pronargs int2, pronargdefaults int2, prorettype oid, proargtypes oidvector,
    proallargtypes oid[], proargmodes text[], proargnames text[], proargdefaults text, protrftypes
    text, prosrc text, probin text, prosqlbody text, proconfig text, proacl text
);

CREATE TABLE pg_catalog.pg_publication (
    oid oid, pubname text, pubowner oid, puballtables bool, pubinsert bool, pubupdate bool,
    pubdelete bool, pubtruncate bool, pubviaroot bool
);

CREATE TABLE pg_catalog.pg_publication_namespace (
    oid oid, pnpubid oid, pnnspid oid
);

CREATE TABLE pg_catalog.pg_publication_rel (
    oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2[]
);

CREATE TABLE pg_catalog.pg_publication_tables (
    pubname text, schemaname text, tablename text, attnames text, rowfilter text
);

CREATE TABLE pg_catalog.pg_range (
    rngtypid oid, rngsubtype oid, rngmultitypid oid, rngcollation oid, rngsubopc oid,
    rngcanonical text, rngsubdiff text
);

CREATE TABLE pg_catalog.pg_replication_slots (
    slot_name text, plugin text, slot_type text, datoid oid, database text, temporary bool,
    active bool, active_pid int4, xmin int4, catalog_xmin int4, restart_lsn text,
    confirmed_flush_lsn text, wal_status text, safe_wal_size int8, two_phase bool
);

CREATE TABLE pg_catalog.pg_rewrite (
    oid oid, rulename text, ev_class oid, ev_type """char""", ev_enabled """char""", is_instead bool,
    ev_qual text, ev_action text
);

CREATE TABLE pg_catalog.pg_seclabel (
    objoid oid, classoid oid, objsubid int4, provider text, label text
);

CREATE TABLE pg_catalog.pg_sequence (
    seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8,
    seqcache int8, seqcycle bool
);

CREATE TABLE pg_catalog.pg_settings (
    name text, setting text, unit text, category text, short_desc text, extra_desc text,
    context text, vartype text, source text, min_val text, max_val text, enumvals text,
    boot_val text, reset_val text, sourcefile text, sourceline int4, pending_restart bool
);

CREATE TABLE pg_catalog.pg_shdepend (
    dbid oid, classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, deptype
    """char"""
);

CREATE TABLE pg_catalog.pg_shdescription (
    objoid oid, classoid oid, description text
);

CREATE TABLE pg_catalog.pg_shseclabel (
    objoid oid, classoid oid, provider text, label text
);

CREATE TABLE pg_catalog.rota_activity (
    datid oid, datname text, pid int4, leader_pid int4, usesysid oid, usename text,
    application_name text, client_addr text, client_hostname text, client_port int4,
    backend_start timestamptz, xact_start timestamptz, query_start timestamptz, state_change
    timestamptz, wait_event_type text, wait_event text, state text, backend_xid int4,
    backend_xmin int4, query_id int8, query text, backend_type text
);

CREATE TABLE pg_catalog.pg_stat_database (
    datid oid, datname text, numbackends int4, xact_commit int8, xact_rollback int8, blks_read
    int8, blks_hit int8, tup_returned int8, tup_fetched int8, tup_inserted int8, tup_updated
    int8, tup_deleted int8, conflicts int8, temp_files int8, temp_bytes int8, deadlocks int8,
    checksum_failures int8, checksum_last_failure timestamptz, blk_read_time float8,
    blk_write_time float8, session_time float8, active_time float8, idle_in_transaction_time
    float8, sessions int8, sessions_abandoned int8, sessions_fatal int8, sessions_killed int8,
    stats_reset timestamptz
);

CREATE TABLE pg_catalog.pg_stat_replication (
    pid int4, usesysid oid, usename text, application_name text, client_addr text,
    client_hostname text, client_port int4, backend_start timestamptz, backend_xmin int4,
    state text, sent_lsn text, write_lsn text, flush_lsn text, replay_lsn text, write_lag
    text, flush_lag text, replay_lag text, sync_priority int4, sync_state text, reply_time
    timestamptz
);

CREATE TABLE pg_catalog.pg_stat_user_indexes (
    relid oid, indexrelid oid, schemaname text, relname text, indexrelname text, idx_scan
    int8, idx_tup_read int8, idx_tup_fetch int8
);

CREATE TABLE pg_catalog.pg_statio_user_tables (
    relid oid, schemaname text, relname text, heap_blks_read int8, heap_blks_hit int8,
    idx_blks_read int8, idx_blks_hit int8, toast_blks_read int8, toast_blks_hit int8,
    tidx_blks_read int8, tidx_blks_hit int8
);

CREATE TABLE pg_catalog.pg_statistic (
    starelid oid, staattnum int2, stainherit bool, stanullfrac float4, stawidth int4,
    stadistinct float4, stakind1 int2, stakind2 int2, stakind3 int2, stakind4 int2, stakind5
    int2, staop1 oid, staop2 oid, staop3 oid, staop4 oid, staop5 oid, stacoll1 oid, stacoll2
    oid, stacoll3 oid, stacoll4 oid, stacoll5 oid, stanumbers1 text, stanumbers2 text,
    stanumbers3 text, stanumbers4 text, stanumbers5 text, stavalues1 text, stavalues2 text,
    stavalues3 text, stavalues4 text, stavalues5 text
);

CREATE TABLE pg_catalog.pg_statistic_ext (
    oid oid, stxrelid oid, stxname text, stxnamespace oid, stxowner oid, stxstattarget int4,
    stxkeys text, stxkind text, stxexprs text
);

CREATE TABLE pg_catalog.pg_statistic_ext_data (
    stxoid oid, stxdinherit bool, stxdndistinct text, stxddependencies text, stxdmcv text,
    stxdexpr text
);

CREATE TABLE pg_catalog.pg_stats (
    schemaname text, tablename text, attname text, inherited bool, null_frac float4, avg_width
    int4, n_distinct float4, most_common_vals text, most_common_freqs text, histogram_bounds
    text, correlation float4, most_common_elems text, most_common_elem_freqs text,
    elem_count_histogram text
);

CREATE TABLE pg_catalog.pg_subscription (
    oid oid, subdbid oid, subskiplsn text, subname text, subowner oid, subenabled bool,
    subbinary bool, substream bool, subtwophasestate """char""", subdisableonerr bool, subconninfo
    text, subslotname text, subsynccommit text, subpublications text
);

CREATE TABLE pg_catalog.pg_tablespace (
    oid oid, spcname text, spcowner oid, spcacl text, spcoptions text
);

CREATE TABLE pg_catalog.pg_timezone_names (
    name text, abbrev text, utc_offset text, is_dst bool
);

CREATE TABLE pg_catalog.pg_trigger (
    oid oid, tgrelid oid, tgparentid oid, tgname text, tgfoid oid, tgtype int2, tgenabled
    """char""", tgisinternal bool, tgconstrrelid oid, tgconstrindid oid, tgconstraint oid,
    tgdeferrable bool, tginitdeferred bool, tgnargs int2, tgattr text, tgargs text, tgqual
    text, tgoldtable text, tgnewtable text
);

CREATE TABLE pg_catalog.pg_ts_config (
    oid oid, cfgname text, cfgnamespace oid, cfgowner oid, cfgparser oid
);

CREATE TABLE pg_catalog.pg_ts_config_map (
    mapcfg oid, maptokentype int4, mapseqno int4, mapdict oid
);

CREATE TABLE pg_catalog.pg_ts_dict (
    oid oid, dictname text, dictnamespace oid, dictowner oid, dicttemplate oid, dictinitoption
    text
);

CREATE TABLE pg_catalog.pg_ts_parser (
    oid oid, prsname text, prsnamespace oid, prsstart text, prstoken text, prsend text,
    prsheadline text, prslextype text
);

CREATE TABLE pg_catalog.pg_ts_template (
    oid oid, tmplname text, tmplnamespace oid, tmplinit text, tmpllexize text
);

CREATE TABLE pg_catalog.pg_type (
    oid oid, typname text, typnamespace oid, typowner oid, typlen int2, typbyval bool, typtype
    """char""", typcategory """char""", typispreferred bool, typisdefined bool, typdelim """char""",
    typrelid oid, typsubscript text, typelem oid, typarray oid, typinput text, typoutput text,
    typreceive text, typsend text, typmodin text, typmodout text, typanalyze text, typalign
    """char""", typstorage """char""", typnotnull bool, typbasetype oid, typtypmod int4, typndims
    int4, typcollation oid, typdefaultbin text, typdefault text, typacl text
);

CREATE TABLE pg_catalog.pg_user_mapping (
    oid oid, umuser oid, umserver oid, umoptions text
);

CREATE TABLE pg_catalog.pg_user_mappings (
    umid oid, srvid oid, srvname text, umuser oid, usename text, umoptions text
);

CREATE TABLE information_schema.character_sets (
    character_set_catalog text, character_set_schema text, character_set_name text,
    character_repertoire text, form_of_use text, default_collate_catalog text,
    default_collate_schema text, default_collate_name text
);

CREATE TABLE information_schema.check_constraints (
    constraint_catalog text, constraint_schema text, constraint_name text, check_clause text
);

CREATE TABLE information_schema.column_privileges (
    grantor text, grantee text, table_catalog text, table_schema text, table_name text,
    column_name text, privilege_type text, is_grantable text
);

CREATE TABLE information_schema.column_udt_usage (
    udt_catalog text, udt_schema text, udt_name text, table_catalog text, table_schema text,
    table_name text, column_name text
);

CREATE TABLE information_schema.columns (
    table_catalog text, table_schema text, table_name text, column_name text, ordinal_position
    int4, column_default text, is_nullable text, data_type text, character_maximum_length
    int4, character_octet_length int4, numeric_precision int4, numeric_precision_radix int4,
    numeric_scale int4, datetime_precision int4, interval_type text, interval_precision int4,
    character_set_catalog text, character_set_schema text, character_set_name text,
    collation_catalog text, collation_schema text, collation_name text, domain_catalog text,
    domain_schema text, domain_name text, udt_catalog text, udt_schema text, udt_name text,
    scope_catalog text, scope_schema text, scope_name text, maximum_cardinality int4,
    dtd_identifier text, is_self_referencing text, is_identity text, identity_generation text,
    identity_start text, identity_increment text, identity_maximum text, identity_minimum
    text, identity_cycle text, is_generated text, generation_expression text, is_updatable
    text
);

CREATE TABLE information_schema.constraint_column_usage (
    table_catalog text, table_schema text, table_name text, column_name text,
    constraint_catalog text, constraint_schema text, constraint_name text
);

CREATE TABLE information_schema.constraint_table_usage (
    table_catalog text, table_schema text, table_name text, constraint_catalog text,
    constraint_schema text, constraint_name text
);

CREATE TABLE information_schema.domain_constraints (
    constraint_catalog text, constraint_schema text, constraint_name text, domain_catalog
    text, domain_schema text, domain_name text, is_deferrable text, initially_deferred text
);

CREATE TABLE information_schema.domains (
    domain_catalog text, domain_schema text, domain_name text, data_type text,
    character_maximum_length int4, character_octet_length int4, character_set_catalog text,
    character_set_schema text, character_set_name text, collation_catalog text,
    collation_schema text, collation_name text, numeric_precision int4,
    numeric_precision_radix int4, numeric_scale int4, datetime_precision int4, interval_type
    text, interval_precision int4, domain_default text, udt_catalog text, udt_schema text,
    udt_name text, scope_catalog text, scope_schema text, scope_name text, maximum_cardinality
    int4, dtd_identifier text
);

CREATE TABLE information_schema.element_types (
    object_catalog text, object_schema text, object_name text, object_type text,
    collection_type_identifier text, data_type text, character_maximum_length int4,
    character_octet_length int4, character_set_catalog text, character_set_schema text,
    character_set_name text, collation_catalog text, collation_schema text, collation_name
    text, numeric_precision int4, numeric_precision_radix int4, numeric_scale int4,
    datetime_precision int4, interval_type text, interval_precision int4, domain_default text,
    udt_catalog text, udt_schema text, udt_name text, scope_catalog text, scope_schema text,
    scope_name text, maximum_cardinality int4, dtd_identifier text
);

CREATE TABLE information_schema.information_schema_catalog_name (
    catalog_name text
);

CREATE TABLE information_schema.key_column_usage (
    constraint_catalog text, constraint_schema text, constraint_name text, table_catalog text,
    table_schema text, table_name text, column_name text, ordinal_position int4,
    position_in_unique_constraint int4
);

CREATE TABLE information_schema.parameters (
    specific_catalog text, specific_schema text, specific_name text, ordinal_position int4,
    parameter_mode text, is_result text, as_locator text, parameter_name text, data_type text,
    character_maximum_length int4, character_octet_length int4, character_set_catalog text,
    character_set_schema text, character_set_name text, collation_catalog text,
    collation_schema text, collation_name text, numeric_precision int4,
    numeric_precision_radix int4, numeric_scale int4, datetime_precision int4, interval_type
    text, interval_precision int4, udt_catalog text, udt_schema text, udt_name text,
    scope_catalog text, scope_schema text, scope_name text, maximum_cardinality int4,
    dtd_identifier text, parameter_default text
);

CREATE TABLE information_schema.referential_constraints (
    constraint_catalog text, constraint_schema text, constraint_name text,
    unique_constraint_catalog text, unique_constraint_schema text, unique_constraint_name
    text, match_option text, update_rule text, delete_rule text
);

CREATE TABLE information_schema.role_routine_grants (
    grantor text, grantee text, specific_catalog text, specific_schema text, specific_name
    text, routine_catalog text, routine_schema text, routine_name text, privilege_type text,
    is_grantable text
);

CREATE TABLE information_schema.routines (
    specific_catalog text, specific_schema text, specific_name text, routine_catalog text,
    routine_schema text, routine_name text, routine_type text, module_catalog text,
    module_schema text, module_name text, udt_catalog text, udt_schema text, udt_name text,
    data_type text, character_maximum_length int4, character_octet_length int4,
    character_set_catalog text, character_set_schema text, character_set_name text,
    collation_catalog text, collation_schema text, collation_name text, numeric_precision
    int4, numeric_precision_radix int4, numeric_scale int4, datetime_precision int4,
    interval_type text, interval_precision int4, type_udt_catalog text, type_udt_schema text,
    type_udt_name text, scope_catalog text, scope_schema text, scope_name text,
    maximum_cardinality int4, dtd_identifier text, routine_body text, routine_definition text,
    external_name text, external_language text, parameter_style text, is_deterministic text,
    sql_data_access text, is_null_call text, sql_path text, schema_level_routine text,
    max_dynamic_result_sets int4, is_user_defined_cast text, is_implicitly_invocable text,
    security_type text, to_sql_specific_catalog text, to_sql_specific_schema text,
    to_sql_specific_name text, as_locator text, created timestamptz, last_altered timestamptz,
    new_savepoint_level text, is_udt_dependent text, result_cast_from_data_type text,
    result_cast_as_locator text, result_cast_char_max_length int4,
    result_cast_char_octet_length int4, result_cast_char_set_catalog text,
    result_cast_char_set_schema text, result_cast_char_set_name text,
    result_cast_collation_catalog text, result_cast_collation_schema text,
    result_cast_collation_name text, result_cast_numeric_precision int4,
    result_cast_numeric_precision_radix int4, result_cast_numeric_scale int4,
    result_cast_datetime_precision int4, result_cast_interval_type text,
    result_cast_interval_precision int4, result_cast_type_udt_catalog text,
    result_cast_type_udt_schema text, result_cast_type_udt_name text,
    result_cast_scope_catalog text, result_cast_scope_schema text, result_cast_scope_name
    text, result_cast_maximum_cardinality int4, result_cast_dtd_identifier text
);

CREATE TABLE information_schema.schemata (
    catalog_name text, schema_name text, schema_owner text, default_character_set_catalog
    text, default_character_set_schema text, default_character_set_name text, sql_path text
);

CREATE TABLE information_schema.sequences (
    sequence_catalog text, sequence_schema text, sequence_name text, data_type text,
    numeric_precision int4, numeric_precision_radix int4, numeric_scale int4, start_value
    text, minimum_value text, maximum_value text, increment text, cycle_option text
);

CREATE TABLE information_schema.table_constraints (
    constraint_catalog text, constraint_schema text, constraint_name text, table_catalog text,
    table_schema text, table_name text, constraint_type text, is_deferrable text,
    initially_deferred text, enforced text, nulls_distinct text
);

CREATE TABLE information_schema.tables (
    table_catalog text, table_schema text, table_name text, table_type text,
    self_referencing_column_name text, reference_generation text, user_defined_type_catalog
    text, user_defined_type_schema text, user_defined_type_name text, is_insertable_into text,
    is_typed text, commit_action text
);

CREATE TABLE information_schema.triggers (
    trigger_catalog text, trigger_schema text, trigger_name text, event_manipulation text,
    event_object_catalog text, event_object_schema text, event_object_table text, action_order
    int4, action_condition text, action_statement text, action_orientation text, action_timing
    text, action_reference_old_table text, action_reference_new_table text,
    action_reference_old_row text, action_reference_new_row text, created timestamptz
);

CREATE TABLE information_schema.usage_privileges (
    grantor text, grantee text, object_catalog text, object_schema text, object_name text,
    object_type text, privilege_type text, is_grantable text
);

CREATE TABLE information_schema.user_defined_types (
    user_defined_type_catalog text, user_defined_type_schema text, user_defined_type_name
    text, user_defined_type_category text, is_instantiable text, is_final text, ordering_form
    text, ordering_category text, ordering_routine_catalog text, ordering_routine_schema text,
    ordering_routine_name text, reference_type text, data_type text, character_maximum_length
    int4, character_octet_length int4, character_set_catalog text, character_set_schema text,
    character_set_name text, collation_catalog text, collation_schema text, collation_name
    text, numeric_precision int4, numeric_precision_radix int4, numeric_scale int4,
    datetime_precision int4, interval_type text, interval_precision int4,
    source_dtd_identifier text, ref_dtd_identifier text
);

CREATE TABLE information_schema.view_column_usage (
    view_catalog text, view_schema text, view_name text, table_catalog text, table_schema
    text, table_name text, column_name text
);

CREATE TABLE information_schema.view_table_usage (
    view_catalog text, view_schema text, view_name text, table_catalog text, table_schema
    text, table_name text
);

CREATE TABLE information_schema.views (
    table_catalog text, table_schema text, table_name text, view_definition text, check_option
    text, is_updatable text, is_insertable_into text, is_trigger_updatable text,
    is_trigger_deletable text, is_trigger_insertable_into text
);

-- What the functions of the catalog tell of an object: an index's, view's or constraint's words.
CREATE TABLE pg_catalog.rota_definition (oid oid PRIMARY KEY, definition text);

-- Which state of the schema these tables were filled from.
CREATE TABLE pg_catalog.rota_filled (fingerprint text);

-- The columns of keys, one a row: what `conkey` and `confkey` tell as arrays.
CREATE TABLE pg_catalog.rota_key (
    rota_owner oid, place int4, attnum int2, confattnum int2
);

-- The columns of indexes, one a row: what `indkey` and `indoption` tell as vectors.
CREATE TABLE pg_catalog.rota_index_key (
    rota_owner oid, place int4, attnum int2, option int2, opclass oid, collation oid,
    definition text
);

-- Users, memberships and grants, of which each user is shown its own.
CREATE TABLE information_schema.rota_role (role_name text);

CREATE TABLE information_schema.rota_membership (
    grantee text, role_name text, is_grantable text
);

CREATE TABLE information_schema.rota_privilege (
    grantor text, grantee text, table_catalog text, table_schema text, table_name text,
    privilege_type text, is_grantable text, with_hierarchy text
);

-- The same one a row by numbers: what `relacl` tells as an array.
CREATE TABLE pg_catalog.rota_acl (
    rota_owner oid, grantor oid, grantee oid, privilege_type text, is_grantable bool
);
