package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-project/shoal/api"
)

// fake is a server with fixed objects that writes down what it is asked to change. What the real one answers
// is proved in test/compat; here it stands for states that are hard to bring about.
type fake struct {
	socket string
	mu     sync.Mutex
	asked  []string // "PUT /1.0/instances/c1 {…}"
	ops    map[string]api.Operation
}

var when = time.Date(2026, 11, 20, 9, 56, 23, 123456000, time.UTC)

const print1 = "5f1c0b7e3d2a4968b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4"

func fixtures() map[string]any {
	root := api.Devices{"root": {"type": "disk", "path": "/", "pool": "default"}, "eth0": {"type": "nic", "name": "eth0", "network": "br0"}}
	c1 := api.InstanceFull{Instance: api.Instance{
		InstancePut: api.InstancePut{Architecture: "x86_64", Config: api.Config{"volatile.base_image": print1, "user.note": "a b", "limits.memory": "512MiB"}, Devices: api.Devices{},
			Profiles: []string{"default", "web"}, Description: "first: one"},
		CreatedAt: when, LastUsedAt: when.Add(time.Hour), Name: "c1", Status: "Running", StatusCode: api.Running, Location: "none", Type: "container", Project: "default",
		ExpandedConfig: api.Config{"volatile.base_image": print1, "user.note": "a b", "limits.memory": "512MiB", "image.os": "Debian"}, ExpandedDevices: root,
	}, Snapshots: []api.InstanceSnapshot{{Name: "s1", CreatedAt: when, Stateful: false}}, State: &api.InstanceState{
		Status: "Running", StatusCode: api.Running, Pid: 4711, Processes: 12, CPU: api.InstanceStateCPU{Usage: 12_345_678_901},
		Disk:   map[string]api.InstanceStateDisk{"root": {Usage: 123456789}},
		Memory: api.InstanceStateMemory{Usage: 54321000, UsagePeak: 64321000},
		Network: map[string]api.InstanceStateNetwork{
			"lo": {Type: "loopback", State: "up", Mtu: 65536, Addresses: []api.InstanceStateNetworkAddress{{Family: "inet", Address: "127.0.0.1", Netmask: "8", Scope: "local"}}},
			"eth0": {Type: "broadcast", State: "up", Mtu: 1500, Hwaddr: "00:16:3e:01:02:03", HostName: "veth1", Counters: api.NetworkCounters{BytesReceived: 123456, BytesSent: 999, PacketsReceived: 7, PacketsSent: 8},
				Addresses: []api.InstanceStateNetworkAddress{{Family: "inet", Address: "10.0.0.7", Netmask: "24", Scope: "global"}, {Family: "inet", Address: "10.0.0.8", Netmask: "24", Scope: "global"},
					{Family: "inet6", Address: "fd00::7", Netmask: "64", Scope: "global"}, {Family: "inet6", Address: "fe80::1", Netmask: "64", Scope: "link"}}},
		},
	}}
	c2 := api.InstanceFull{Instance: api.Instance{
		InstancePut: api.InstancePut{Architecture: "x86_64", Config: api.Config{}, Devices: api.Devices{"data": {"type": "disk", "source": "/srv", "path": "/data"}}, Ephemeral: true, Profiles: []string{"default"}},
		CreatedAt:   when, Name: "c2", Status: "Stopped", StatusCode: api.Stopped, Location: "none", Type: "container", Project: "default",
		ExpandedConfig: api.Config{}, ExpandedDevices: root,
	}, State: &api.InstanceState{Status: "Stopped", StatusCode: api.Stopped}}
	image := api.Image{ImagePut: api.ImagePut{Properties: map[string]string{"description": "Debian 12", "os": "Debian"}, Profiles: []string{"default"}},
		Aliases: []api.ImageAlias{{Name: "debian/12", Description: "newest"}, {Name: "deb"}}, Architecture: "x86_64", Filename: "rootfs.squashfs", Fingerprint: print1, Size: 123456789, Type: "container",
		CreatedAt: when, UploadedAt: when}
	alias := func(n string) api.ImageAliasesEntry {
		return api.ImageAliasesEntry{ImageAliasesEntryPut: api.ImageAliasesEntryPut{Target: print1}, Name: n, Type: "container"}
	}
	profile := api.Profile{ProfilePut: api.ProfilePut{Config: api.Config{"user.a": "1"}, Description: "Default LXD profile", Devices: root}, Name: "default", UsedBy: []string{"/1.0/instances/c2", "/1.0/instances/c1"}}
	pool := api.StoragePool{StoragePoolPut: api.StoragePoolPut{Config: api.Config{"source": "/var/pool"}}, Name: "default", Driver: "dir", UsedBy: []string{"/1.0/profiles/default", "/1.0/instances/c1"}, Status: "Created", Locations: []string{"none"}}
	network := api.Network{NetworkPut: api.NetworkPut{Config: api.Config{"ipv4.address": "10.0.0.1/24", "ipv6.address": "none"}}, Name: "br0", Type: "bridge", UsedBy: []string{"/1.0/profiles/default"}, Managed: true, Status: "Created", Locations: []string{"none"}}
	eth := api.Network{NetworkPut: api.NetworkPut{Config: api.Config{}}, Name: "enp1s0", Type: "physical", UsedBy: []string{}}
	project := api.Project{ProjectPut: api.ProjectPut{Config: api.Config{"features.images": "true", "features.profiles": "true"}, Description: "Default LXD project"}, Name: "default", UsedBy: []string{}}
	op := api.Operation{ID: "0fa1", Class: "task", Description: "Starting instance", CreatedAt: when, UpdatedAt: when, Status: "Running", StatusCode: api.Running,
		Resources: map[string][]string{"instances": {"/1.0/instances/c1"}}, Location: "none"}
	warning := api.Warning{UUID: "77aa", Location: "none", Type: "Time skew", Count: 3, FirstSeenAt: when, LastSeenAt: when, LastMessage: "m", Severity: "low", Status: "new"}
	extensions := strings.Fields(`instances container_full instance_get_full api_filtering instance_all_projects storage storage_volumes resources network network_state network_leases
		projects console directory_manipulation file_symlinks file_append file_delete operation_description warnings etag container_exec_user_group_cwd container_exec_recording image_create_aliases
		image_types clustering storage_api_volume_snapshots event_lifecycle instance_bulk_state_change container_only_migration instance_nic_network storage_volumes_all_projects`)
	vol := api.StorageVolume{Config: api.Config{"size": "1GiB"}, Name: "data", Type: "custom", UsedBy: []string{"/1.0/instances/c1"}, Location: "none", ContentType: "filesystem", Project: "default", CreatedAt: when}
	return map[string]any{
		"/1.0": api.Server{ServerPut: api.ServerPut{Config: map[string]any{"core.debug": "1"}}, APIExtensions: extensions, APIStatus: "stable", APIVersion: "1.0", Auth: "trusted", AuthMethods: []string{"tls"},
			Environment: api.ServerEnvironment{Addresses: []string{}, Architectures: []string{"x86_64"}, Server: "shoal", ServerVersion: "0.1", ServerName: "vm", Project: "default",
				KernelFeatures: map[string]string{"idmapped_mounts": "true"}, LXCFeatures: map[string]string{}, StorageDrivers: []api.ServerStorageDriver{{Name: "dir", Version: "1"}}}},
		"/1.0/instances":                                 []api.InstanceFull{c1, c2},
		"/1.0/instances/c1":                              c1,
		"/1.0/instances/c2":                              c2,
		"/1.0/instances/c1/state":                        c1.State,
		"/1.0/images":                                    []api.Image{image},
		"/1.0/images/" + print1:                          image,
		"/1.0/images/aliases":                            []api.ImageAliasesEntry{alias("debian/12"), alias("deb")},
		"/1.0/images/aliases/deb":                        alias("deb"),
		"/1.0/profiles":                                  []api.Profile{profile},
		"/1.0/profiles/default":                          profile,
		"/1.0/storage-pools":                             []api.StoragePool{pool},
		"/1.0/storage-pools/default":                     pool,
		"/1.0/storage-pools/default/resources":           api.ResourcesStoragePool{Space: api.ResourcesUsage{Used: 12345678901, Total: 98765432101}},
		"/1.0/storage-pools/default/volumes":             []api.StorageVolume{vol},
		"/1.0/storage-pools/default/volumes/custom/data": vol,
		"/1.0/networks":                                  []api.Network{network, eth},
		"/1.0/networks/br0":                              network,
		"/1.0/networks/br0/state": api.NetworkState{Hwaddr: "00:16:3e:aa:bb:cc", Mtu: 1500, State: "up", Type: "broadcast", Addresses: []api.NetworkStateAddress{{Family: "inet", Address: "10.0.0.1", Netmask: "24", Scope: "global"}},
			Counters: api.NetworkCounters{BytesReceived: 123456, BytesSent: 999, PacketsReceived: 7, PacketsSent: 8}, Bridge: &api.NetworkStateBridge{ID: "8000.0016", ForwardDelay: 1500, UpperDevices: []string{"veth1"}}},
		"/1.0/networks/br0/leases":       []api.NetworkLease{{Hostname: "c1", Hwaddr: "00:16:3e:01:02:03", Address: "10.0.0.7", Type: "dynamic", Location: "none"}},
		"/1.0/projects":                  []api.Project{project},
		"/1.0/projects/default":          project,
		"/1.0/operations":                map[string][]api.Operation{"running": {op}},
		"/1.0/operations/0fa1":           op,
		"/1.0/warnings":                  []api.Warning{warning},
		"/1.0/instances/c1/logs/lxc.log": nil,
	}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{socket: filepath.Join(t.TempDir(), "unix.socket"), ops: map[string]api.Operation{}}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: f, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return f
}

