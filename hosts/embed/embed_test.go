package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// compile makes a C program with the library in dir.
func compile(t *testing.T, dir string, sources []string, flags ...string) string {
	t.Helper()
	hosttest.Need(t, "gcc")
	out := filepath.Join(t.TempDir(), "program")
	args := append([]string{"-O2", "-Wall", "-Werror=int-conversion", "-Wno-strict-aliasing", "-o", out, "-I", dir, "-I", "."}, sources...)
	args = append(append(args, filepath.Join(dir, "libweir.a")), flags...)
	hosttest.Do(t, "gcc", append(args, "-lpthread")...)
	return out
}

// archive builds the C archive.
func archive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	hosttest.Do(t, "go", "build", "-buildmode=c-archive", "-o", filepath.Join(dir, "libweir.a"), ".")
	return dir
}

// TestC: programs whose loop is libuv's or libev's download while their timer ticks, and
// then nothing wakes them (R24). What a C program may do wrong is refused.
func TestC(t *testing.T) {
	dir := archive(t)
	t.Run("libuv", func(t *testing.T) {
		hosttest.NeedLibrary(t, "libuv")
		follow(t, exec.Command(compile(t, dir, []string{"uv/main.c", "uv/weir_uv.c"}, hosttest.Flags(t, "libuv")...)))
	})
	t.Run("libev", func(t *testing.T) {
		if _, err := os.Stat("/usr/include/ev.h"); err != nil {
			t.Skip("skipped: the library libev is not installed")
		}
		follow(t, exec.Command(compile(t, dir, []string{"ev/main.c", "ev/weir_ev.c"}, "-lev")))
	})
	t.Run("misuse", func(t *testing.T) {
		p := hosttest.Start(t, exec.Command(compile(t, dir, []string{"testdata/misuse.c"}), "tcp:"+echo(t)))
		p.Line("kept")
		p.End()
	})
	// A number as the argument of callbacks must not look like a pointer to Go, which
	// -Werror finds out.
	t.Run("numbers", func(t *testing.T) {
		p := hosttest.Start(t, exec.Command(compile(t, dir, []string{"testdata/numbers.c"}), "tcp:"+echo(t)))
		p.Line("kept")
		p.End()
	})
}

// TestPython: the same in asyncio and in a Tk window.
func TestPython(t *testing.T) {
	hosttest.Need(t, "python3")
	lib := filepath.Join(t.TempDir(), "libweir.so")
	hosttest.Do(t, "go", "build", "-buildmode=c-shared", "-o", lib, ".")
	t.Run("asyncio", func(t *testing.T) {
		follow(t, exec.Command("python3", "python/download_asyncio.py", "-library", lib))
	})
	t.Run("tk", func(t *testing.T) {
		// The python3 of the distribution is the one that has its python3-tk.
		python := ""
		for _, p := range []string{"python3", "/usr/bin/python3"} {
			if exec.Command(p, "-c", "import tkinter").Run() == nil {
				python = p
			}
		}
		if python == "" {
			t.Skip("skipped: python3-tk is not installed")
		}
		display := hosttest.Display(t)
		cmd := exec.Command(python, "python/download_tk.py", "-library", lib)
		cmd.Env = append(os.Environ(), "DISPLAY="+display)
		follow(t, cmd, func(downloaded string) {
			hosttest.Screenshot(t, display, "tk")
			if ms, n := hosttest.Field(t, downloaded, "ms"), hosttest.Field(t, downloaded, "draws"); n < 2 || n < ms/300 {
				t.Errorf("the window was redrawn %.0f times in %.0f ms", n, ms)
			}
		})
	})
	t.Run("protocols", func(t *testing.T) {
		out := hosttest.Do(t, "python3", "testdata/protocols.py", lib, "tcp:"+echo(t))
		if !strings.HasSuffix(out, "kept\n") {
			t.Error(out)
		}
	})
}

func follow(t *testing.T, cmd *exec.Cmd, more ...func(downloaded string)) {
	t.Helper()
	n := hosttest.Size(t)
	cmd.Args = append(cmd.Args, hosttest.Args(hosttest.Serve(t), n)...)
	hosttest.Start(t, cmd).Watch(n, more...)
}

// echo starts an echo server.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}
