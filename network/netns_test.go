package network_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/network"
)

// need says what the tests with real packets want of the machine.
func need(t *testing.T) {
	t.Helper()
	testring.Need(t, 2, testring.Root, testring.Binary("busybox"), testring.Binary("nsenter"), testring.Binary("ip"), testring.Binary("nft"))
}

func logger() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stdout, nil))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// start returns a service with everything real, brought up; it is closed when the test ends.
func start(t *testing.T, db *state.DB) *network.Service {
	t.Helper()
	s, err := network.New(network.Deps{ID: "test", State: db, Clock: clock.Real{}, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func create(t *testing.T, s *network.Service, name string, config api.Config) {
	t.Helper()
	req := api.NetworksPost{Name: name, NetworkPut: api.NetworkPut{Config: config}}
	if err := s.Create(t.Context(), api.DefaultProject, req); err != nil {
		t.Fatal(err)
	}
}

// guest is a process in a network namespace of its own: all of an instance that a network sees.
func guest(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the parent that Pdeathsig watches is a thread
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// in runs a program in the network namespace of pid.
func in(t *testing.T, pid int, args ...string) string {
	t.Helper()
	out, err := tryIn(pid, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func tryIn(pid int, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"-t", fmt.Sprint(pid), "-n", "--"}, args...)...).CombinedOutput()
	return string(out), err
}

// inside runs f on a thread in the network namespace of pid; sockets that f opens stay there.
func inside(t *testing.T, pid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func nic(t *testing.T, net, instance, hw string, pid int) network.NIC {
	t.Helper()
	n, err := api.ParseNetworkName(net)
	if err != nil {
		t.Fatal(err)
	}
	i, err := api.ParseInstanceName(instance)
	if err != nil {
		t.Fatal(err)
	}
	d, _ := api.ParseDeviceName("eth0")
	return network.NIC{Project: api.DefaultProject, Instance: i, Device: d, Network: n, Name: "eth0", HWAddr: hw, PID: pid}
}

// attach plugs a NIC and returns the host end's name.
func attach(t *testing.T, s *network.Service, n network.NIC) string {
	t.Helper()
	host, err := s.Attach(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

const udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
[ -n "$router" ] && ip route add default via $router
echo "bound ip=$ip mask=$mask router=$router dns=$dns domain=$domain hostname=$hostname lease=$lease"
`

// lease brings up eth0 and asks for an address with busybox's client. It returns what the client's script was told.
func lease(t *testing.T, pid int, extra ...string) map[string]string {
	t.Helper()
	script := t.TempDir() + "/script"
	if err := os.WriteFile(script, []byte(udhcpcScript), 0o755); err != nil {
		t.Fatal(err)
	}
	in(t, pid, "ip", "link", "set", "eth0", "up")
	out := in(t, pid, append([]string{"busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "2", "-s", script}, extra...)...)
	got := map[string]string{}
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "bound "); ok {
			for _, kv := range strings.Fields(rest) {
				k, v, _ := strings.Cut(kv, "=")
				got[k] = v
			}
		}
	}
	if got["ip"] == "" {
		t.Fatalf("no lease:\n%s", out)
	}
	return got
}

// resolve asks the server from within the guest.
func resolve(t *testing.T, pid int, network, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	r, err := tryResolve(t, pid, network, server, name, qtype)
	if err != nil {
		t.Fatalf("resolve %s at %s: %v", name, server, err)
	}
	return r
}

func tryResolve(t *testing.T, pid int, network, server, name string, qtype uint16) (r *dns.Msg, err error) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	ask := func() {
		c := &dns.Client{Net: network, Timeout: 2 * time.Second}
		r, _, err = c.Exchange(q, net.JoinHostPort(server, "53"))
	}
	if pid == 0 {
		ask()
	} else {
		inside(t, pid, ask)
	}
	return r, err
}

// answers returns the addresses and names of an answer.
func answers(r *dns.Msg) (out []string) {
	for _, rr := range r.Answer {
		switch v := rr.(type) {
		case *dns.A:
			out = append(out, v.A.String())
		case *dns.AAAA:
			out = append(out, v.AAAA.String())
		case *dns.PTR:
			out = append(out, v.Ptr)
		}
	}
	return out
}

// eventually polls until f returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
