package etcd

import "crypto/tls"

// TLSForTest gives tests the settings for a client of their own.
func (c Config) TLSForTest() (*tls.Config, error) { return c.tls() }
