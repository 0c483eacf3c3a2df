package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoal-project/shoal/api"
)

// Live is something of the World that can be read once or followed.
type Live[T any] struct {
	c     *Client
	path  string
	query url.Values
}

// Get reads it as it is now.
func (l Live[T]) Get(ctx context.Context) (T, error) {
	v, _, err := get[T](ctx, l.c, l.path, l.query)
	return v, err
}

// Follow calls fn with it as it is now and after each change, those in quick succession together, until ctx ends, fn fails, or the
// server does not serve it any more.
func (l Live[T]) Follow(ctx context.Context, fn func(T) error) error { return follow(ctx, l, fn) }

// maxLine bounds one line of a watch, in bytes.
const maxLine = 256 << 20

// follow reads the lines of a watch of l.
func follow[T, L any](ctx context.Context, l Live[T], fn func(L) error) error {
	q := maps.Clone(l.query)
	if q == nil {
		q = url.Values{}
	}
	q.Set("watch", "true")
	resp, err := l.c.Do(ctx, Request{Path: l.path, Query: q})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, err := l.c.envelope(resp)
		return err
	}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	for in.Scan() {
		if len(bytes.TrimSpace(in.Bytes())) == 0 {
			continue // the server is there
		}
		l.c.opts.Trace("watch\n%s", bytes.Clone(in.Bytes()))
		var line api.WatchLine[L]
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return fmt.Errorf("watch %s: a line is not JSON of this API: %w", l.path, err)
		}
		if line.Error != "" {
			return &Error{Status: line.ErrorCode, Message: line.Error}
		}
		if err := fn(line.Metadata); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = in.Err()
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the daemon ended it")
	}
	return fmt.Errorf("watch %s: %w", l.path, err)
}

// worldPath escapes elements below /1.0/world; dots alone too, which would mean a directory.
func worldPath(elems ...string) string {
	p := "/1.0/world"
	for _, e := range elems {
		esc := url.PathEscape(e)
		if strings.Trim(e, ".") == "" {
			esc = strings.ReplaceAll(e, ".", "%2E")
		}
		p += "/" + esc
	}
	return p
}

// change makes a change and returns whether it changed anything.
func (c *Client) change(ctx context.Context, r Request) (bool, error) {
	env, _, err := c.call(ctx, r)
	if err != nil {
		return false, err
	}
	var v api.WorldChanged
	err = decode(env.Metadata, &v)
	return v.Changed, err
}

// World describes what the daemon's machine sees of the World.
func (c *Client) World(ctx context.Context) (*api.World, error) {
	v, _, err := get[api.World](ctx, c, worldPath(), nil)
	return &v, err
}

// WorldStrings are all strings, by key.
func (c *Client) WorldStrings() Live[[]api.WorldString] {
	return Live[[]api.WorldString]{c: c, path: worldPath("strings")}
}

// WorldString is one string; followed, it is nil while there is none.
func (c *Client) WorldString(key string) Live[*api.WorldString] {
	return Live[*api.WorldString]{c: c, path: worldPath("strings", key)}
}

// SetWorldString sets a string; false: it had this value already.
func (c *Client) SetWorldString(ctx context.Context, key string, put api.WorldStringPut) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodPut, Path: worldPath("strings", key), Body: put})
}

// DeleteWorldString deletes a string; false: there was none.
func (c *Client) DeleteWorldString(ctx context.Context, key string) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodDelete, Path: worldPath("strings", key)})
}

// WorldStringMaps are all string maps, by key.
func (c *Client) WorldStringMaps() Live[[]api.WorldStringMap] {
	return Live[[]api.WorldStringMap]{c: c, path: worldPath("string-maps")}
}

// WorldStringMap is one string map; one that nobody has an entry in is empty.
func (c *Client) WorldStringMap(key string) Live[api.WorldStringMap] {
	return Live[api.WorldStringMap]{c: c, path: worldPath("string-maps", key)}
}

// SetWorldStringMap sets the entry of the daemon's machine; false: it had this value already.
func (c *Client) SetWorldStringMap(ctx context.Context, key string, put api.WorldStringPut) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodPut, Path: worldPath("string-maps", key), Body: put})
}

// DeleteWorldStringMap deletes the entry of the daemon's machine; false: there was none.
func (c *Client) DeleteWorldStringMap(ctx context.Context, key string) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodDelete, Path: worldPath("string-maps", key)})
}