func (f *fake) reply(w http.ResponseWriter, code int, env api.Response) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(env)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == "/1.0/events":
		f.events(w, r)
	case r.Method == http.MethodGet && path == "/1.0/instances/c1/logs/lxc.log":
		_, _ = io.WriteString(w, "line 1\nline 2\n")
	case r.Method == http.MethodGet && path == "/1.0/instances/c1/console":
		_, _ = io.WriteString(w, "booting\nlogin: ")
	case strings.HasSuffix(path, "/files"):
		f.file(w, r)
	case r.Method == http.MethodGet && strings.HasPrefix(path, "/1.0/operations/op-"):
		f.mu.Lock()
		op := f.ops[strings.Split(path, "/")[3]]
		f.mu.Unlock()
		meta, _ := json.Marshal(op)
		f.reply(w, 200, api.Response{Type: "sync", StatusCode: 200, Status: "Success", Metadata: meta})
	case path == "/internal/database":
		f.database(w, r)
	case r.Method == http.MethodGet:
		v, ok := fixtures()[path]
		if !ok {
			f.reply(w, 404, api.Response{Type: "error", ErrorCode: 404, Error: "not found"})
			return
		}
		meta, _ := json.Marshal(v)
		w.Header().Set("ETag", "e1")
		f.reply(w, 200, api.Response{Type: "sync", StatusCode: 200, Status: "Success", Metadata: meta})
	default:
		f.change(w, r)
	}
}

