package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
)

// serverSummary prints what a person wants to know of a server: what it is, what it can run, and with what.
func (a *app) serverSummary(s *api.Server) {
	e := s.Environment
	line := func(name, format string, args ...any) { a.printf("%-12s %s\n", name+":", fmt.Sprintf(format, args...)) }
	line("Server", "%s %s on %s, process %d", e.Server, e.ServerVersion, e.ServerName, e.ServerPid)
	line("Host", "%s %s, %s %s, %s", e.OSName, e.OSVersion, e.Kernel, e.KernelVersion, e.KernelArchitecture)
	cluster := "not part of one"
	if e.ServerClustered {
		cluster = "member"
	}
	line("Cluster", "%s", cluster)
	listens := "unix socket only"
	if len(e.Addresses) > 0 {
		listens = strings.Join(e.Addresses, ", ")
	}
	line("Listens on", "%s", listens)
	line("Instances", "%s; architectures %s", cmp.Or(e.DriverVersion, e.Driver, "no driver"), strings.Join(e.Architectures, ", "))
	var drivers []string
	for _, d := range e.StorageDrivers {
		drivers = append(drivers, d.Name+" "+d.Version)
	}
	line("Storage", "%s; in use: %s", strings.Join(drivers, ", "), cmp.Or(e.Storage, "none yet (shoal admin init)"))
	if d := e.Database; d != nil {
		line("Database", "%s", databaseWords(*d))
	}
	line("Firewall", "%s", cmp.Or(e.Firewall, "none"))
	line("API", "%s (%s), %d extensions", s.APIVersion, s.APIStatus, len(s.APIExtensions))
	a.pairs("Found on the host", e.KernelFeatures)
	config := map[string]string{}
	for k, v := range s.Config {
		config[k] = fmt.Sprint(v)
	}
	a.pairs("Configuration", config)
	a.printf("\nEverything: shoal info --format yaml; hardware: shoal info --resources\n")
}

// databaseWords says where the database is, and how when it is not well.
func databaseWords(d api.ServerDatabase) string {
	words := d.Type
	if len(d.Endpoints) > 0 {
		words += " at " + strings.Join(d.Endpoints, ", ")
	}
	words += ", " + d.State
	if d.Message != "" {
		words += ": " + d.Message
	}
	if d.State != "healthy" {
		words += " (shoal admin etcd-debug)"
	}
	return words
}

// pairs prints sorted keys with their values, nothing when there are none.
func (a *app) pairs(title string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	a.printf("\n%s:\n", title)
	width := 0
	for k := range m {
		width = max(width, len(k))
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		a.printf("  %-*s  %s\n", width, k, m[k])
	}
}
