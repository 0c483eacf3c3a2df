package config

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/identity/trust"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/units"
	"github.com/shoal-project/shoal/world"
)

// The keys that this build acts on.
const (
	// ShutdownTimeout is how many minutes a shutdown waits for running operations.
	ShutdownTimeout = "core.shutdown_timeout"
	// HTTPSAddress is where this machine serves the API over TLS; empty: nowhere. Each machine has its own.
	HTTPSAddress = "core.https_address"
	// TokenExpiry is how long tokens for new clients are good for; empty: for ever.
	TokenExpiry = "core.remote_token_expiry"
	// TrustPassword lets whoever knows it become trusted; empty: nobody. What is stored is a hash, what is shown is "true".
	TrustPassword = "core.trust_password"
)

// shownSecret stands for a secret that is set; who writes it back leaves the secret as it is.
const shownSecret = "true"

// WorldDeployKeys are the keys of the people who may deploy, separated by commas; WorldDeployKeep is how many deploys stay.
const (
	WorldDeployKeys = "world.deploy_keys"
	WorldDeployKeep = "world.deploy_keep"
)

const defaultDeployKeep = 100

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
	// Node is this machine's name, under which it keeps the keys that are its own.
	Node string
	// Prepare, where set, is told of a change before it is written. Its error refuses the change; otherwise done is called with what
	// became of it. Changes of one daemon come one after the other.
	Prepare func(ctx context.Context, before, after map[string]string) (done func(written bool), err error)
}

// Service keeps the configuration. Safe for concurrent use.
type Service struct {
	d     Deps
	table *state.Table[record]
	mu    sync.Mutex // one change at a time
}

// New returns the service.
func New(d Deps) (*Service, error) {
	if d.State == nil {
		return nil, fmt.Errorf("config: State is required")
	}
	if d.Node == "" {
		d.Node = "none"
	}
	if d.Prepare == nil {
		d.Prepare = func(context.Context, map[string]string, map[string]string) (func(bool), error) {
			return func(bool) {}, nil
		}
	}
	return &Service{d: d, table: state.NewTable[record](d.State, state.Config, 1)}, nil
}

// The cluster's keys are in one record, those of a machine in one of its own.
const key = "server"

func (s *Service) nodeKey() string { return state.Key("node", s.d.Node) }

// ofNode reports whether a key belongs to the machine.
func ofNode(k string) bool { return k == HTTPSAddress }

// Get returns the keys that were set. Of secrets it shows only that they are.
func (s *Service) Get() map[string]string {
	all := s.stored()
	if all[TrustPassword] != "" {
		all[TrustPassword] = shownSecret
	}
	return all
}

// stored returns the keys that were set as they are stored.
func (s *Service) stored() map[string]string {
	out := map[string]string{}
	for _, k := range []string{key, s.nodeKey()} {
		if item, ok := s.table.Peek(k); ok {
			maps.Copy(out, item.Value.Config)
		}
	}
	return out
}

// HTTPSAddress is where this machine shall serve the API, empty for nowhere.
func (s *Service) HTTPSAddress() string { return s.stored()[HTTPSAddress] }

// TokenExpiry is how long tokens are good for, in the form of units.AddExpiry.
func (s *Service) TokenExpiry() string { return s.stored()[TokenExpiry] }

// PasswordHash is what is stored of the trust password.
func (s *Service) PasswordHash() string { return s.stored()[TrustPassword] }

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
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		err := s.try(ctx, given, replace)
		if (errs.IsConflict(err) || errs.IsExists(err)) && ctx.Err() == nil {
			continue // somebody else was faster: decide again on what they wrote
		}
		return err
	}
}