// change writes a request down; those about instances and images become operations.
func (f *fake) change(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+strings.TrimSpace(string(body))))
	id := fmt.Sprintf("op-%d", len(f.asked))
	op := api.Operation{ID: id, Class: "task", Status: "Success", StatusCode: api.Success, Resources: map[string][]string{"instances": {"/1.0/instances/happy-otter"}}}
	if strings.Contains(r.URL.Path, "/broken") {
		op.Status, op.StatusCode, op.Err = "Failure", api.Failure, "it is broken"
	}
	f.ops[id] = op
	f.mu.Unlock()
	if strings.HasPrefix(r.URL.Path, "/1.0/instances") || (r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/1.0/images/") && !strings.Contains(r.URL.Path, "aliases")) {
		meta, _ := json.Marshal(op)
		w.Header().Set("Location", "/1.0/operations/"+id)
		f.reply(w, 202, api.Response{Type: "async", Status: "Operation created", StatusCode: 100, Operation: "/1.0/operations/" + id, Metadata: meta})
		return
	}
	f.reply(w, 200, api.Response{Type: "sync", StatusCode: 200, Status: "Success", Metadata: json.RawMessage("{}")})
}

// database has nothing to complain of in the daemon's own database, and of any file it complains.
func (f *fake) database(w http.ResponseWriter, r *http.Request) {
	report := api.DatabaseReport{Database: "embedded", Checks: []api.DatabaseCheck{{Name: "member", Status: api.CheckOK, Text: "n1"}}}
	if r.Method == http.MethodPost {
		var post api.DatabaseDebugPost
		if err := json.NewDecoder(r.Body).Decode(&post); err != nil || !filepath.IsAbs(post.Config) {
			f.reply(w, 400, api.Response{Type: "error", ErrorCode: 400, Error: "no absolute path: " + post.Config})
			return
		}
		report = api.DatabaseReport{Database: "etcd", Problems: 1, Checks: []api.DatabaseCheck{{Name: "e", Status: api.CheckInfo, Checks: []api.DatabaseCheck{
			{Name: "connection", Status: api.CheckError, Text: "refused", Hint: "start it"}}}}}
	}
	meta, _ := json.Marshal(report)
	f.reply(w, 200, api.Response{Type: "sync", StatusCode: 200, Status: "Success", Metadata: meta})
}

