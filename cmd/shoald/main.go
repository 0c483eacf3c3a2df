// Command shoald is the Shoal daemon: it runs containers and virtual machines on this machine and serves the REST API.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/shoal-project/shoal/internal/daemon"
)

// version is set by the linker.
var version = "0.1-dev"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "etcd-debug" {
		return etcdDebug(args[1:])
	}
	fs := flag.NewFlagSet("shoald", flag.ContinueOnError)
	cfg := daemon.Config{Version: version}
	dir := os.Getenv("SHOAL_DIR")
	if dir == "" {
		dir = "/var/lib/shoal"
	}
	fs.StringVar(&cfg.Dir, "dir", dir, "state `directory`; also from SHOAL_DIR")
	fs.StringVar(&cfg.Group, "group", "", "`group` whose members may use the socket (default: \"shoal\" where it exists)")
	fs.StringVar(&cfg.LogFile, "log-file", "", "write the log to `file` instead of standard error")
	fs.StringVar(&cfg.KVStore, "kvstore", os.Getenv("SHOAL_KVSTORE"), "`database`: \"embedded\" (the default), or \"etcd.config=FILE\" for an etcd cluster that you run; also from SHOAL_KVSTORE")
	fs.BoolVar(&cfg.Debug, "debug", false, "log every request and step")
	show := fs.Bool("version", false, "print the version and exit")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "Usage: shoald [flags]\n       shoald etcd-debug [--format tree|json] FILE\n\nThe Shoal daemon: one per machine, run as root.\n\n")
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 0:
		fmt.Fprintf(os.Stderr, "shoald takes no arguments, only flags; got %q\n", fs.Arg(0))
		return 2
	case *show:
		fmt.Println(version)
		return 0
	}
	if err := daemon.Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, "shoald:", err)
		return 1
	}
	return 0
}

// etcdDebug checks a cluster without a daemon; "shoal admin etcd-debug" asks a running one.
func etcdDebug(args []string) int {
	fs := flag.NewFlagSet("shoald etcd-debug", flag.ContinueOnError)
	format := fs.String("format", "tree", "how to print what was found: tree or json")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "Usage: shoald etcd-debug [--format tree|json] FILE\n\nCheck, step by step, the etcd cluster that a configuration file names. Ends with 1 when there is a problem.\n\n"+
			"  shoald etcd-debug /etc/shoal/etcd.yaml\n\n")
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case fs.NArg() != 1 || *format != "tree" && *format != "json":
		fs.Usage()
		return 2
	}
	report := daemon.DebugDatabase(context.Background(), fs.Arg(0))
	if *format == "tree" {
		fmt.Print(report)
	} else if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, "shoald:", err)
		return 1
	}
	return min(report.Problems, 1)
}