// try writes the change on what there is now.
func (s *Service) try(ctx context.Context, given map[string]string, replace bool) error {
	before := s.stored()
	next := map[string]string{}
	if !replace {
		maps.Copy(next, before)
	}
	maps.Copy(next, given)
	if given[TrustPassword] == shownSecret {
		next[TrustPassword] = before[TrustPassword]
	}
	maps.DeleteFunc(next, func(_, v string) bool { return v == "" })
	cluster, node := map[string]string{}, map[string]string{}
	for k, v := range next {
		if ofNode(k) {
			node[k] = v
		} else {
			cluster[k] = v
		}
	}
	ops := []state.Op{}
	for k, config := range map[string]map[string]string{key: cluster, s.nodeKey(): node} {
		op, err := s.write(k, config)
		if err != nil {
			return err
		}
		ops = append(ops, op...)
	}
	done, err := s.d.Prepare(ctx, before, next)
	if err != nil {
		return err
	}
	if len(ops) > 0 {
		_, err = s.d.State.Txn(ctx, ops...)
	}
	done(err == nil)
	return err
}

// write is what puts config into a record; nothing when it is there already.
func (s *Service) write(k string, config map[string]string) ([]state.Op, error) {
	item, err := s.table.Get(k)
	switch {
	case errs.IsNotFound(err) && len(config) == 0:
		return nil, nil
	case errs.IsNotFound(err):
		return []state.Op{s.table.CreateOp(k, record{config})}, nil
	case err != nil:
		return nil, err
	case maps.Equal(item.Value.Config, config):
		return []state.Op{s.table.CheckOp(item)}, nil
	}
	item.Value = record{config}
	return []state.Op{s.table.UpdateOp(item)}, nil
}

// ShutdownWait is how long a shutdown waits for running operations.
func (s *Service) ShutdownWait() time.Duration {
	n, err := strconv.Atoi(s.Get()[ShutdownTimeout])
	if err != nil {
		n = defaultShutdownMinutes
	}
	return time.Duration(n) * time.Minute
}

// DeployKeys returns the keys of the people who may deploy; none: nobody is asked for one.
func (s *Service) DeployKeys() []string { return deployKeys(s.Get()[WorldDeployKeys]) }

func deployKeys(v string) []string {
	return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' })
}

// DeployKeep returns how many deploys stay when one is added.
func (s *Service) DeployKeep() int {
	n, err := strconv.Atoi(s.Get()[WorldDeployKeep])
	if err != nil {
		n = defaultDeployKeep
	}
	return n
}

// checkWorld checks the keys of the World.
func checkWorld(k, v string) (known bool, err error) {
	switch k {
	case WorldDeployKeys:
		for _, name := range deployKeys(v) {
			if _, err := world.ParseKeyName(name); err != nil {
				return true, errs.Invalid("cannot set '%s': %w", k, err)
			}
		}
		return true, nil
	case WorldDeployKeep:
		if n, err := strconv.Atoi(v); v != "" && (err != nil || n < 1 || n > 1_000_000) {
			return true, errs.Invalid("cannot set '%s' to '%s': must be a number from 1 to 1000000", k, v)
		}
		return true, nil
	}
	return false, nil
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
		if out[k] = str; k == TrustPassword && str != "" && str != shownSecret {
			hash, err := trust.HashPassword(str)
			if err != nil {
				return nil, errs.Invalid("cannot set '%s': %w", k, err)
			}
			out[k] = hash
		}
	}
	return out, nil
}

func check(k, v string) error {
	if strings.HasPrefix(k, "user.") && len(k) > len("user.") {
		return nil
	}
	if known, err := checkWorld(k, v); known {
		return err
	}
	if k == ShutdownTimeout {
		if n, err := strconv.Atoi(v); v != "" && (err != nil || n < 0 || n > 24*60) {
			return errs.Invalid("cannot set '%s' to '%s': must be minutes from 0 to 1440", k, v)
		}
		return nil
	}
	switch k {
	case TrustPassword:
		return nil
	case HTTPSAddress:
		return nil // whoever listens says whether it can
	case TokenExpiry:
		if _, err := units.AddExpiry(time.Time{}, v); err != nil {
			return errs.Invalid("cannot set '%s' to '%s': %w", k, v, err)
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
