package network

// What tests of pure parts reach for.
var (
	Candidates = candidates
	PickIPv4   = pickIPv4
	PickIPv6   = pickIPv6
	WholeRange = wholeRange
	DNSName    = dnsName
	MaxStrays  = maxStrays
)