// WorldMembers are the members of the database.
func (c *Client) WorldMembers() Live[[]api.WorldMember] {
	return Live[[]api.WorldMember]{c: c, path: worldPath("members")}
}

// FollowWorldMembers calls fn with the members as they are and then once for each change.
func (c *Client) FollowWorldMembers(ctx context.Context, fn func(api.WorldMemberEvent) error) error {
	return follow(ctx, c.WorldMembers(), fn)
}

// WorldMachines are the machines that announced themselves, by name.
func (c *Client) WorldMachines() Live[[]api.WorldMachine] {
	return Live[[]api.WorldMachine]{c: c, path: worldPath("machines")}
}

// ForgetWorldMachine deletes what a machine that is down left behind.
func (c *Client) ForgetWorldMachine(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, worldPath("machines", name), nil, "")
}

// WorldExportsOptions say which exports are wanted; an empty field means any.
type WorldExportsOptions struct {
	Kinds          []string
	Name, From, To string
	All            bool // also those for other machines
}

// WorldExports are what is exported to the daemon's machine.
func (c *Client) WorldExports(o WorldExportsOptions) Live[[]api.WorldExport] {
	q := url.Values{}
	if len(o.Kinds) > 0 {
		q["kind"] = o.Kinds
	}
	for k, v := range map[string]string{"name": o.Name, "from": o.From, "to": o.To} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if o.All {
		q.Set("all", "true")
	}
	return Live[[]api.WorldExport]{c: c, path: worldPath("exports"), query: q}
}

// SetWorldExports exports resources of the daemon's machine; false: they were there already.
func (c *Client) SetWorldExports(ctx context.Context, post api.WorldExportsPost) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodPost, Path: worldPath("exports"), Body: post})
}

// DeleteWorldExport takes an export of the daemon's machine back; false: there was none.
func (c *Client) DeleteWorldExport(ctx context.Context, kind, name, to string) (bool, error) {
	q := url.Values{"kind": {kind}, "name": {name}, "to": {to}}
	return c.change(ctx, Request{Method: http.MethodDelete, Path: worldPath("exports"), Query: q})
}

// WorldDeploys are all deploys that were not pruned, oldest first.
func (c *Client) WorldDeploys() Live[[]api.WorldDeploy] {
	return Live[[]api.WorldDeploy]{c: c, path: worldPath("deploys")}
}

// WorldDeploy returns one deploy; id is a number or "latest".
func (c *Client) WorldDeploy(ctx context.Context, id string) (*api.WorldDeploy, error) {
	v, _, err := get[api.WorldDeploy](ctx, c, worldPath("deploys", id), nil)
	return &v, err
}

// WorldDeployPayload returns what a deploy deploys; id as in WorldDeploy.
func (c *Client) WorldDeployPayload(ctx context.Context, id string) ([]byte, error) {
	resp, err := c.Do(ctx, Request{Path: worldPath("deploys", id, "payload")})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, err := c.envelope(resp)
		return nil, err
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxJSON))
}

// AddWorldDeploy adds a deploy.
func (c *Client) AddWorldDeploy(ctx context.Context, post api.WorldDeploysPost) (*api.WorldDeploy, error) {
	env, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldPath("deploys"), Body: post})
	if err != nil {
		return nil, err
	}
	var d api.WorldDeploy
	return &d, decode(env.Metadata, &d)
}

// PruneWorldDeploys deletes all but the newest keep deploys and returns how many.
func (c *Client) PruneWorldDeploys(ctx context.Context, keep int) (int, error) {
	env, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: worldPath("deploys"), Query: url.Values{"keep": {fmt.Sprint(keep)}}})
	if err != nil {
		return 0, err
	}
	var v api.WorldPruned
	return v.Deleted, decode(env.Metadata, &v)
}

// WorldDeployStatus is how far each machine is with a deploy; id as in WorldDeploy.
func (c *Client) WorldDeployStatus(id string) Live[[]api.WorldDeployStatus] {
	return Live[[]api.WorldDeployStatus]{c: c, path: worldPath("deploys", id, "status")}
}

// SetWorldDeployStatus says how far the daemon's machine is with a deploy; false: it has said so already.
func (c *Client) SetWorldDeployStatus(ctx context.Context, id, state, reason string) (bool, error) {
	return c.change(ctx, Request{Method: http.MethodPut, Path: worldPath("deploys", id, "status"), Body: api.WorldDeployStatus{State: state, Reason: reason}})
}
