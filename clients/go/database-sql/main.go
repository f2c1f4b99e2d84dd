// Go's database/sql on pgx: the same steps as every program here.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"rota-clients/steps"
)

const create = `
	CREATE TABLE gosql_item (
		id BIGSERIAL PRIMARY KEY,
		name TEXT NOT NULL UNIQUE,
		big BIGINT, fine BOOLEAN, price NUMERIC(10, 2), ratio DOUBLE PRECISION,
		seen TIMESTAMPTZ, day DATE, ref UUID, doc JSONB, raw BYTEA,
		note TEXT
	)`
const insertItem = `
	INSERT INTO gosql_item (name, big, fine, price, ratio, seen, day, ref, doc, raw)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id`
const insertName = "INSERT INTO gosql_item (name) VALUES ($1)"
const countNames = "SELECT count(*) FROM gosql_item WHERE name LIKE $1"

// One value of every type. What comes back must be equal to it.
const (
	name        = "première"
	big   int64 = 9_007_199_254_740_993 // one more than a double can tell apart
	price       = "12345.60"
	ratio       = 0.1
	ref         = "01234567-89ab-cdef-0123-456789abcdef"
	doc         = `{"a":[1,2.5,null]}`
	raw         = "\x00\x01\xff"
)

var (
	ctx  = context.Background()
	db   *sql.DB
	seen = time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)
	day  = time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect[T comparable](got, wanted T) { must(steps.Expect(got, wanted)) }

func sqlstate(err error) string {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	return ""
}

type queryer interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}

func number(on queryer, query string, arguments ...any) (number int64) {
	must(on.QueryRowContext(ctx, query, arguments...).Scan(&number))
	return number
}

func execute(on queryer, query string, arguments ...any) int64 {
	result, err := on.ExecContext(ctx, query, arguments...)
	must(err)
	count, err := result.RowsAffected()
	must(err)
	return count
}

// refused wants this SQLSTATE, and the same connection to be usable afterwards.
func refused(code string, run func(*sql.Conn) error) error {
	connection, err := db.Conn(ctx)
	must(err)
	defer connection.Close()
	if err := run(connection); sqlstate(err) != code {
		return fmt.Errorf("no %s but %v", code, err)
	}
	return steps.Expect(number(connection, "SELECT 1"), 1)
}

// transaction commits unless the function fails.
func transaction(run func(*sql.Tx) error) error {
	options := &sql.TxOptions{Isolation: sql.LevelSerializable}
	transaction, err := db.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer transaction.Rollback()
	if err := run(transaction); err != nil {
		return err
	}
	return transaction.Commit()
}

func connect() (err error) {
	if db, err = sql.Open("pgx", steps.URLs()[0]); err != nil {
		return err
	}
	var text string
	if err = db.QueryRow("SELECT 'ö'").Scan(&text); err != nil {
		return err
	}
	return steps.Expect(text, "ö")
}

func version() error {
	var version string
	must(db.QueryRow("SHOW server_version").Scan(&version))
	var major int
	if _, err := fmt.Sscanf(version, "%d", &major); err != nil || major < 13 {
		return fmt.Errorf("version %q", version)
	}
	return nil
}

func schema() error {
	execute(db, "DROP TABLE IF EXISTS gosql_item")
	execute(db, "DROP TABLE IF EXISTS gosql_account")
	execute(db, create)
	execute(db, "CREATE TABLE gosql_account (id SERIAL PRIMARY KEY, balance BIGINT NOT NULL)")
	return nil
}

func insert() error {
	first := number(db, insertItem, name, big, true, price, ratio, seen, day, ref, doc, []byte(raw))
	second := number(db, insertName+" RETURNING id", "second")
	return steps.Expect(second > first && first > 0, true)
}

func batch() error {
	// There are no batches: a prepared statement is executed often, in one transaction.
	must(transaction(func(transaction *sql.Tx) error {
		statement, err := transaction.Prepare(insertName)
		must(err)
		defer statement.Close()
		for i := range 100 {
			_, err := statement.Exec(fmt.Sprintf("batch %d", i))
			must(err)
		}
		return nil
	}))
	return steps.Expect(number(db, countNames, "batch %"), 100)
}

