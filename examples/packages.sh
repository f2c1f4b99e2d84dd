#!/bin/sh
# Loads a real data set through server 1 and asks server 4 about it: the package index of a Debian system, some ten
# thousands of packages with names, versions, sections, sizes and descriptions as people wrote them.
#
#   rota dev                      in one terminal
#   examples/packages.sh          in another
#
# Other addresses: examples/packages.sh WRITE_URL READ_URL. Where apt is missing, the installed time zones' table is
# loaded instead (it comes with the package tzdata). Needs psql and awk.
set -eu

write=${1:-postgres://rota@127.0.0.1:5441/rota}
read=${2:-postgres://rota@127.0.0.1:5444/rota}
rows_per_insert=500
zones=/usr/share/zoneinfo/tzdata.zi

fail() {
    echo "packages.sh: $*" >&2
    exit 1
}

command -v psql >/dev/null || fail "psql is missing; install the package postgresql-client"
run() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }
run "$write" --command 'SELECT 1' >/dev/null ||
    fail "no server at $write; start the cluster with \`rota dev\`"

# From "Field: value" paragraphs to INSERTs of many rows. A quote in a text is doubled, as SQL wants it; with standard
# strings nothing else is special. Packages of several architectures or versions come several times, so the key is not
# the name alone.
inserts_of_packages() {
    awk -v batch="$rows_per_insert" '
        function text(value) { gsub(/\047/, "\047\047", value); return "\047" value "\047" }
        function number(value) { return value ~ /^[0-9]+$/ ? value : "NULL" }
        function row() {
            if (name == "") return
            values = "(" text(name) "," text(version) "," text(architecture) "," text(section) "," \
                number(size) "," text(description) ")"
            printf "%s%s", (rows % batch == 0 ? "INSERT INTO packages " \
                "(name, version, architecture, section, size, description) VALUES\n" : ",\n"), values
            rows++
            if (rows % batch == 0) { printf " ON CONFLICT DO NOTHING;\n"; report() }
            name = version = architecture = section = size = description = ""
        }
        function report() {
            if (rows % 5000 == 0) printf "  %d packages\n", rows > "/dev/stderr"
        }
        /^Package: /      { row(); name = substr($0, 10) }
        /^Version: /      { version = substr($0, 10) }
        /^Architecture: / { architecture = substr($0, 15) }
        /^Section: /      { section = substr($0, 10) }
        /^Size: /         { size = substr($0, 7) }
        /^Description(-en)?: / { sub(/^[^:]*: /, ""); description = $0 }
        END {
            row()
            if (rows % batch != 0) printf " ON CONFLICT DO NOTHING;\n"
            printf "  %d packages in all\n", rows > "/dev/stderr"
        }'
}

load_packages() {
    run "$write" <<'SQL'
DROP TABLE IF EXISTS packages;
CREATE TABLE packages (
    name TEXT NOT NULL, version TEXT NOT NULL, architecture TEXT NOT NULL,
    section TEXT NOT NULL, size BIGINT, description TEXT NOT NULL,
    PRIMARY KEY (name, version, architecture)
);
CREATE INDEX packages_by_section ON packages (section);
SQL
    # Package descriptions are UTF-8, whatever the locale says.
    LC_ALL=C.UTF-8 apt-cache dumpavail | LC_ALL=C inserts_of_packages |
        PGCLIENTENCODING=UTF8 run "$write"
}

ask_packages() {
    run "$read" <<'SQL'
\echo 'How many packages, and how large together?'
SELECT count(*) AS packages, count(DISTINCT name) AS names, sum(size) / 1000000000 AS gigabytes FROM packages;
\echo 'The largest sections:'
SELECT section, count(*) AS packages, sum(size) / 1000000 AS megabytes
FROM packages GROUP BY section ORDER BY packages DESC LIMIT 8;
\echo 'The largest packages:'
SELECT name, size / 1000000 AS megabytes, description FROM packages ORDER BY size DESC, name LIMIT 5;
\echo 'Descriptions with a quote in them:'
SELECT name, description FROM packages WHERE description LIKE '%''%' ORDER BY name LIMIT 5;
\echo 'What has to do with SQL?'
SELECT name, description FROM packages WHERE description LIKE '%SQLite%' ORDER BY length(name), name LIMIT 8;
SQL
}

# Lines "Z name offset rule format", and "L target name" for the other names of a zone.
load_zones() {
    run "$write" <<'SQL'
DROP TABLE IF EXISTS zones;
CREATE TABLE zones (name TEXT PRIMARY KEY, also TEXT, first_offset TEXT);
SQL
    LC_ALL=C awk -v batch="$rows_per_insert" '
        function text(value) { gsub(/\047/, "\047\047", value); return "\047" value "\047" }
        function row(values) {
            printf "%s(%s)", (rows % batch == 0 ? \
                "INSERT INTO zones (name, also, first_offset) VALUES\n" : ",\n"), values
            if (++rows % batch == 0) printf " ON CONFLICT DO NOTHING;\n"
        }
        $1 == "Z" { row(text($2) ",NULL," text($3)) }
        $1 == "L" { row(text($3) "," text($2) ",NULL") }
        END {
            if (rows % batch != 0) printf " ON CONFLICT DO NOTHING;\n"
            printf "  %d time zones\n", rows > "/dev/stderr"
        }' "$zones" | run "$write"
}

ask_zones() {
    run "$read" <<'SQL'
\echo 'How many time zones, and how many are only another name?'
SELECT count(*) AS names, count(also) AS other_names FROM zones;
\echo 'The zones with the most names:'
SELECT also AS zone, count(*) AS other_names FROM zones
WHERE also IS NOT NULL GROUP BY also ORDER BY other_names DESC, also LIMIT 5;
\echo 'Offsets in 19th-century local time that are not a multiple of a minute:'
SELECT name, first_offset FROM zones WHERE first_offset LIKE '%:%:%' ORDER BY name LIMIT 5;
SQL
}

# The last write's position, so that reading elsewhere waits for it: server 4 has everything once its height is there.
wait_for_readers() {
    expected=$(run "$write" --tuples-only --no-align --command "SELECT count(*) FROM $1")
    tries=100
    while [ "$(run "$read" --tuples-only --no-align --command "SELECT count(*) FROM $1" 2>/dev/null)" != "$expected" ]
    do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "$read does not show the $expected rows of $1 that $write has"
        sleep 0.1
    done
    echo "$expected rows through $write; asking $read:" >&2
}

if command -v apt-cache >/dev/null && [ "$(apt-cache dumpavail 2>/dev/null | grep -c '^Package: ')" -gt 0 ]
then
    echo "loading the package index of this system" >&2
    load_packages
    wait_for_readers packages
    ask_packages
elif [ -r "$zones" ]
then
    echo "no package index here (apt-cache is missing or empty; \`apt-get update\` fills it): loading the time zones" >&2
    load_zones
    wait_for_readers zones
    ask_zones
else
    fail "neither apt-cache's package index nor $zones is here; install apt or tzdata"
fi
