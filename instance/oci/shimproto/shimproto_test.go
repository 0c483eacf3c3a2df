package shimproto_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

func TestProcess(t *testing.T) {
	me, err := shimproto.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !me.Alive() {
		t.Error("I am not alive")
	}
	back, err := shimproto.ParseProcess(me.String())
	if err != nil || back != me {
		t.Errorf("%+v, %v", back, err)
	}
	for name, p := range map[string]shimproto.Process{
		"another start time": {PID: me.PID, Start: me.Start + 1, Boot: me.Boot},
		"another boot":       {PID: me.PID, Start: me.Start, Boot: "x"},
		"init of the host":   {PID: 1, Start: me.Start, Boot: me.Boot},
		"nobody":             {},
	} {
		if p.Alive() {
			t.Errorf("%s counts as alive", name)
		}
	}
	for _, bad := range []string{"", "1 2 x", "x 2 y", "-5 2 y", "5 2", "5 2 y z", "99999999999 1 y"} {
		if p, err := shimproto.ParseProcess(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, p)
		}
	}
}

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"a long text", "short"} {
		if err := shimproto.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v", b, err)
		}
	}
}

func FuzzParseProcess(f *testing.F) {
	f.Add("12 345 0c0ffee0-0000-4000-8000-000000000000\n")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := shimproto.ParseProcess(s)
		if err != nil {
			return
		}
		if back, err := shimproto.ParseProcess(p.String()); err != nil || back != p {
			t.Errorf("%+v does not come back: %+v, %v", p, back, err)
		}
	})
}
