// Package steps is what both Go programs share: the list of steps, and one line printed for each.
package steps

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"
)

// Large is how many rows the large result has.
const Large = 100_000

// CountTo begins a query whose table n counts from 1 to Large.
var CountTo = fmt.Sprintf(
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", Large)

// CountForEver is there to be cancelled.
const CountForEver = `WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL SELECT i + 1 FROM n
	WHERE i < 1000000000000) SELECT count(*) FROM n`

// IsPostgreSQL tells that the program is tried against PostgreSQL itself, which has LISTEN.
// Everything else is expected to be the same there.
var IsPostgreSQL = os.Getenv("ROTA_REFERENCE") == "postgresql"

// URLs are the servers: the first takes all the statements, the last is asked for the data, too.
func URLs() []string {
	if urls := os.Getenv("ROTA_URLS"); urls != "" {
		return strings.Split(urls, ",")
	}
	return []string{"postgresql://rota@127.0.0.1:5441/rota"}
}

// HTTP are the same servers' other doors.
func HTTP() []string {
	if urls := os.Getenv("ROTA_HTTP_URLS"); urls != "" {
		return strings.Split(urls, ",")
	}
	return []string{"http://127.0.0.1:4001"}
}

// Login is a user with a password, who may do everything with tables.
func Login() (user, password string) {
	return os.Getenv("CLIENT_USER"), os.Getenv("CLIENT_PASSWORD")
}

// TLS trusts the servers' certificates.
func TLS() (*tls.Config, error) {
	authority, err := os.ReadFile(os.Getenv("CLIENT_CA"))
	if err != nil {
		return nil, fmt.Errorf("CLIENT_CA: %w", err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: trusted}, nil
}

// Eventually waits for what another server may have some milliseconds later.
func Eventually(found func() (bool, error)) error {
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		there, err := found()
		if err != nil || there {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("the rows are not there")
		}
	}
}

// Step has the name that stands in docs/clients.md.
type Step struct {
	Name string
	Run  func() error
}

// Expect fails the step unless the two are equal. Both are of the same type by their declaration.
func Expect[T comparable](got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("got %v, not %v", got, wanted)
	}
	return nil
}

// Run runs the steps in their order and ends the program: with 1 if any of them failed.
func Run(all []Step) {
	failed := false
	for i, step := range all {
		if err := attempt(step); err != nil {
			failed = true
			fmt.Printf("FAIL %s: %s\n", step.Name, strings.Join(strings.Fields(err.Error()), " "))
			if i == 0 {
				break // no connection
			}
			continue
		}
		fmt.Printf("ok %s\n", step.Name)
	}
	if failed {
		os.Exit(1)
	}
}

// attempt turns a panic into the step's failure: the other steps are wanted as well.
func attempt(step Step) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("%v", panicked)
		}
	}()
	return step.Run()
}
