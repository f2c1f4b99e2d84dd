// gorqlite: what its README shows, and then a login, a transaction and errors.
package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rqlite/gorqlite"

	"rota-clients/steps"
)

var conn *gorqlite.Connection

func main() {
	steps.Run([]steps.Step{
		{Name: "connect", Run: connect},
		{Name: "quick start", Run: quickStart},
		{Name: "types", Run: types},
		{Name: "row counts", Run: rowCounts},
		{Name: "transaction", Run: transaction},
		{Name: "queued writes", Run: queued},
		{Name: "levels", Run: levels},
		{Name: "unique violation", Run: unique},
		{Name: "leader and peers", Run: leaderAndPeers},
		{Name: "password over TLS", Run: password},
		{Name: "another server", Run: anotherServer},
	})
}

func connect() error {
	var err error
	if conn, err = gorqlite.Open(steps.HTTP()[0]); err != nil {
		return err
	}
	found, err := one(conn, "SELECT 'ö'")
	if err != nil {
		return err
	}
	return steps.Expect(found, "ö")
}

// one gives the first value of the first row, as text.
func one(conn *gorqlite.Connection, sql string, arguments ...interface{}) (string, error) {
	statement := gorqlite.ParameterizedStatement{Query: sql, Arguments: arguments}
	rows, err := conn.QueryOneParameterized(statement)
	if err != nil {
		return "", err
	}
	if !rows.Next() {
		return "", fmt.Errorf("no row: %s", sql)
	}
	values, err := rows.Slice()
	if err != nil {
		return "", err
	}
	return fmt.Sprint(values[0]), nil
}

// quickStart is the README's, with a table for its statements.
func quickStart() error {
	_, err := conn.Write([]string{
		"DROP TABLE IF EXISTS secret_agents",
		"CREATE TABLE secret_agents(id INTEGER PRIMARY KEY, hero_name TEXT, abbrev TEXT, name TEXT, secret TEXT)",
	})
	if err != nil {
		return err
	}
	statements := []string{
		"INSERT INTO secret_agents(id, hero_name, abbrev) VALUES (125718, 'Speed Gibson', 'Speed')",
		"INSERT INTO secret_agents(id, hero_name, abbrev) VALUES (209166, 'Clint Barlow', 'Clint')",
		"INSERT INTO secret_agents(id, hero_name, abbrev) VALUES (44107,  'Barney Dunlap', 'Barney')",
	}
	results, err := conn.Write(statements)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil || r.RowsAffected != 1 {
			return fmt.Errorf("%d rows affected: %w", r.RowsAffected, r.Err)
		}
	}
	wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "INSERT INTO secret_agents(id, name, secret) VALUES (?, ?, ?)",
		Arguments: []interface{}{7, "James Bond", "not-a-secret"},
	})
	if err != nil {
		return err
	}
	if err := steps.Expect(wr.LastInsertID, 7); err != nil {
		return err
	}
	qr, err := conn.QueryOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "SELECT id, name FROM secret_agents WHERE id > ? ORDER BY id",
		Arguments: []interface{}{3},
	})
	if err != nil {
		return err
	}
	if err := steps.Expect(qr.NumRows(), 4); err != nil {
		return err
	}
	var id int64
	var name gorqlite.NullString
	qr.Next()
	if err := qr.Scan(&id, &name); err != nil {
		return err
	}
	if id != 7 || name.String != "James Bond" {
		return fmt.Errorf("got %d, %q", id, name.String)
	}
	qr.Next()
	m, err := qr.Map()
	if err != nil {
		return err
	}
	if m["id"].(float64) != 44107 || m["name"] != nil {
		return fmt.Errorf("got %v", m)
	}
	both, err := conn.Request([]string{
		"INSERT INTO secret_agents(id, name) VALUES (8, 'Felix')",
		"SELECT COUNT(*) FROM secret_agents",
	})
	if err != nil {
		return err
	}
	if both[0].Write == nil || both[1].Query == nil {
		return fmt.Errorf("got %v", both)
	}
	return nil
}

