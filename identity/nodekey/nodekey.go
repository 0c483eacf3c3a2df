// Package nodekey keeps the key that this machine signs with: what it adds to the World is known to come from it.
package nodekey

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// file holds the key: PKCS #8 in PEM.
const file = "node.key"

// Load returns the key of the state directory dir and makes one at the first call. The key is on disk when it returns; a file
// that is no ed25519 key is an error, never replaced: the others know this machine by its key.
func Load(dir string) (ed25519.PrivateKey, error) {
	root, err := fsroot.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	data, err := root.ReadFile(file)
	if err == nil {
		return parse(filepath.Join(dir, file), data)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the machine's key: %w", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := root.WriteAtomic(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("write the machine's key: %w", err)
	}
	return key, nil
}

func parse(path string, data []byte) (ed25519.PrivateKey, error) {
	if block, _ := pem.Decode(data); block != nil && block.Type == "PRIVATE KEY" {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, ok := k.(ed25519.PrivateKey); err == nil && ok {
			return key, nil
		}
	}
	return nil, errs.Invalid("%s is not the key of a machine; restore the file, or move it aside to get a new key", path)
}