func types() error {
	var gotBig int64
	var gotFine bool
	var gotPrice, gotRef string
	var gotRatio float64
	var gotSeen, gotDay time.Time
	var gotDoc, gotRaw []byte
	var parsed, wanted any
	query := "SELECT big, fine, price, ratio, seen, day, ref, doc, raw FROM gosql_item WHERE name = $1"
	must(db.QueryRow(query, name).Scan(&gotBig, &gotFine, &gotPrice, &gotRatio, &gotSeen, &gotDay,
		&gotRef, &gotDoc, &gotRaw))
	expect(gotBig, big)
	expect(gotFine, true)
	expect(gotPrice, price)
	expect(gotRatio, ratio)
	expect(gotSeen.UTC(), seen)
	expect(gotDay, day)
	expect(gotRef, ref)
	must(errors.Join(json.Unmarshal(gotDoc, &parsed), json.Unmarshal([]byte(doc), &wanted)))
	expect(fmt.Sprint(parsed), fmt.Sprint(wanted))
	expect(string(gotRaw), raw)
	for column, value := range map[string]any{
		"big": big, "price": price, "seen": seen, "day": day, "ref": ref,
	} {
		query := fmt.Sprintf("SELECT count(*) FROM gosql_item WHERE %s = $1", column)
		expect(number(db, query, value), 1)
	}
	return nil
}

func nulls() error {
	var big sql.Null[int64]
	var seen sql.NullTime
	var note sql.NullString
	query := "SELECT big, seen, note FROM gosql_item WHERE name = 'second'"
	must(db.QueryRow(query).Scan(&big, &seen, &note))
	expect(big.Valid || seen.Valid || note.Valid, false)
	update := "UPDATE gosql_item SET big = $1, note = $2 WHERE name = 'second'"
	return steps.Expect(execute(db, update, big, nil), 1)
}

func rowCounts() error {
	expect(execute(db, "UPDATE gosql_item SET note = 'x' WHERE name LIKE $1", "batch %"), 100)
	return steps.Expect(execute(db, "DELETE FROM gosql_item WHERE name = 'batch 99'"), 1)
}

func unique() error {
	return refused("23505", func(connection *sql.Conn) error {
		_, err := connection.ExecContext(ctx, insertName, "second")
		return err
	})
}

func commit() error {
	must(transaction(func(transaction *sql.Tx) error {
		execute(transaction, insertName, "committed")
		return steps.Expect(number(transaction, countNames, "committed"), 1)
	}))
	return steps.Expect(number(db, countNames, "committed"), 1)
}

func rollback() error {
	leave := errors.New("leaves the transaction")
	err := transaction(func(transaction *sql.Tx) error {
		execute(transaction, insertName, "rolled back")
		return leave
	})
	expect(errors.Is(err, leave), true)
	return steps.Expect(number(db, countNames, "rolled back"), 0)
}

func savepoint() error {
	// There are none in database/sql; they are SQL.
	must(transaction(func(transaction *sql.Tx) error {
		execute(transaction, insertName, "before the savepoint")
		execute(transaction, "SAVEPOINT halfway")
		execute(transaction, insertName, "after the savepoint")
		_, err := transaction.Exec(insertName, "second")
		expect(sqlstate(err), "23505")
		execute(transaction, "ROLLBACK TO SAVEPOINT halfway")
		return nil
	}))
	return steps.Expect(number(db, countNames, "%savepoint"), 1)
}

func ddl() error {
	leave := errors.New("leaves the transaction")
	err := transaction(func(transaction *sql.Tx) error {
		execute(transaction, "CREATE TABLE gosql_gone (id INT)")
		execute(transaction, "INSERT INTO gosql_gone VALUES ($1)", 1)
		return leave
	})
	expect(errors.Is(err, leave), true)
	return refused("42P01", func(connection *sql.Conn) error {
		_, err := connection.ExecContext(ctx, "SELECT * FROM gosql_gone")
		return err
	})
}

