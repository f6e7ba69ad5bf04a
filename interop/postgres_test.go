package interop

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// pqDialer is the dialer that lib/pq wants.
type pqDialer struct{ netconn.Dialer }

func (d *pqDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *pqDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// openDB opens a database whose connections are netconn's.
func openDB(t *testing.T, l *weir.Loop, dsn string) *sql.DB {
	t.Helper()
	c, err := pq.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	d := &pqDialer{}
	d.Loop = l
	c.Dialer(d)
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestPostgresPeer: database/sql with lib/pq over netconn, against a peer in
// this file that speaks enough of PostgreSQL's protocol, over netconn too.
func TestPostgresPeer(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln := listen(t, l)
		go servePostgres(ln)
		host, port, _ := net.SplitHostPort(ln.Addr().String())
		db := openDB(t, l, fmt.Sprintf("host=%s port=%s user=weir dbname=weir sslmode=disable", host, port))
		db.SetMaxOpenConns(4)
		errs := make(chan error, 20)
		for i := range cap(errs) {
			go func() { errs <- bytesOfDB(db, fmt.Sprintf("SELECT %d", i*10_000), i*10_000) }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		_, err := db.Query("nonsense")
		var pe *pq.Error
		if !errors.As(err, &pe) || pe.Code != "42601" {
			t.Errorf("a wrong query: %v", err)
		}
	})
}

func bytesOfDB(db *sql.DB, query string, want int) error {
	var got []byte
	if err := db.QueryRow(query).Scan(&got); err != nil {
		return err
	}
	if !bytes.Equal(got, pattern(want)) {
		return fmt.Errorf("%s: %d bytes, or wrong ones", query, len(got))
	}
	return nil
}

// servePostgres answers "SELECT n" with a bytea of n bytes, and everything else
// with a syntax error.
func servePostgres(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = servePostgresConn(c)
		}()
	}
}

func servePostgresConn(c net.Conn) error {
	// The first message has no type: its length, the version, parameters.
	if _, err := pgMessage(c); err != nil {
		return err
	}
	const readyForQuery = "Z\x00\x00\x00\x05I"
	if _, err := io.WriteString(c, "R\x00\x00\x00\x08\x00\x00\x00\x00"+readyForQuery); err != nil {
		return err
	}
	for {
		var kind [1]byte
		if _, err := io.ReadFull(c, kind[:]); err != nil {
			return err
		}
		body, err := pgMessage(c)
		if err != nil || kind[0] == 'X' {
			return err
		}
		var out []byte
		query := strings.TrimRight(string(body), "\x00")
		n, err := strconv.Atoi(strings.TrimPrefix(query, "SELECT "))
		if kind[0] != 'Q' || err != nil {
			out = pgAppend(out, 'E', "SERROR\x00C42601\x00Msyntax error\x00\x00")
		} else {
			const bytea = 17
			column := "\x00\x01b\x00" + string(make([]byte, 6)) + "\x00\x00\x00" + string(rune(bytea)) + "\xff\xff\xff\xff\xff\xff\x00\x00"
			value := `\x` + hex.EncodeToString(pattern(n))
			out = pgAppend(out, 'T', column)
			out = pgAppend(out, 'D', "\x00\x01"+string(binary.BigEndian.AppendUint32(nil, uint32(len(value))))+value)
			out = pgAppend(out, 'C', "SELECT 1\x00")
		}
		if _, err := c.Write(append(out, readyForQuery...)); err != nil {
			return err
		}
	}
}

// pgMessage reads the length of a message and then its body.
func pgMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 4 || n > 1<<20 {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(r, body)
	return body, err
}

func pgAppend(out []byte, kind byte, body string) []byte {
	out = binary.BigEndian.AppendUint32(append(out, kind), uint32(len(body)+4))
	return append(out, body...)
}

// TestPostgres is database/sql against the real server, if one is installed:
// parameters, transactions, large values, a query that its context cuts short.
func TestPostgres(t *testing.T) {
	dir := startPostgres(t)
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		db := openDB(t, l, "host="+dir+" port=5432 user=postgres dbname=postgres sslmode=disable")
		ctx := within(t, 60*time.Second)
		if _, err := db.ExecContext(ctx, "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, b bytea)"); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES ($1, $2)", i, pattern(i*20_000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		rows, err := db.QueryContext(ctx, "SELECT id, b FROM t ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		n := 0
		for ; rows.Next(); n++ {
			var id int
			var b []byte
			if err := rows.Scan(&id, &b); err != nil || id != n || !bytes.Equal(b, pattern(id*20_000)) {
				t.Fatalf("row %d: %d, %d bytes, %v", n, id, len(b), err)
			}
		}
		if err := rows.Err(); err != nil || n != 20 {
			t.Errorf("%d rows, %v", n, err)
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := db.ExecContext(short, "SELECT pg_sleep(60)"); err == nil {
			t.Error("a query outlived its context")
		}
		if err := db.PingContext(ctx); err != nil {
			t.Error(err)
		}
	})
}

// startPostgres runs a server of its own on a UNIX socket and returns the
// socket's directory. The server refuses to run as root, so that root runs it as
// the user postgres.
func startPostgres(t *testing.T) string {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(bins) == 0 {
		t.Skip("no PostgreSQL here")
	}
	bin := filepath.Dir(bins[len(bins)-1])
	attr := &syscall.SysProcAttr{}
	dir, err := os.MkdirTemp("", "weir-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip("root here, and no user postgres")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(bin+"/initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := exec.Command(bin+"/postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	server.SysProcAttr, server.Dir = attr, dir
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT)
		_ = server.Wait()
		if t.Failed() {
			t.Logf("the server says:\n%s", log.String())
		}
	})
	// It is ready when its own client says so.
	ready := exec.CommandContext(within(t, 30*time.Second), "sh", "-c",
		`until "$0" -q -h "$1" -U postgres; do :; done`, bin+"/pg_isready", dir)
	if err := ready.Run(); err != nil {
		t.Fatalf("the server is not ready: %v", err)
	}
	return dir
}
