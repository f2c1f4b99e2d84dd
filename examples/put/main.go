// Puts of one key and value each, one after the other on so many connections, into etcd or into a
// table of Rota's: the same load for both, from one program. Prints one line: puts a second, and
// the median and 99th percentile of their latencies in milliseconds.
//
//	go run . -system etcd -address 127.0.0.1:2379 -clients 8 -seconds 5
//	go run . -system rota -address postgres://rota@127.0.0.1:5441/rota -clients 8 -seconds 5
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// put writes one value under one key and returns when it is acknowledged.
type put func(ctx context.Context, key, value string) error

func main() {
	system := flag.String("system", "etcd", "etcd or rota")
	address := flag.String("address", "", "host:port, or postgres://…")
	clients := flag.Int("clients", 1, "connections, each with one put under way")
	seconds := flag.Float64("seconds", 5, "how long to measure, after a fifth of that to warm up")
	bytes := flag.Int("bytes", 128, "bytes of a value")
	keys := flag.Int("keys", 100_000, "how many keys there are")
	flag.Parse()

	ctx := context.Background()
	puts := make([]put, *clients)
	for i := range puts {
		var err error
		if puts[i], err = connect(ctx, *system, *address, i == 0); err != nil {
			fail(err)
		}
	}
	length := time.Duration(*seconds * float64(time.Second))
	begin := time.Now().Add(length / 5)
	end := begin.Add(length)
	latencies := make([][]time.Duration, *clients)
	var all sync.WaitGroup
	for i, put := range puts {
		all.Add(1)
		go func() {
			defer all.Done()
			chance := rand.New(rand.NewSource(int64(i)))
			for {
				key := fmt.Sprintf("key-%012d", chance.Intn(*keys))
				value := strings.Repeat(string(rune('a'+chance.Intn(26))), *bytes)
				from := time.Now()
				if err := put(ctx, key, value); err != nil {
					fail(err)
				}
				to := time.Now()
				if to.After(end) {
					return
				}
				if from.After(begin) {
					latencies[i] = append(latencies[i], to.Sub(from))
				}
			}
		}()
	}
	all.Wait()
	sorted := slices.Concat(latencies...)
	slices.Sort(sorted)
	if len(sorted) == 0 {
		fail(fmt.Errorf("no put was acknowledged in time"))
	}
	at := func(share float64) float64 {
		place := int(share * float64(len(sorted)-1))
		return float64(sorted[place].Microseconds()) / 1000
	}
	fmt.Printf("%.0f %.2f %.2f\n", float64(len(sorted)) / *seconds, at(0.5), at(0.99))
}

func connect(ctx context.Context, system, address string, first bool) (put, error) {
	switch system {
	case "etcd":
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		})
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, key, value string) error {
			_, err := client.Put(ctx, key, value)
			return err
		}, nil
	case "rota":
		connection, err := pgx.Connect(ctx, address)
		if err != nil {
			return nil, err
		}
		if first {
			const table = "CREATE TABLE IF NOT EXISTS put (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
			if _, err := connection.Exec(ctx, table); err != nil {
				return nil, err
			}
		}
		const upsert = "INSERT INTO put VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
		return func(ctx context.Context, key, value string) error {
			_, err := connection.Exec(ctx, upsert, key, value)
			return err
		}, nil
	default:
		return nil, fmt.Errorf("-system is etcd or rota, not %q", system)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "put:", err)
	os.Exit(1)
}
