package api

// Extensions returns the names of the API extensions that this build serves, as GET /1.0 lists them.
func Extensions() []string {
	names := make([]string, 0, len(extensions))
	for _, e := range extensions {
		names = append(names, e.name)
	}
	return names
}

// ExtensionProofs maps each extension to the test that shows it: a directory of this repository, a space and a function.
func ExtensionProofs() map[string]string {
	proofs := make(map[string]string, len(extensions))
	for _, e := range extensions {
		proofs[e.name] = e.proof
	}
	return proofs
}

// extensions are what works, each with its proof. A test keeps that the proof exists.
var extensions = []struct{ name, proof string }{
	{"etag", "internal/rest TestETag"},
	{"patch", "internal/rest TestPatchKeepsWhatItDoesNotName"},
	{"instances", "internal/rest TestInstanceLifeOverHTTP"},
	{"container_full", "internal/rest TestInstanceLifeOverHTTP"},
	{"instance_get_full", "internal/rest TestInstanceLifeOverHTTP"},
	{"instance_all_projects", "internal/rest TestInstanceListsFilterAndSpanProjects"},
	{"instance_bulk_state_change", "internal/rest TestInstanceLifeOverHTTP"},
	{"api_filtering", "internal/rest TestInstanceListsFilterAndSpanProjects"},
	{"container_last_used_at", "internal/rest TestInstanceLifeOverHTTP"},
	{"container_cpu_time", "internal/rest TestInstanceLifeOverHTTP"},
	{"container_image_properties", "instance TestLife"},
	{"container_exec_signal_handling", "internal/rest TestExecOverHTTP"},
	{"container_exec_user_group_cwd", "internal/rest TestExecOverHTTP"},
	{"container_only_migration", "instance TestCopy"},
	{"snapshot_scheduling", "instance TestSnapshotScheduleAndExpiry"},
	{"snapshot_schedule_aliases", "instance/config TestSchedule"},
	{"instance_snapshot_never", "instance/config TestSchedule"},
	{"snapshot_expiry", "instance TestSnapshotScheduleAndExpiry"},
	{"snapshot_expiry_creation", "internal/rest TestSnapshotsOverHTTP"},
	{"console", "internal/rest TestConsoleOverHTTP"},
	{"directory_manipulation", "internal/rest TestFilesOverHTTP"},
	{"file_delete", "internal/rest TestFilesOverHTTP"},
	{"file_append", "internal/rest TestFilesOverHTTP"},
	{"file_symlinks", "internal/rest TestFilesOverHTTP"},
	{"file_get_symlink", "internal/rest TestFilesOverHTTP"},
	{"instance_file_head", "internal/rest TestFilesOverHTTP"},
	{"entity_description", "internal/rest TestPatchKeepsWhatItDoesNotName"},
	{"profile_usedby", "internal/rest TestProfilesOverHTTP"},
	{"projects", "internal/rest TestPatchKeepsWhatItDoesNotName"},
	{"project_usage", "internal/rest TestProjectsOverHTTP"},
	{"projects_limits", "identity/project TestRacingCreatesDoNotExceedALimit"},
	{"projects_limits_disk", "identity/policy TestLimits"},
	{"projects_limits_instances", "identity/policy TestLimits"},
	{"projects_restrictions", "instance TestEveryRestrictionHoldsOnEveryWayIn"},
	{"projects_restricted_backups_and_snapshots", "instance TestSnapshotsAskTheGate"},
	{"projects_restricted_intercept", "identity/policy TestRestrictions"},
	{"projects_networks_restricted_access", "internal/rest TestProjectsOverHTTP"},
	{"network", "internal/rest TestNetworksOverHTTP"},
	{"network_state", "internal/rest TestNetworksOverHTTP"},
	{"network_leases", "internal/rest TestNetworksOverHTTP"},
	{"network_leases_location", "internal/rest TestNetworksOverHTTP"},
	{"instance_nic_network", "instance TestLife"},
	{"storage", "internal/rest TestStorageOverHTTP"},
	{"resources", "internal/rest TestStorageOverHTTP"},
	{"resources_v2", "monitor/resources TestRead"},
	{"resources_cpu_socket", "monitor/resources TestRead"},
	{"resources_gpu", "monitor/resources TestRead"},
	{"resources_numa", "monitor/resources TestRead"},
	{"resources_usb_pci", "monitor/resources TestRead"},
	{"resources_cpu_threads_numa", "monitor/resources TestRead"},
	{"resources_cpu_core_die", "monitor/resources TestRead"},
	{"resources_pci_iommu", "monitor/resources TestRead"},
	{"server_supported_storage_drivers", "internal/daemon TestDaemon"},
	{"server_instance_driver_operational", "internal/daemon TestDaemon"},
	{"firewall_driver", "internal/daemon TestDaemon"},
	{"kernel_features", "internal/daemon TestDaemon"},
	{"api_os", "internal/daemon TestDaemon"},
	{"compression_squashfs", "image TestForms"},
	{"operation_description", "internal/rest TestAListenerHearsTheFinalEventOfItsOperation"},
	{"event_lifecycle", "internal/rest TestLifecycleEventsNameTheCallerOfTheSocket"},
	{"event_lifecycle_requestor_address", "internal/rest TestLifecycleEventsNameTheCallerOfTheSocket"},
	{"event_location", "internal/rest TestAListenerHearsTheFinalEventOfItsOperation"},
	{"event_project", "internal/rest TestAListenerHearsTheFinalEventOfItsOperation"},
	{"certificate_update", "internal/rest TestCertificatesOverHTTP"},
	{"certificate_project", "internal/rest TestARestrictedCallerSeesItsProjectsOnly"},
	{"certificate_self_renewal", "internal/rest TestNobodyPromotesThemselves"},
	{"certificate_token", "internal/rest TestTokens"},
	{"remote_token_expiry", "identity/trust TestTokensExpire"},
	{"warnings", "internal/rest TestWarningsOverHTTP"},
}
