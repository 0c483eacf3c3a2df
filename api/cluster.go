package api

// Cluster says whether this server is part of a cluster.
type Cluster struct {
	ServerName   string                   `json:"server_name" yaml:"server_name"`
	Enabled      bool                     `json:"enabled" yaml:"enabled"`
	MemberConfig []ClusterMemberConfigKey `json:"member_config" yaml:"member_config"`
}

// ClusterMemberConfigKey is a key that a machine has to set when it joins.
type ClusterMemberConfigKey struct {
	Entity      string `json:"entity" yaml:"entity"` // storage-pool or network
	Name        string `json:"name" yaml:"name"`
	Key         string `json:"key" yaml:"key"`
	Value       string `json:"value" yaml:"value"`
	Description string `json:"description" yaml:"description"`
}
