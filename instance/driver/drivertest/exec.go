package drivertest

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

func testExecCodes(t *testing.T, e *env) {
	s, _ := e.start(t)
	for _, tt := range []struct {
		name    string
		command []string
		want    int
	}{
		{"success", []string{"true"}, 0},
		{"failure", []string{"false"}, 1},
		{"a code", []string{"sh", "-c", "exit 7"}, 7},
		{"not found on the path", []string{"no-such-program"}, 127},
		{"not found by name", []string{"/no/such/program"}, 127},
		{"a directory", []string{"/etc"}, 126},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if code, out, errOut := e.exec(t, s.ID, driver.ExecRequest{Command: tt.command}); code != tt.want || out+errOut != "" {
				t.Errorf("code %d with output %q %q, want %d and none", code, out, errOut, tt.want)
			}
		})
	}
	_, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{})
	wantClass(t, "no command", err, errs.InvalidInput)
}

func testExecStreams(t *testing.T, e *env) {
	s, _ := e.start(t)
	code, out, errOut := e.exec(t, s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "echo to-out; echo to-err >&2; exit 3"}})
	if code != 3 || out != "to-out\n" || errOut != "to-err\n" {
		t.Errorf("got %d %q %q", code, out, errOut)
	}
	in := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // more than a pipe holds
	code, out, _ = e.exec(t, s.ID, driver.ExecRequest{Command: []string{"cat"}, Stdin: bytes.NewReader(in)})
	if code != 0 || out != string(in) {
		t.Errorf("cat gave back %d of %d bytes, code %d", len(out), len(in), code)
	}
	if code, out, _ = e.exec(t, s.ID, driver.ExecRequest{Command: []string{"cat"}}); code != 0 || out != "" {
		t.Errorf("without stdin: %d %q", code, out)
	}
	_, out, _ = e.exec(t, s.ID, driver.ExecRequest{Command: []string{"env"}, Env: map[string]string{"COLOUR": "grün; rm -rf /"}})
	if !slices.Contains(strings.Split(out, "\n"), "COLOUR=grün; rm -rf /") {
		t.Errorf("environment %q", out)
	}
	if _, out, _ = e.exec(t, s.ID, driver.ExecRequest{Command: []string{"pwd"}, Cwd: "/etc"}); out != "/etc\n" {
		t.Errorf("working directory %q", out)
	}
	if _, out, _ = e.exec(t, s.ID, driver.ExecRequest{Command: []string{"id", "-u"}, User: 33, Group: 33}); out != "33\n" {
		t.Errorf("user %q", out)
	}
}

func testExecSignal(t *testing.T, e *env) {
	s, _ := e.start(t)
	p, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sleep", "1000"}, Env: map[string]string{}})
	must(t, err)
	must(t, p.Signal(9))
	if code, err := p.Wait(); code != 137 || err != nil {
		t.Errorf("killed: %d, %v", code, err)
	}
	must(t, p.Signal(9))
	// The end of the instance ends its commands.
	p, err = e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sleep", "1000"}, Env: map[string]string{}})
	must(t, err)
	must(t, e.d.Kill(t.Context(), s.ID))
	if code, err := p.Wait(); err == nil && code != 137 {
		t.Errorf("with its instance: %d, %v", code, err)
	}
}

func testExecTerminal(t *testing.T, e *env) {
	s, _ := e.start(t)
	p, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{
		Command: []string{"sh", "-c", "echo on-a-terminal; exit 5"}, Terminal: true, Width: 90, Height: 25, Env: map[string]string{},
	})
	must(t, err)
	if p.TTY() == nil {
		t.Fatal("no terminal")
	}
	out, _ := io.ReadAll(p.TTY()) // ends with EOF or, as terminals do, with EIO
	if !strings.Contains(string(out), "on-a-terminal") {
		t.Errorf("terminal gave %q", out)
	}
	must(t, p.TTY().Close())
	if code, err := p.Wait(); code != 5 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	p, err = e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"no-such-program"}, Terminal: true, Env: map[string]string{}})
	must(t, err)
	if code, err := p.Wait(); code != 127 || err != nil {
		t.Errorf("not found: %d, %v", code, err)
	}
}

func (e *env) files(t *testing.T, s driver.Spec) *sftp.Client {
	t.Helper()
	rw, err := e.d.Files(t.Context(), s)
	if err != nil {
		t.Fatalf("files: %v", err)
	}
	c, err := sftp.NewClientPipe(rw, rw)
	if err != nil {
		t.Fatalf("sftp: %v", err)
	}
	return c
}

func testFiles(t *testing.T, e *env) {
	s := e.h.Spec(t)
	e.ids = append(e.ids, s.ID)
	stopped := e.files(t, s)
	second := e.files(t, s) // at the same time
	write(t, stopped, "/from-outside", "written while stopped")
	if got := read(t, second, "/from-outside"); got != "written while stopped" {
		t.Errorf("second session reads %q", got)
	}
	must(t, stopped.Close())
	must(t, second.Close())
	for range 4 { // one right after the other: the last may still be leaving
		c := e.files(t, s)
		if got := read(t, c, "/from-outside"); got != "written while stopped" {
			t.Errorf("a later session reads %q", got)
		}
		must(t, c.Close())
	}
	_, err := e.d.Create(t.Context(), s)
	must(t, err)
	must(t, e.d.Start(t.Context(), s.ID))
	c := e.files(t, s)
	if got := read(t, c, "/from-outside"); got != "written while stopped" {
		t.Errorf("running instance reads %q", got)
	}
	write(t, c, "/dir-file", strings.Repeat("x", 300_000))
	if got := read(t, c, "/dir-file"); len(got) != 300_000 {
		t.Errorf("read back %d bytes", len(got))
	}
	must(t, c.Remove("/dir-file"))
	if _, err := c.Stat("/dir-file"); err == nil {
		t.Error("removed file is there")
	}
	must(t, c.Close())
	must(t, e.d.Kill(t.Context(), s.ID))
}

// testFilesThenStart: a session that is open does not keep an instance from starting.
func testFilesThenStart(t *testing.T, e *env) {
	s := e.h.Spec(t)
	e.ids = append(e.ids, s.ID)
	c := e.files(t, s)
	defer c.Close()
	_, err := e.d.Create(t.Context(), s)
	must(t, err)
	must(t, e.d.Start(t.Context(), s.ID))
	e.awaitLog(t, s, Ready)
}

func write(t *testing.T, c *sftp.Client, path, text string) {
	t.Helper()
	f, err := c.Create(path)
	must(t, err)
	_, err = f.Write([]byte(text))
	must(t, err)
	must(t, f.Close())
}

func read(t *testing.T, c *sftp.Client, path string) string {
	t.Helper()
	f, err := c.Open(path)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return string(b)
}
