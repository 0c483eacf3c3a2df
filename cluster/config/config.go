package config

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

// ShutdownTimeout is how many minutes a shutdown waits for running operations.
const ShutdownTimeout = "core.shutdown_timeout"

const defaultShutdownMinutes = 5

// later are the prefixes of keys that LXD and Incus know and that this build refuses by name.
var later = []string{"acme.", "authorization.", "backups.", "candid.", "cluster.", "core.", "images.", "instances.",
	"logging.", "loki.", "maas.", "network.", "oidc.", "openfga.", "rbac.", "storage."}

type record struct {
	Config map[string]string `json:"config"`
}

// Deps is what the service needs.
type Deps struct {
	State *state.DB
}

// Service keeps the configuration. Safe for concurrent use.
type Service struct {
	table *state.Table[record]
}

// New returns the service.
func New(d Deps) (*Service, error) {
	if d.State == nil {
		return nil, fmt.Errorf("config: State is required")
	}
	return &Service{table: state.NewTable[record](d.State, "config", 1)}, nil
}

const key = "server"

// Get returns the keys that were set.
func (s *Service) Get() map[string]string {
	item, err := s.table.Get(key)
	if err != nil || item.Value.Config == nil {
		return map[string]string{}
	}
	return maps.Clone(item.Value.Config)
}

// Replace sets the whole configuration; keys that are not given go back to their defaults.
func (s *Service) Replace(ctx context.Context, raw map[string]any) error {
	return s.change(ctx, raw, true)
}

// Merge sets the given keys and leaves the others; an empty value removes a key.
func (s *Service) Merge(ctx context.Context, raw map[string]any) error {
	return s.change(ctx, raw, false)
}

func (s *Service) change(ctx context.Context, raw map[string]any, replace bool) error {
	given, err := parse(raw)
	if err != nil {
		return err
	}
	for {
		item, err := s.table.Get(key)
		found := err == nil
		if err != nil && !errs.IsNotFound(err) {
			return err
		}
		next := map[string]string{}
		if !replace {
			maps.Copy(next, item.Value.Config)
		}
		maps.Copy(next, given)
		maps.DeleteFunc(next, func(_, v string) bool { return v == "" })
		if !found {
			_, err = s.table.Create(ctx, key, record{next})
		} else {
			item.Value = record{next}
			_, err = s.table.Update(ctx, item)
		}
		if errs.IsConflict(err) || (!found && errs.IsExists(err)) {
			continue // somebody else was faster: decide again on what they wrote
		}
		return err
	}
}

// ShutdownWait is how long a shutdown waits for running operations.
func (s *Service) ShutdownWait() time.Duration {
	n, err := strconv.Atoi(s.Get()[ShutdownTimeout])
	if err != nil {
		n = defaultShutdownMinutes
	}
	return time.Duration(n) * time.Minute
}

// parse turns JSON values into strings, as clients send numbers and booleans too, and checks each key.
func parse(raw map[string]any) (map[string]string, error) {
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		var str string
		switch v := v.(type) {
		case nil:
		case string:
			str = v
		case bool:
			str = strconv.FormatBool(v)
		case float64:
			str = strconv.FormatFloat(v, 'f', -1, 64)
		case json.Number:
			str = v.String()
		default:
			return nil, errs.Invalid("cannot set '%s': the value must be a string, number or boolean", k)
		}
		if err := check(k, str); err != nil {
			return nil, err
		}
		out[k] = str
	}
	return out, nil
}

func check(k, v string) error {
	if strings.HasPrefix(k, "user.") && len(k) > len("user.") {
		return nil
	}
	if k == ShutdownTimeout {
		if n, err := strconv.Atoi(v); v != "" && (err != nil || n < 0 || n > 24*60) {
			return errs.Invalid("cannot set '%s' to '%s': must be minutes from 0 to 1440", k, v)
		}
		return nil
	}
	for _, p := range later {
		if strings.HasPrefix(k, p) {
			if v == "" {
				return nil // back to the default, which is what is
			}
			return errs.Unsupported("cannot set '%s' to '%s': not supported yet", k, v)
		}
	}
	return errs.Invalid("cannot set '%s' to '%s': unknown key", k, v)
}
