package api_test

import (
	"testing"

	"github.com/shoal-project/shoal/api"
)

func TestDatabaseReportIsATree(t *testing.T) {
	r := api.DatabaseReport{Checks: []api.DatabaseCheck{
		{Name: "a", Status: api.CheckOK, Text: "x"},
		{Name: "b", Status: api.CheckInfo, Checks: []api.DatabaseCheck{
			{Name: "c", Status: api.CheckError, Text: "bad \x1b[31m", Hint: "mend it", Checks: []api.DatabaseCheck{{Name: "d", Status: api.CheckInfo}}},
			{Name: "e", Status: api.CheckWarning, Hint: "look"},
		}},
	}}
	const want = `[ ok ] a: x

       b
[FAIL] ├─ c: bad ?[31m
       │  │  hint: mend it
       │  └─ d
[warn] └─ e
             hint: look
`
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