// file serves /etc/hosts, the directory /srv with one file and one link, and takes writes.
func (f *fake) file(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost || r.Method == http.MethodDelete {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.asked = append(f.asked, fmt.Sprintf("%s %s type=%s mode=%s %s", r.Method, "/"+strings.TrimPrefix(r.URL.Query().Get("path"), "/"), r.Header.Get("X-LXD-type"), r.Header.Get("X-LXD-mode"), body))
		f.mu.Unlock()
		f.reply(w, 200, api.Response{Type: "sync", StatusCode: 200, Status: "Success", Metadata: json.RawMessage("{}")})
		return
	}
	kind, body := "", ""
	switch "/" + strings.Trim(r.URL.Query().Get("path"), "/") {
	case "/etc/hosts", "/srv/a":
		kind, body = "file", "127.0.0.1 localhost\n"
	case "/srv/link":
		kind, body = "symlink", "/etc/passwd"
	case "/srv":
		kind, body = "directory", `{"type":"sync","status_code":200,"metadata":["a","link"]}`
	case "/evil":
		kind, body = "directory", `{"type":"sync","status_code":200,"metadata":["../../escaped"]}`
	default:
		f.reply(w, 404, api.Response{Type: "error", ErrorCode: 404, Error: "Not Found"})
		return
	}
	w.Header().Set("X-LXD-type", kind)
	w.Header().Set("X-LXD-mode", "0640")
	w.Header().Set("X-LXD-uid", "0")
	w.Header().Set("X-LXD-gid", "0")
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, body)
	}
}

// events sends the final state of every operation that there is, and two others, until the listener goes.
func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ctx := ws.CloseRead(r.Context())
	send := func(kind string, v any) bool {
		meta, _ := json.Marshal(v)
		data, _ := json.Marshal(api.Event{Type: kind, Timestamp: when, Metadata: meta, Location: "none", Project: "default"})
		return ws.Write(ctx, websocket.MessageText, data) == nil
	}
	send("lifecycle", api.EventLifecycle{Action: "instance-started", Source: "/1.0/instances/c1", Requestor: &api.EventRequestor{Username: "root", Protocol: "unix"}})
	send("logging", api.EventLogging{Message: "hello", Level: "info", Context: map[string]string{"k": "v"}})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	sent := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		n := len(f.asked)
		var ops []api.Operation
		for i := sent; i < n; i++ {
			ops = append(ops, f.ops[fmt.Sprintf("op-%d", i+1)])
		}
		sent = n
		f.mu.Unlock()
		for _, op := range ops {
			if op.ID != "" && !send("operation", op) {
				return
			}
		}
	}
}

func (f *fake) requests() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "\n")
}
