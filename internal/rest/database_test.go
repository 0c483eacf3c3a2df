package rest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
)

// The check works before the daemon is ready; a path has to be one that means the same to both sides.
func TestDatabaseIsChecked(t *testing.T) {
	w := notReady(t)
	report := func(method string, body any) (api.DatabaseReport, string) {
		t.Helper()
		a := w.do(method, "/internal/database", body)
		var r api.DatabaseReport
		if a.code == 200 {
			if err := json.Unmarshal(a.Metadata, &r); err != nil {
				t.Fatal(err)
			}
		}
		return r, a.Error
	}
	if r, e := report("GET", nil); r.Database != "embedded" {
		t.Errorf("of the daemon: %+v %s", r, e)
	}
	if r, e := report("POST", api.DatabaseDebugPost{Config: "/etc/x.yaml"}); r.Database != "etcd" || r.Checks[0].Text != "/etc/x.yaml" {
		t.Errorf("of a file: %+v %s", r, e)
	}
	for _, bad := range []string{"", "x.yaml", "../x"} {
		if _, e := report("POST", api.DatabaseDebugPost{Config: bad}); !strings.Contains(e, "absolute path") {
			t.Errorf("%q: %q", bad, e)
		}
	}
}
