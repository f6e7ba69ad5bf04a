package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// asProgram, in the environment, has the test's binary be the program.
const asProgram = "WEIR_TEST_HTTP3"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(ctx context.Context, backend string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1", "WEIR_BACKEND="+backend)
	return c
}

// TestHTTP3Programs runs the server, on two loops, and its clients as a person would: a file, bodies of
// some megabytes both ways at once from several clients, which come to both loops, a graceful
// end, and then a refusal that the client does not wait for (R57, R77).
func TestHTTP3Programs(t *testing.T) {
	for _, backend := range weir.Backends() {
		t.Run(backend, func(t *testing.T) {
			if only := os.Getenv("WEIR_BACKEND"); only != "" && only != backend {
				t.Skip("WEIR_BACKEND asks for " + only)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			defer cancel()
			dir := t.TempDir()
			file := bytes.Repeat([]byte("a line of a file\n"), 10_000)
			if err := os.WriteFile(filepath.Join(dir, "file"), file, 0o600); err != nil {
				t.Fatal(err)
			}
			server := program(ctx, backend, "-listen", "127.0.0.1:0", "-loops", "2", "-dir", dir)
			var said bytes.Buffer
			server.Stderr = &said
			out, err := server.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatalf("the server: %v: %s", err, &said)
			}
			url := strings.Fields(line)[3]

			client := func(in []byte, args ...string) (out []byte, loop string, err error) {
				c := program(ctx, backend, append([]string{"-v", "-insecure"}, args...)...)
				var errs bytes.Buffer
				c.Stdin, c.Stderr = bytes.NewReader(in), &errs
				out, err = c.Output()
				if err != nil {
					return out, "", fmt.Errorf("%w: %s", err, &errs)
				}
				_, loop, ok := strings.Cut(errs.String(), "HTTP/3.0 200 OK, loop ")
				if !ok {
					return out, "", fmt.Errorf("it said %s", &errs)
				}
				return out, strings.TrimSpace(loop), nil
			}
			if got, _, err := client(nil, url+"/file"); err != nil || !bytes.Equal(got, file) {
				t.Errorf("%d bytes of a file of %d, %v", len(got), len(file), err)
			}

			// Which loop a client comes to depends on its port: many come to both, sooner or later.
			const each = 4
			loops := map[string]int{}
			for range 12 {
				var wg sync.WaitGroup
				var mu sync.Mutex
				for i := range each {
					body := bytes.Repeat([]byte{byte(i), 1, 2, 3, 4, 5, 6}, 300_000)
					wg.Go(func() {
						got, loop, err := client(body, "-post", url+"/echo")
						if err != nil || !bytes.Equal(got, body) {
							t.Errorf("%d bytes came back of %d, %v", len(got), len(body), err)
						}
						mu.Lock()
						loops[loop]++
						mu.Unlock()
					})
				}
				wg.Wait()
				if len(loops) == 2 || t.Failed() {
					break
				}
			}
			if len(loops) != 2 {
				t.Errorf("loops that served: %v", loops)
			}

			if err := server.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := server.Wait(); err != nil {
				t.Errorf("the server's end: %v: %s", err, &said)
			}
			began := time.Now()
			if _, _, err := client(nil, url+"/file"); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("a client of a server that is gone: %v", err)
			}
			if took := time.Since(began); took > 4*time.Second { // quic-go's handshake has five
				t.Errorf("it took %v", took)
			}
		})
	}
}