// add reads both balances and writes both.
func add(amount int64, between func()) error {
	return transaction(func(transaction *sql.Tx) error {
		rows, err := transaction.Query("SELECT balance FROM gosql_account ORDER BY id")
		if err != nil {
			return err
		}
		defer rows.Close()
		var balances []int64
		for rows.Next() {
			var balance int64
			must(rows.Scan(&balance))
			balances = append(balances, balance)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		between()
		for i, balance := range balances {
			update := "UPDATE gosql_account SET balance = $1 WHERE id = $2"
			if _, err := transaction.Exec(update, balance+amount, i+1); err != nil {
				return err
			}
		}
		return nil
	})
}

func conflict() error {
	execute(db, "INSERT INTO gosql_account (balance) VALUES (100), (200)")
	conflicts := 0
	interfere := func() {
		if conflicts == 0 {
			must(add(10, func() {}))
		}
	}
	for {
		err := add(5, interfere)
		if err == nil {
			break
		}
		if conflicts++; sqlstate(err) != "40001" || conflicts == 10 {
			return err
		}
	}
	if conflicts == 0 {
		return errors.New("the balances were read, changed by another and written: no 40001")
	}
	expect(number(db, "SELECT balance FROM gosql_account WHERE id = 1"), 115)
	return steps.Expect(number(db, "SELECT balance FROM gosql_account WHERE id = 2"), 215)
}

func large() error {
	rows, err := db.Query(steps.CountTo + "SELECT i, 'row ' || i FROM n")
	must(err)
	defer rows.Close()
	var i, total int64
	var name string
	for rows.Next() {
		must(rows.Scan(&i, &name))
		expect(name, fmt.Sprintf("row %d", i))
		total += i
	}
	must(rows.Err())
	return steps.Expect(total, steps.Large*(steps.Large+1)/2)
}

func prepared() error {
	statement, err := db.Prepare("SELECT name || note FROM gosql_item WHERE name = $1")
	must(err)
	defer statement.Close()
	for i := range 20 {
		var got string
		wanted := fmt.Sprintf("batch %d", i)
		must(statement.QueryRow(wanted).Scan(&got))
		expect(got, wanted+"x")
	}
	return nil
}

func cancel() error {
	// A context that ends sends a cancel request; a time-out of the server's own says 57014.
	limited, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	var count int64
	err := db.QueryRowContext(limited, steps.CountForEver).Scan(&count)
	expect(errors.Is(err, context.DeadlineExceeded) || sqlstate(err) == "57014", true)
	return refused("57014", func(connection *sql.Conn) error {
		execute(connection, "SET statement_timeout = 500")
		_, err := connection.ExecContext(ctx, steps.CountForEver)
		execute(connection, "RESET statement_timeout")
		return err
	})
}

func listen() error {
	run := func(connection *sql.Conn) error {
		_, err := connection.ExecContext(ctx, "LISTEN rota")
		return err
	}
	if !steps.IsPostgreSQL {
		return refused("0A000", run)
	}
	connection, err := db.Conn(ctx)
	must(err)
	defer connection.Close()
	return run(connection)
}

func copyRows() error {
	// database/sql has none; the driver's own connection beneath it has.
	connection, err := db.Conn(ctx)
	must(err)
	defer connection.Close()
	must(connection.Raw(func(driver any) error {
		rows := pgx.CopyFromSlice(1000, func(i int) ([]any, error) {
			return []any{fmt.Sprintf("copy %d", i), int64(i)}, nil
		})
		table, columns := pgx.Identifier{"gosql_item"}, []string{"name", "big"}
		_, err := driver.(*stdlib.Conn).Conn().CopyFrom(ctx, table, columns, rows)
		return err
	}))
	return steps.Expect(number(db, countNames, "copy %"), 1000)
}

func anotherServer() (err error) {
	must(db.Close())
	urls := steps.URLs()
	if db, err = sql.Open("pgx", urls[len(urls)-1]); err != nil {
		return err
	}
	defer db.Close()
	for range 100 {
		if number(db, countNames, "batch %") == 99 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the rows are not there")
}

func main() {
	steps.Run([]steps.Step{
		{Name: "connect", Run: connect},
		{Name: "version", Run: version},
		{Name: "schema", Run: schema},
		{Name: "insert", Run: insert},
		{Name: "batch", Run: batch},
		{Name: "types", Run: types},
		{Name: "nulls", Run: nulls},
		{Name: "row counts", Run: rowCounts},
		{Name: "unique violation", Run: unique},
		{Name: "commit", Run: commit},
		{Name: "rollback", Run: rollback},
		{Name: "savepoint", Run: savepoint},
		{Name: "DDL rolled back", Run: ddl},
		{Name: "conflict", Run: conflict},
		{Name: "large result", Run: large},
		{Name: "prepared", Run: prepared},
		{Name: "cancel", Run: cancel},
		{Name: "LISTEN", Run: listen},
		{Name: "COPY", Run: copyRows},
		{Name: "another server", Run: anotherServer},
	})
}
