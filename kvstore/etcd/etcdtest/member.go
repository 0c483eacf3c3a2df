package etcdtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

const memberEnv = "SHOAL_TEST_ETCD_MEMBER"

// TLS names the files of a server that wants certificates of its clients.
type TLS struct {
	CA, Cert, Key string
}

// member is what a member has to know.
type member struct {
	Name, Dir, Client, Peer, Cluster string
	TLS                              *TLS
}

// Main runs a member when this process was started to be one, and returns otherwise.
func Main() {
	text := os.Getenv(memberEnv)
	if text == "" {
		return
	}
	var m member
	err := json.Unmarshal([]byte(text), &m)
	if err == nil {
		err = m.run()
	}
	fmt.Fprintln(os.Stderr, "member:", err)
	os.Exit(1)
}

func (m member) run() error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}()
	client, err := url.Parse(m.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(m.Peer)
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel, c.LogOutputs = m.Name, m.Dir, "error", []string{"/dev/null"}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = m.Cluster
	c.MaxTxnOps, c.TickMs, c.ElectionMs = 1024, 20, 200
	// A process that is killed leaves what it has written to the kernel, synced or not; only a machine that loses power does not.
	c.UnsafeNoFsync = true
	if m.TLS != nil {
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = m.TLS.Cert, m.TLS.Key
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = m.TLS.CA, true
		c.ClientTLSInfo.SkipClientSANVerify = true
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	fmt.Println("started")
	return <-e.Err()
}
