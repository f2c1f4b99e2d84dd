-- What is the same in every database: PostgreSQL's own types, under its own numbers (pg_type.dat of
-- PostgreSQL 15), schemas, access methods, collations, casts of ranges.

INSERT INTO pg_catalog.pg_type (
    oid, typname, typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typelem, typarray,
    typalign, typstorage, typcollation, typinput, typoutput, typreceive, typsend, typmodin
) VALUES
(16, 'bool', 1, 1, 'b', 'B', 1, ',', 0, 1000, 'c', 'p', 0, 'boolin', 'boolout', 'boolrecv', 'boolsend', '-'),
(17, 'bytea', -1, 0, 'b', 'U', 0, ',', 0, 1001, 'i', 'x', 0, 'byteain', 'byteaout', 'bytearecv', 'byteasend', '-'),
(18, 'char', 1, 1, 'b', 'Z', 0, ',', 0, 1002, 'c', 'p', 0, 'charin', 'charout', 'charrecv', 'charsend', '-'),
(19, 'name', 64, 0, 'b', 'S', 0, ',', 18, 1003, 'c', 'p', 950, 'namein', 'nameout', 'namerecv', 'namesend', '-'),
(20, 'int8', 8, 1, 'b', 'N', 0, ',', 0, 1016, 'd', 'p', 0, 'int8in', 'int8out', 'int8recv', 'int8send', '-'),
(21, 'int2', 2, 1, 'b', 'N', 0, ',', 0, 1005, 's', 'p', 0, 'int2in', 'int2out', 'int2recv', 'int2send', '-'),
(22, 'int2vector', -1, 0, 'b', 'A', 0, ',', 21, 1006, 'i', 'p', 0, 'int2vectorin', 'int2vectorout', 'int2vectorrecv', 'int2vectorsend', '-'),
(23, 'int4', 4, 1, 'b', 'N', 0, ',', 0, 1007, 'i', 'p', 0, 'int4in', 'int4out', 'int4recv', 'int4send', '-'),
(24, 'regproc', 4, 1, 'b', 'N', 0, ',', 0, 1008, 'i', 'p', 0, 'regprocin', 'regprocout', 'regprocrecv', 'regprocsend', '-'),
(25, 'text', -1, 0, 'b', 'S', 1, ',', 0, 1009, 'i', 'x', 100, 'textin', 'textout', 'textrecv', 'textsend', '-'),
(26, 'oid', 4, 1, 'b', 'N', 1, ',', 0, 1028, 'i', 'p', 0, 'oidin', 'oidout', 'oidrecv', 'oidsend', '-'),
(27, 'tid', 6, 0, 'b', 'U', 0, ',', 0, 1010, 's', 'p', 0, 'tidin', 'tidout', 'tidrecv', 'tidsend', '-'),
(28, 'xid', 4, 1, 'b', 'U', 0, ',', 0, 1011, 'i', 'p', 0, 'xidin', 'xidout', 'xidrecv', 'xidsend', '-'),
(29, 'cid', 4, 1, 'b', 'U', 0, ',', 0, 1012, 'i', 'p', 0, 'cidin', 'cidout', 'cidrecv', 'cidsend', '-'),
(30, 'oidvector', -1, 0, 'b', 'A', 0, ',', 26, 1013, 'i', 'p', 0, 'oidvectorin', 'oidvectorout', 'oidvectorrecv', 'oidvectorsend', '-'),
(114, 'json', -1, 0, 'b', 'U', 0, ',', 0, 199, 'i', 'x', 0, 'json_in', 'json_out', 'json_recv', 'json_send', '-'),
(142, 'xml', -1, 0, 'b', 'U', 0, ',', 0, 143, 'i', 'x', 0, 'xml_in', 'xml_out', 'xml_recv', 'xml_send', '-'),
(143, '_xml', -1, 0, 'b', 'A', 0, ',', 142, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(199, '_json', -1, 0, 'b', 'A', 0, ',', 114, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(269, 'table_am_handler', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'table_am_handler_in', 'table_am_handler_out', '-', '-', '-'),
(271, '_xid8', -1, 0, 'b', 'A', 0, ',', 5069, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(325, 'index_am_handler', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'index_am_handler_in', 'index_am_handler_out', '-', '-', '-'),
(600, 'point', 16, 0, 'b', 'G', 0, ',', 701, 1017, 'd', 'p', 0, 'point_in', 'point_out', 'point_recv', 'point_send', '-'),
(601, 'lseg', 32, 0, 'b', 'G', 0, ',', 600, 1018, 'd', 'p', 0, 'lseg_in', 'lseg_out', 'lseg_recv', 'lseg_send', '-'),
(602, 'path', -1, 0, 'b', 'G', 0, ',', 0, 1019, 'd', 'x', 0, 'path_in', 'path_out', 'path_recv', 'path_send', '-'),
(603, 'box', 32, 0, 'b', 'G', 0, ';', 600, 1020, 'd', 'p', 0, 'box_in', 'box_out', 'box_recv', 'box_send', '-'),
(604, 'polygon', -1, 0, 'b', 'G', 0, ',', 0, 1027, 'd', 'x', 0, 'poly_in', 'poly_out', 'poly_recv', 'poly_send', '-'),
(628, 'line', 24, 0, 'b', 'G', 0, ',', 701, 629, 'd', 'p', 0, 'line_in', 'line_out', 'line_recv', 'line_send', '-'),
(629, '_line', -1, 0, 'b', 'A', 0, ',', 628, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(650, 'cidr', -1, 0, 'b', 'I', 0, ',', 0, 651, 'i', 'm', 0, 'cidr_in', 'cidr_out', 'cidr_recv', 'cidr_send', '-'),
(651, '_cidr', -1, 0, 'b', 'A', 0, ',', 650, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(700, 'float4', 4, 1, 'b', 'N', 0, ',', 0, 1021, 'i', 'p', 0, 'float4in', 'float4out', 'float4recv', 'float4send', '-'),
(701, 'float8', 8, 1, 'b', 'N', 1, ',', 0, 1022, 'd', 'p', 0, 'float8in', 'float8out', 'float8recv', 'float8send', '-'),
(705, 'unknown', -2, 0, 'p', 'X', 0, ',', 0, 0, 'c', 'p', 0, 'unknownin', 'unknownout', 'unknownrecv', 'unknownsend', '-'),
(718, 'circle', 24, 0, 'b', 'G', 0, ',', 0, 719, 'd', 'p', 0, 'circle_in', 'circle_out', 'circle_recv', 'circle_send', '-'),
(719, '_circle', -1, 0, 'b', 'A', 0, ',', 718, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(774, 'macaddr8', 8, 0, 'b', 'U', 0, ',', 0, 775, 'i', 'p', 0, 'macaddr8_in', 'macaddr8_out', 'macaddr8_recv', 'macaddr8_send', '-'),
(775, '_macaddr8', -1, 0, 'b', 'A', 0, ',', 774, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(790, 'money', 8, 1, 'b', 'N', 0, ',', 0, 791, 'd', 'p', 0, 'cash_in', 'cash_out', 'cash_recv', 'cash_send', '-'),
(791, '_money', -1, 0, 'b', 'A', 0, ',', 790, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(829, 'macaddr', 6, 0, 'b', 'U', 0, ',', 0, 1040, 'i', 'p', 0, 'macaddr_in', 'macaddr_out', 'macaddr_recv', 'macaddr_send', '-'),
(869, 'inet', -1, 0, 'b', 'I', 1, ',', 0, 1041, 'i', 'm', 0, 'inet_in', 'inet_out', 'inet_recv', 'inet_send', '-'),
(1000, '_bool', -1, 0, 'b', 'A', 0, ',', 16, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1001, '_bytea', -1, 0, 'b', 'A', 0, ',', 17, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1002, '_char', -1, 0, 'b', 'A', 0, ',', 18, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1003, '_name', -1, 0, 'b', 'A', 0, ',', 19, 0, 'i', 'x', 950, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1005, '_int2', -1, 0, 'b', 'A', 0, ',', 21, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1006, '_int2vector', -1, 0, 'b', 'A', 0, ',', 22, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1007, '_int4', -1, 0, 'b', 'A', 0, ',', 23, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1008, '_regproc', -1, 0, 'b', 'A', 0, ',', 24, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1009, '_text', -1, 0, 'b', 'A', 0, ',', 25, 0, 'i', 'x', 100, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1010, '_tid', -1, 0, 'b', 'A', 0, ',', 27, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1011, '_xid', -1, 0, 'b', 'A', 0, ',', 28, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1012, '_cid', -1, 0, 'b', 'A', 0, ',', 29, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1013, '_oidvector', -1, 0, 'b', 'A', 0, ',', 30, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1014, '_bpchar', -1, 0, 'b', 'A', 0, ',', 1042, 0, 'i', 'x', 100, 'array_in', 'array_out', 'array_recv', 'array_send', 'bpchartypmodin'),
(1015, '_varchar', -1, 0, 'b', 'A', 0, ',', 1043, 0, 'i', 'x', 100, 'array_in', 'array_out', 'array_recv', 'array_send', 'varchartypmodin'),
(1016, '_int8', -1, 0, 'b', 'A', 0, ',', 20, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1017, '_point', -1, 0, 'b', 'A', 0, ',', 600, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1018, '_lseg', -1, 0, 'b', 'A', 0, ',', 601, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1019, '_path', -1, 0, 'b', 'A', 0, ',', 602, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1020, '_box', -1, 0, 'b', 'A', 0, ';', 603, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1021, '_float4', -1, 0, 'b', 'A', 0, ',', 700, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1022, '_float8', -1, 0, 'b', 'A', 0, ',', 701, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1027, '_polygon', -1, 0, 'b', 'A', 0, ',', 604, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1028, '_oid', -1, 0, 'b', 'A', 0, ',', 26, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1033, 'aclitem', 12, 0, 'b', 'U', 0, ',', 0, 1034, 'i', 'p', 0, 'aclitemin', 'aclitemout', '-', '-', '-'),
(1034, '_aclitem', -1, 0, 'b', 'A', 0, ',', 1033, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1040, '_macaddr', -1, 0, 'b', 'A', 0, ',', 829, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1041, '_inet', -1, 0, 'b', 'A', 0, ',', 869, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1042, 'bpchar', -1, 0, 'b', 'S', 0, ',', 0, 1014, 'i', 'x', 100, 'bpcharin', 'bpcharout', 'bpcharrecv', 'bpcharsend', 'bpchartypmodin'),
(1043, 'varchar', -1, 0, 'b', 'S', 0, ',', 0, 1015, 'i', 'x', 100, 'varcharin', 'varcharout', 'varcharrecv', 'varcharsend', 'varchartypmodin'),
(1082, 'date', 4, 1, 'b', 'D', 0, ',', 0, 1182, 'i', 'p', 0, 'date_in', 'date_out', 'date_recv', 'date_send', '-'),
(1083, 'time', 8, 1, 'b', 'D', 0, ',', 0, 1183, 'd', 'p', 0, 'time_in', 'time_out', 'time_recv', 'time_send', 'timetypmodin'),
(1114, 'timestamp', 8, 1, 'b', 'D', 0, ',', 0, 1115, 'd', 'p', 0, 'timestamp_in', 'timestamp_out', 'timestamp_recv', 'timestamp_send', 'timestamptypmodin'),
(1115, '_timestamp', -1, 0, 'b', 'A', 0, ',', 1114, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'timestamptypmodin'),
(1182, '_date', -1, 0, 'b', 'A', 0, ',', 1082, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1183, '_time', -1, 0, 'b', 'A', 0, ',', 1083, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'timetypmodin'),
(1184, 'timestamptz', 8, 1, 'b', 'D', 1, ',', 0, 1185, 'd', 'p', 0, 'timestamptz_in', 'timestamptz_out', 'timestamptz_recv', 'timestamptz_send', 'timestamptztypmodin'),
(1185, '_timestamptz', -1, 0, 'b', 'A', 0, ',', 1184, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'timestamptztypmodin'),
(1186, 'interval', 16, 0, 'b', 'T', 1, ',', 0, 1187, 'd', 'p', 0, 'interval_in', 'interval_out', 'interval_recv', 'interval_send', 'intervaltypmodin'),
(1187, '_interval', -1, 0, 'b', 'A', 0, ',', 1186, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'intervaltypmodin'),
(1231, '_numeric', -1, 0, 'b', 'A', 0, ',', 1700, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'numerictypmodin'),
(1263, '_cstring', -1, 0, 'b', 'A', 0, ',', 2275, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(1266, 'timetz', 12, 0, 'b', 'D', 0, ',', 0, 1270, 'd', 'p', 0, 'timetz_in', 'timetz_out', 'timetz_recv', 'timetz_send', 'timetztypmodin'),
(1270, '_timetz', -1, 0, 'b', 'A', 0, ',', 1266, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'timetztypmodin'),
(1560, 'bit', -1, 0, 'b', 'V', 0, ',', 0, 1561, 'i', 'x', 0, 'bit_in', 'bit_out', 'bit_recv', 'bit_send', 'bittypmodin'),
(1561, '_bit', -1, 0, 'b', 'A', 0, ',', 1560, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'bittypmodin'),
(1562, 'varbit', -1, 0, 'b', 'V', 1, ',', 0, 1563, 'i', 'x', 0, 'varbit_in', 'varbit_out', 'varbit_recv', 'varbit_send', 'varbittypmodin'),
(1563, '_varbit', -1, 0, 'b', 'A', 0, ',', 1562, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', 'varbittypmodin'),
(1700, 'numeric', -1, 0, 'b', 'N', 0, ',', 0, 1231, 'i', 'm', 0, 'numeric_in', 'numeric_out', 'numeric_recv', 'numeric_send', 'numerictypmodin'),
(1790, 'refcursor', -1, 0, 'b', 'U', 0, ',', 0, 2201, 'i', 'x', 0, 'textin', 'textout', 'textrecv', 'textsend', '-'),
(2201, '_refcursor', -1, 0, 'b', 'A', 0, ',', 1790, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2202, 'regprocedure', 4, 1, 'b', 'N', 0, ',', 0, 2207, 'i', 'p', 0, 'regprocedurein', 'regprocedureout', 'regprocedurerecv', 'regproceduresend', '-'),
(2203, 'regoper', 4, 1, 'b', 'N', 0, ',', 0, 2208, 'i', 'p', 0, 'regoperin', 'regoperout', 'regoperrecv', 'regopersend', '-'),
(2204, 'regoperator', 4, 1, 'b', 'N', 0, ',', 0, 2209, 'i', 'p', 0, 'regoperatorin', 'regoperatorout', 'regoperatorrecv', 'regoperatorsend', '-'),
(2205, 'regclass', 4, 1, 'b', 'N', 0, ',', 0, 2210, 'i', 'p', 0, 'regclassin', 'regclassout', 'regclassrecv', 'regclasssend', '-'),
(2206, 'regtype', 4, 1, 'b', 'N', 0, ',', 0, 2211, 'i', 'p', 0, 'regtypein', 'regtypeout', 'regtyperecv', 'regtypesend', '-'),
(2207, '_regprocedure', -1, 0, 'b', 'A', 0, ',', 2202, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2208, '_regoper', -1, 0, 'b', 'A', 0, ',', 2203, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2209, '_regoperator', -1, 0, 'b', 'A', 0, ',', 2204, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2210, '_regclass', -1, 0, 'b', 'A', 0, ',', 2205, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2211, '_regtype', -1, 0, 'b', 'A', 0, ',', 2206, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2249, 'record', -1, 0, 'p', 'P', 0, ',', 0, 2287, 'd', 'x', 0, 'record_in', 'record_out', 'record_recv', 'record_send', '-'),
(2275, 'cstring', -2, 0, 'p', 'P', 0, ',', 0, 1263, 'c', 'p', 0, 'cstring_in', 'cstring_out', 'cstring_recv', 'cstring_send', '-'),
(2276, 'any', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'any_in', 'any_out', '-', '-', '-'),
(2277, 'anyarray', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anyarray_in', 'anyarray_out', 'anyarray_recv', 'anyarray_send', '-'),
(2278, 'void', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'void_in', 'void_out', 'void_recv', 'void_send', '-'),
(2279, 'trigger', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'trigger_in', 'trigger_out', '-', '-', '-'),
(2280, 'language_handler', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'language_handler_in', 'language_handler_out', '-', '-', '-'),
(2281, 'internal', 8, 1, 'p', 'P', 0, ',', 0, 0, 'd', 'p', 0, 'internal_in', 'internal_out', '-', '-', '-'),
(2283, 'anyelement', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'anyelement_in', 'anyelement_out', '-', '-', '-'),
(2287, '_record', -1, 0, 'p', 'P', 0, ',', 2249, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2776, 'anynonarray', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'anynonarray_in', 'anynonarray_out', '-', '-', '-'),
(2949, '_txid_snapshot', -1, 0, 'b', 'A', 0, ',', 2970, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2950, 'uuid', 16, 0, 'b', 'U', 0, ',', 0, 2951, 'c', 'p', 0, 'uuid_in', 'uuid_out', 'uuid_recv', 'uuid_send', '-'),
(2951, '_uuid', -1, 0, 'b', 'A', 0, ',', 2950, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(2970, 'txid_snapshot', -1, 0, 'b', 'U', 0, ',', 0, 2949, 'd', 'x', 0, 'txid_snapshot_in', 'txid_snapshot_out', 'txid_snapshot_recv', 'txid_snapshot_send', '-'),
(3115, 'fdw_handler', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'fdw_handler_in', 'fdw_handler_out', '-', '-', '-'),
(3220, 'pg_lsn', 8, 1, 'b', 'U', 0, ',', 0, 3221, 'd', 'p', 0, 'pg_lsn_in', 'pg_lsn_out', 'pg_lsn_recv', 'pg_lsn_send', '-'),
(3221, '_pg_lsn', -1, 0, 'b', 'A', 0, ',', 3220, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3310, 'tsm_handler', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'tsm_handler_in', 'tsm_handler_out', '-', '-', '-'),
(3500, 'anyenum', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'anyenum_in', 'anyenum_out', '-', '-', '-'),
(3614, 'tsvector', -1, 0, 'b', 'U', 0, ',', 0, 3643, 'i', 'x', 0, 'tsvectorin', 'tsvectorout', 'tsvectorrecv', 'tsvectorsend', '-'),
(3615, 'tsquery', -1, 0, 'b', 'U', 0, ',', 0, 3645, 'i', 'p', 0, 'tsqueryin', 'tsqueryout', 'tsqueryrecv', 'tsquerysend', '-'),
(3642, 'gtsvector', -1, 0, 'b', 'U', 0, ',', 0, 3644, 'i', 'p', 0, 'gtsvectorin', 'gtsvectorout', '-', '-', '-'),
(3643, '_tsvector', -1, 0, 'b', 'A', 0, ',', 3614, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3644, '_gtsvector', -1, 0, 'b', 'A', 0, ',', 3642, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3645, '_tsquery', -1, 0, 'b', 'A', 0, ',', 3615, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3734, 'regconfig', 4, 1, 'b', 'N', 0, ',', 0, 3735, 'i', 'p', 0, 'regconfigin', 'regconfigout', 'regconfigrecv', 'regconfigsend', '-'),
(3735, '_regconfig', -1, 0, 'b', 'A', 0, ',', 3734, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3769, 'regdictionary', 4, 1, 'b', 'N', 0, ',', 0, 3770, 'i', 'p', 0, 'regdictionaryin', 'regdictionaryout', 'regdictionaryrecv', 'regdictionarysend', '-'),
(3770, '_regdictionary', -1, 0, 'b', 'A', 0, ',', 3769, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3802, 'jsonb', -1, 0, 'b', 'U', 0, ',', 0, 3807, 'i', 'x', 0, 'jsonb_in', 'jsonb_out', 'jsonb_recv', 'jsonb_send', '-'),
(3807, '_jsonb', -1, 0, 'b', 'A', 0, ',', 3802, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3831, 'anyrange', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anyrange_in', 'anyrange_out', '-', '-', '-'),
(3838, 'event_trigger', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'event_trigger_in', 'event_trigger_out', '-', '-', '-'),
(3904, 'int4range', -1, 0, 'r', 'R', 0, ',', 0, 3905, 'i', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3905, '_int4range', -1, 0, 'b', 'A', 0, ',', 3904, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3906, 'numrange', -1, 0, 'r', 'R', 0, ',', 0, 3907, 'i', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3907, '_numrange', -1, 0, 'b', 'A', 0, ',', 3906, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3908, 'tsrange', -1, 0, 'r', 'R', 0, ',', 0, 3909, 'd', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3909, '_tsrange', -1, 0, 'b', 'A', 0, ',', 3908, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3910, 'tstzrange', -1, 0, 'r', 'R', 0, ',', 0, 3911, 'd', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3911, '_tstzrange', -1, 0, 'b', 'A', 0, ',', 3910, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3912, 'daterange', -1, 0, 'r', 'R', 0, ',', 0, 3913, 'i', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3913, '_daterange', -1, 0, 'b', 'A', 0, ',', 3912, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(3926, 'int8range', -1, 0, 'r', 'R', 0, ',', 0, 3927, 'd', 'x', 0, 'range_in', 'range_out', 'range_recv', 'range_send', '-'),
(3927, '_int8range', -1, 0, 'b', 'A', 0, ',', 3926, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(4072, 'jsonpath', -1, 0, 'b', 'U', 0, ',', 0, 4073, 'i', 'x', 0, 'jsonpath_in', 'jsonpath_out', 'jsonpath_recv', 'jsonpath_send', '-'),
(4073, '_jsonpath', -1, 0, 'b', 'A', 0, ',', 4072, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(4089, 'regnamespace', 4, 1, 'b', 'N', 0, ',', 0, 4090, 'i', 'p', 0, 'regnamespacein', 'regnamespaceout', 'regnamespacerecv', 'regnamespacesend', '-'),
(4090, '_regnamespace', -1, 0, 'b', 'A', 0, ',', 4089, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(4096, 'regrole', 4, 1, 'b', 'N', 0, ',', 0, 4097, 'i', 'p', 0, 'regrolein', 'regroleout', 'regrolerecv', 'regrolesend', '-'),
(4097, '_regrole', -1, 0, 'b', 'A', 0, ',', 4096, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(4191, 'regcollation', 4, 1, 'b', 'N', 0, ',', 0, 4192, 'i', 'p', 0, 'regcollationin', 'regcollationout', 'regcollationrecv', 'regcollationsend', '-'),
(4192, '_regcollation', -1, 0, 'b', 'A', 0, ',', 4191, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(4451, 'int4multirange', -1, 0, 'm', 'R', 0, ',', 0, 6150, 'i', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4532, 'nummultirange', -1, 0, 'm', 'R', 0, ',', 0, 6151, 'i', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4533, 'tsmultirange', -1, 0, 'm', 'R', 0, ',', 0, 6152, 'd', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4534, 'tstzmultirange', -1, 0, 'm', 'R', 0, ',', 0, 6153, 'd', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4535, 'datemultirange', -1, 0, 'm', 'R', 0, ',', 0, 6155, 'i', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4536, 'int8multirange', -1, 0, 'm', 'R', 0, ',', 0, 6157, 'd', 'x', 0, 'multirange_in', 'multirange_out', 'multirange_recv', 'multirange_send', '-'),
(4537, 'anymultirange', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anymultirange_in', 'anymultirange_out', '-', '-', '-'),
(4538, 'anycompatiblemultirange', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anycompatiblemultirange_in', 'anycompatiblemultirange_out', '-', '-', '-'),
(5038, 'pg_snapshot', -1, 0, 'b', 'U', 0, ',', 0, 5039, 'd', 'x', 0, 'pg_snapshot_in', 'pg_snapshot_out', 'pg_snapshot_recv', 'pg_snapshot_send', '-'),
(5039, '_pg_snapshot', -1, 0, 'b', 'A', 0, ',', 5038, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(5069, 'xid8', 8, 1, 'b', 'U', 0, ',', 0, 271, 'd', 'p', 0, 'xid8in', 'xid8out', 'xid8recv', 'xid8send', '-'),
(5077, 'anycompatible', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'anycompatible_in', 'anycompatible_out', '-', '-', '-'),
(5078, 'anycompatiblearray', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anycompatiblearray_in', 'anycompatiblearray_out', 'anycompatiblearray_recv', 'anycompatiblearray_send', '-'),
(5079, 'anycompatiblenonarray', 4, 1, 'p', 'P', 0, ',', 0, 0, 'i', 'p', 0, 'anycompatiblenonarray_in', 'anycompatiblenonarray_out', '-', '-', '-'),
(5080, 'anycompatiblerange', -1, 0, 'p', 'P', 0, ',', 0, 0, 'd', 'x', 0, 'anycompatiblerange_in', 'anycompatiblerange_out', '-', '-', '-'),
(6150, '_int4multirange', -1, 0, 'b', 'A', 0, ',', 4451, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(6151, '_nummultirange', -1, 0, 'b', 'A', 0, ',', 4532, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(6152, '_tsmultirange', -1, 0, 'b', 'A', 0, ',', 4533, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(6153, '_tstzmultirange', -1, 0, 'b', 'A', 0, ',', 4534, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(6155, '_datemultirange', -1, 0, 'b', 'A', 0, ',', 4535, 0, 'i', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-'),
(6157, '_int8multirange', -1, 0, 'b', 'A', 0, ',', 4536, 0, 'd', 'x', 0, 'array_in', 'array_out', 'array_recv', 'array_send', '-');

INSERT INTO pg_catalog.pg_class (oid, relname, relnamespace, relkind) VALUES
(826, 'pg_default_acl', 11, 'r'),
(1213, 'pg_tablespace', 11, 'r'),
(1214, 'pg_shdepend', 11, 'r'),
(1247, 'pg_type', 11, 'r'),
(1249, 'pg_attribute', 11, 'r'),
(1255, 'pg_proc', 11, 'r'),
(1259, 'pg_class', 11, 'r'),
(1260, 'pg_authid', 11, 'r'),
(1261, 'pg_auth_members', 11, 'r'),
(1262, 'pg_database', 11, 'r'),
(1417, 'pg_foreign_server', 11, 'r'),
(1418, 'pg_user_mapping', 11, 'r'),
(2224, 'pg_sequence', 11, 'r'),
(2328, 'pg_foreign_data_wrapper', 11, 'r'),
(2396, 'pg_shdescription', 11, 'r'),
(2600, 'pg_aggregate', 11, 'r'),
(2601, 'pg_am', 11, 'r'),
(2602, 'pg_amop', 11, 'r'),
(2603, 'pg_amproc', 11, 'r'),
(2604, 'pg_attrdef', 11, 'r'),
(2605, 'pg_cast', 11, 'r'),
(2606, 'pg_constraint', 11, 'r'),
(2607, 'pg_conversion', 11, 'r'),
(2608, 'pg_depend', 11, 'r'),
(2609, 'pg_description', 11, 'r'),
(2610, 'pg_index', 11, 'r'),
(2611, 'pg_inherits', 11, 'r'),
(2612, 'pg_language', 11, 'r'),
(2613, 'pg_largeobject', 11, 'r'),
(2615, 'pg_namespace', 11, 'r'),
(2616, 'pg_opclass', 11, 'r'),
(2617, 'pg_operator', 11, 'r'),
(2618, 'pg_rewrite', 11, 'r'),
(2619, 'pg_statistic', 11, 'r'),
(2620, 'pg_trigger', 11, 'r'),
(2753, 'pg_opfamily', 11, 'r'),
(2964, 'pg_db_role_setting', 11, 'r'),
(2995, 'pg_largeobject_metadata', 11, 'r'),
(3079, 'pg_extension', 11, 'r'),
(3118, 'pg_foreign_table', 11, 'r'),
(3256, 'pg_policy', 11, 'r'),
(3350, 'pg_partitioned_table', 11, 'r'),
(3381, 'pg_statistic_ext', 11, 'r'),
(3394, 'pg_init_privs', 11, 'r'),
(3429, 'pg_statistic_ext_data', 11, 'r'),
(3456, 'pg_collation', 11, 'r'),
(3466, 'pg_event_trigger', 11, 'r'),
(3501, 'pg_enum', 11, 'r'),
(3541, 'pg_range', 11, 'r'),
(3576, 'pg_transform', 11, 'r'),
(3592, 'pg_shseclabel', 11, 'r'),
(3596, 'pg_seclabel', 11, 'r'),
(3600, 'pg_ts_dict', 11, 'r'),
(3601, 'pg_ts_parser', 11, 'r'),
(3602, 'pg_ts_config', 11, 'r'),
(3603, 'pg_ts_config_map', 11, 'r'),
(3764, 'pg_ts_template', 11, 'r'),
(6000, 'pg_replication_origin', 11, 'r'),
(6100, 'pg_subscription', 11, 'r'),
(6102, 'pg_subscription_rel', 11, 'r'),
(6104, 'pg_publication', 11, 'r'),
(6106, 'pg_publication_rel', 11, 'r'),
(6237, 'pg_publication_namespace', 11, 'r'),
(6243, 'pg_parameter_acl', 11, 'r');

INSERT INTO pg_catalog.pg_range (rngtypid, rngsubtype, rngmultitypid, rngcollation, rngsubopc) VALUES
(3904, 23, 4451, 0, 1978),
(3906, 1700, 4532, 0, 3125),
(3908, 1114, 4533, 0, 3128),
(3910, 1184, 4534, 0, 3127),
(3912, 1082, 4535, 0, 3122),
(3926, 20, 4536, 0, 3124);

UPDATE pg_catalog.pg_type SET
    typnamespace = 11, typowner = 10, typisdefined = 1, typnotnull = 0, typbasetype = 0,
    typtypmod = -1, typndims = 0, typrelid = 0, typmodout = '-', typanalyze = '-',
    typsubscript = CASE typcategory WHEN 'A' THEN 'array_subscript_handler' ELSE '-' END;

INSERT INTO pg_catalog.pg_namespace (oid, nspname, nspowner) VALUES
(99, 'pg_toast', 10), (11, 'pg_catalog', 10), (2200, 'public', 10),
(13207, 'information_schema', 10);

INSERT INTO pg_catalog.pg_am (oid, amname, amhandler, amtype) VALUES
(2, 'heap', 'heap_tableam_handler', 't'), (403, 'btree', 'bthandler', 'i');

INSERT INTO pg_catalog.pg_authid (
    oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
    rolbypassrls, rolconnlimit
) VALUES (10, 'rota', 1, 1, 1, 1, 1, 0, 1, -1);

INSERT INTO pg_catalog.pg_tablespace (oid, spcname, spcowner) VALUES
(1663, 'pg_default', 10), (1664, 'pg_global', 10);

INSERT INTO pg_catalog.pg_database (
    oid, datname, datdba, encoding, datlocprovider, datistemplate, datallowconn, datconnlimit,
    datfrozenxid, datminmxid, dattablespace, datcollate, datctype
) VALUES (5, 'rota', 10, 6, 'c', 0, 1, -1, 0, 0, 1663, 'C', 'C');

INSERT INTO pg_catalog.pg_collation (
    oid, collname, collnamespace, collowner, collprovider, collisdeterministic, collencoding,
    collcollate, collctype
) VALUES
(100, 'default', 11, 10, 'd', 1, -1, NULL, NULL), (950, 'C', 11, 10, 'c', 1, -1, 'C', 'C'),
(951, 'POSIX', 11, 10, 'c', 1, -1, 'POSIX', 'POSIX');

INSERT INTO pg_catalog.pg_language (oid, lanname, lanowner, lanispl, lanpltrusted) VALUES
(12, 'internal', 10, 0, 0), (13, 'c', 10, 0, 0), (14, 'sql', 10, 0, 1);

INSERT INTO pg_catalog.pg_opclass (oid, opcmethod, opcname, opcnamespace, opcowner, opcfamily,
    opcintype, opcdefault, opckeytype) VALUES
(1978, 403, 'int4_ops', 11, 10, 1976, 23, 1, 0), (3126, 403, 'text_ops', 11, 10, 1994, 25, 1, 0);

INSERT INTO pg_catalog.pg_stat_activity (
    datid, datname, pid, usesysid, usename, application_name, state, backend_type
) VALUES (5, 'rota', pg_backend_pid(), 10, 'rota', '', 'active', 'client backend');

INSERT INTO pg_catalog.pg_timezone_names (name, abbrev, utc_offset, is_dst) VALUES
('UTC', 'UTC', '00:00:00', 0), ('Etc/UTC', 'UTC', '00:00:00', 0), ('GMT', 'GMT', '00:00:00', 0);

INSERT INTO pg_catalog.pg_description (objoid, classoid, objsubid, description) VALUES
(11, 2615, 0, 'system catalog schema'), (2200, 2615, 0, 'standard public schema');

INSERT INTO pg_catalog.pg_settings (name, setting, category, short_desc, context, vartype, source)
VALUES
('DateStyle', 'ISO, MDY', '', '', 'user', 'string', 'default'),
('TimeZone', 'UTC', '', '', 'user', 'string', 'default'),
('application_name', '', '', '', 'user', 'string', 'default'),
('bytea_output', 'hex', '', '', 'user', 'enum', 'default'),
('client_encoding', 'UTF8', '', '', 'user', 'string', 'default'),
('default_transaction_isolation', 'serializable', '', '', 'user', 'enum', 'default'),
('integer_datetimes', 'on', '', '', 'internal', 'bool', 'default'),
('lc_collate', 'C', '', '', 'internal', 'string', 'default'),
('lc_ctype', 'C', '', '', 'internal', 'string', 'default'),
('max_identifier_length', '63', '', '', 'internal', 'integer', 'default'),
('max_index_keys', '32', '', '', 'internal', 'integer', 'default'),
('search_path', '"$user", public', '', '', 'user', 'string', 'default'),
('server_encoding', 'UTF8', '', '', 'internal', 'string', 'default'),
('server_version', '16.0', '', '', 'internal', 'string', 'default'),
('server_version_num', '160000', '', '', 'internal', 'integer', 'default'),
('standard_conforming_strings', 'on', '', '', 'user', 'bool', 'default'),
('statement_timeout', '0', '', '', 'user', 'integer', 'default');

INSERT INTO information_schema.schemata (catalog_name, schema_name, schema_owner) VALUES
('rota', 'public', 'rota'), ('rota', 'pg_catalog', 'rota'), ('rota', 'information_schema', 'rota');

INSERT INTO information_schema.information_schema_catalog_name VALUES ('rota');

INSERT INTO information_schema.enabled_roles VALUES ('rota');

INSERT INTO information_schema.character_sets (
    character_set_name, character_repertoire, form_of_use, default_collate_catalog
) VALUES ('UTF8', 'UCS', 'UTF8', 'rota');
