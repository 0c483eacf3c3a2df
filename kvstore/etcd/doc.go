// Package etcd is the kvstore backend over an etcd client: of the member in this process (elastic) or of a cluster elsewhere.
//
//	member, err := elastic.Start(ctx, elastic.Config{…})
//	kv := kvstore.New(etcd.New(member.Client()), kvstore.Config{Log: log})
//
// or, of a cluster that somebody else runs, named in a file (certificates that are renewed are read again at the next connection):
//
//	cfg, err := etcd.LoadConfig(file)
//	backend, err := etcd.Dial(cfg, log)
//
// It translates types and errors and adds nothing. The in-process client has no interceptors and no message size limit, shares
// memory with the server (values are read-only) and dies with it; Maintenance.Defragment panics on it and is not used here.
package etcd
