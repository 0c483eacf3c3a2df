package ssh

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/shoal-project/shoal/internal/errs"
)

// pin is a server's key that was given beforehand: one of the two.
type pin struct {
	sum string // SHA256:…
	key ssh.PublicKey
}

func parsePin(s string) (pin, error) {
	if sum, ok := strings.CutPrefix(s, "SHA256:"); ok {
		if raw, err := base64.RawStdEncoding.DecodeString(sum); err == nil && len(raw) == 32 {
			return pin{sum: s}, nil
		}
	} else if len(s) <= maxFile {
		if key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s)); err == nil && len(rest) == 0 {
			return pin{key: key}, nil
		}
	}
	return pin{}, errs.Invalid("host key %.80q: must be SHA256: and 43 letters, or a kind and a key as in a .pub file", s)
}

// hostKeys says which keys a hop may show: the check, and the algorithms to ask for (nil: any), so that a server with several keys shows
// one that is known.
func hostKeys(h Hop, files []string) (ssh.HostKeyCallback, []string, error) {
	if h.HostKey != "" {
		p, err := parsePin(h.HostKey)
		if err != nil {
			return nil, nil, err
		}
		var algorithms []string
		if p.key != nil {
			algorithms = algorithmsOf(p.key.Type())
		}
		return func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if p.key != nil && slices.Equal(p.key.Marshal(), key.Marshal()) || p.sum == ssh.FingerprintSHA256(key) {
				return nil
			}
			return errs.Forbidden("ssh server %s shows the key %s (%s), which is not the pinned one: it may be another machine", h.Addr, ssh.FingerprintSHA256(key), key.Type())
		}, algorithms, nil
	}
	var there []string
	for _, f := range files {
		st, err := os.Stat(f)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return nil, nil, errs.Invalid("read known hosts: %w", err)
		case st.Size() > maxFile:
			return nil, nil, errs.TooLarge("known hosts file %s has %d bytes, at most %d are read", f, st.Size(), maxFile)
		}
		there = append(there, f)
	}
	if len(there) == 0 {
		return nil, nil, errs.Forbidden("who ssh server %s is cannot be checked: there is no file %s; put the server's key there (ssh-keyscan shows it) or pin it", h.Addr, strings.Join(files, " or "))
	}
	known, err := knownhosts.New(there...)
	if err != nil {
		return nil, nil, errs.Invalid("read known hosts: %w", err)
	}
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		return explain(h, there, key, known(h.Addr, nowhere, key))
	}, knownAlgorithms(h, known), nil
}

// nowhere stands for the address of the connection: a name that is known vouches for the server, wherever it is reached.
var nowhere = &net.TCPAddr{IP: net.IPv4zero, Port: 1}

// explain says what it means that a key is not accepted.
func explain(h Hop, files []string, key ssh.PublicKey, err error) error {
	var wrong *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return errs.Forbidden("ssh server %s shows a key that is revoked (%s)", h.Addr, ssh.FingerprintSHA256(key))
	case errors.As(err, &wrong) && len(wrong.Want) == 0:
		return errs.Forbidden("ssh server %s is not known: its key is %s (%s); if that is right, add it to %s or pin it", h.Addr, ssh.FingerprintSHA256(key), key.Type(), files[0])
	case errors.As(err, &wrong):
		w := wrong.Want[0]
		return errs.Forbidden("ssh server %s shows the key %s (%s), but %s line %d has another: it may be another machine", h.Addr, ssh.FingerprintSHA256(key), key.Type(), w.Filename, w.Line)
	}
	return errs.Forbidden("ssh server %s: %w", h.Addr, err)
}

// knownAlgorithms asks what is known for a hop by showing a key that nobody has.
func knownAlgorithms(h Hop, known ssh.HostKeyCallback) []string {
	nobody, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public())
	if err != nil {
		return nil
	}
	var wrong *knownhosts.KeyError
	if !errors.As(known(h.Addr, nowhere, nobody), &wrong) {
		return nil
	}
	var out []string
	for _, k := range wrong.Want {
		for _, a := range algorithmsOf(k.Key.Type()) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// algorithmsOf returns what signs with a kind of key: RSA with SHA-2 only.
func algorithmsOf(kind string) []string {
	if kind == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{kind}
}
