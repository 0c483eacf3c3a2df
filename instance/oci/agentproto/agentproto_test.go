package agentproto_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/instance/oci/agentproto"
)

func TestParseReply(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		ok       bool
	}{
		{"started", `{"n":1,"state":"started"}`, true},
		{"highest code", `{"n":1,"state":"exited","code":255}`, true},
		{"code too high", `{"n":1,"state":"exited","code":256}`, false},
		{"negative code", `{"n":1,"state":"exited","code":-1}`, false},
		{"negative number", `{"n":-1,"state":"exited"}`, false},
		{"unknown state", `{"n":1,"state":"resting"}`, false},
		{"long error", `{"n":1,"state":"failed","error":"` + strings.Repeat("x", agentproto.MaxError+1) + `"}`, false},
		{"long packet", `{"n":1,"state":"failed"` + strings.Repeat(" ", agentproto.MaxReply) + `}`, false},
		{"empty", ``, false},
		{"two", `{"n":1,"state":"exited"}{}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := agentproto.ParseReply([]byte(tt.in)); (err == nil) != tt.ok {
				t.Errorf("got %v, want accepted: %v", err, tt.ok)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		ok       bool
	}{
		{"command", `{"op":"exec","n":1,"args":["true"]}`, true},
		{"no command", `{"op":"exec","n":1}`, false},
		{"empty command", `{"op":"exec","n":1,"args":[""]}`, false},
		{"signal", `{"op":"signal","n":1,"signal":64}`, true},
		{"no signal", `{"op":"signal","n":1}`, false},
		{"unknown order", `{"op":"dance","n":1}`, false},
		{"long", `{"op":"files","n":1` + strings.Repeat(" ", agentproto.MaxRequest) + `}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := agentproto.ParseRequest([]byte(tt.in)); (err == nil) != tt.ok {
				t.Errorf("got %v, want accepted: %v", err, tt.ok)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"n":1,"state":"exited","code":7}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := agentproto.ParseReply(in)
		if err != nil {
			return
		}
		if len(in) > agentproto.MaxReply || r.Code < 0 || r.Code > 255 {
			t.Errorf("accepted %+v from %d bytes", r, len(in))
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"op":"exec","n":1,"args":["true"],"env":["A=b"],"cwd":"/"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := agentproto.ParseRequest(in)
		if err != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := agentproto.ParseRequest(b); len(b) <= agentproto.MaxRequest && (err != nil || again.Op != r.Op) {
			t.Errorf("%q does not come back: %v", in, err)
		}
	})
}