func types() error {
	_, err := conn.Write([]string{
		"DROP TABLE IF EXISTS gorqlite_item",
		"CREATE TABLE gorqlite_item(name TEXT, big INTEGER, ratio REAL, seen TIMESTAMP, note TEXT)",
	})
	if err != nil {
		return err
	}
	seen := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	wr, err := conn.WriteOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "INSERT INTO gorqlite_item VALUES (?, ?, ?, ?, ?)",
		Arguments: []interface{}{"première", 123_456_789_012, 0.1, seen.Format(time.RFC3339), nil},
	})
	if err != nil {
		return fmt.Errorf("%w: %v", err, wr.Err)
	}
	rows, err := conn.QueryOne("SELECT * FROM gorqlite_item")
	if err != nil {
		return err
	}
	var name string
	var big int64
	var ratio float64
	var when gorqlite.NullTime
	var note gorqlite.NullString
	rows.Next()
	if err := rows.Scan(&name, &big, &ratio, &when, &note); err != nil {
		return err
	}
	if name != "première" || big != 123_456_789_012 || ratio != 0.1 || note.Valid {
		return fmt.Errorf("got %v, %v, %v, %v", name, big, ratio, note)
	}
	return steps.Expect(when.Time.UTC(), seen)
}

func rowCounts() error {
	wr, err := conn.WriteOne("UPDATE secret_agents SET secret = 'x' WHERE id < 100")
	if err != nil {
		return err
	}
	return steps.Expect(wr.RowsAffected, int64(2))
}

// transaction: all statements of a Write are one, unless that is switched off.
func transaction() error {
	_, err := conn.Write([]string{
		"INSERT INTO secret_agents(id, name) VALUES (9, 'gone')",
		"INSERT INTO secret_agents(id, name) VALUES (7, 'again')",
	})
	if err == nil {
		return fmt.Errorf("no error")
	}
	found, err := one(conn, "SELECT count(*) FROM secret_agents WHERE id = 9")
	if err != nil {
		return err
	}
	return steps.Expect(found, "0")
}

func queued() error {
	sequence, err := conn.QueueOne("INSERT INTO secret_agents(id, name) VALUES (1, 'Q')")
	if err != nil {
		return err
	}
	if sequence == 0 {
		return fmt.Errorf("no sequence number")
	}
	return steps.Eventually(func() (bool, error) {
		found, err := one(conn, "SELECT count(*) FROM secret_agents WHERE name = 'Q'")
		return found == "1", err
	})
}

func levels() error {
	// It asks for the level weak unless told otherwise.
	for _, level := range []string{"none", "weak", "linearizable", "strong"} {
		leveled, err := gorqlite.Open(steps.HTTP()[0] + "/?level=" + level)
		if err != nil {
			return err
		}
		if _, err := one(leveled, "SELECT name FROM secret_agents WHERE id = ?", 7); err != nil {
			return err
		}
	}
	return nil
}

func unique() error {
	wr, err := conn.WriteOne("INSERT INTO secret_agents(id) VALUES (7)")
	if err == nil || wr.Err == nil {
		return fmt.Errorf("no error")
	}
	return steps.Expect(wr.Err.Error(), "UNIQUE constraint failed: secret_agents.id")
}

func leaderAndPeers() error {
	leader, err := conn.Leader()
	if err != nil {
		return err
	}
	peers, err := conn.Peers()
	if err != nil {
		return err
	}
	if leader == "" || len(peers) != len(steps.HTTP()) {
		return fmt.Errorf("leader %q, peers %v", leader, peers)
	}
	return nil
}

func password() error {
	user, secret := steps.Login()
	settings, err := steps.TLS()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings}}
	address := func(secret string) string {
		server, _ := url.Parse(steps.HTTP()[0])
		server.Scheme, server.RawQuery = "https", "disableClusterDiscovery=true"
		server.User = url.UserPassword(user, secret)
		return server.String()
	}
	own, err := gorqlite.OpenWithClient(address(secret), client)
	if err != nil {
		return err
	}
	found, err := one(own, "SELECT name FROM secret_agents WHERE id = 7")
	if err != nil {
		return err
	}
	if err := steps.Expect(found, "James Bond"); err != nil {
		return err
	}
	wrong, err := gorqlite.OpenWithClient(address("wrong"), client)
	if err == nil {
		_, err = one(wrong, "SELECT 1")
	}
	if err == nil || !strings.Contains(err.Error(), "401") {
		return fmt.Errorf("a wrong password: %v", err)
	}
	return nil
}

func anotherServer() error {
	servers := steps.HTTP()
	other, err := gorqlite.Open(servers[len(servers)-1] + "/?disableClusterDiscovery=true&level=none")
	if err != nil {
		return err
	}
	return steps.Eventually(func() (bool, error) {
		found, err := one(other, "SELECT count(*) FROM secret_agents WHERE id = 7")
		return found == "1", err
	})
}
