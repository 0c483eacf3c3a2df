package world

// Signer signs with the key of a machine or a user.
type Signer interface {
	// Key names the key that Sign uses; a Verifier knows it by this name.
	Key() string
	Sign(msg []byte) ([]byte, error)
}

// Verifier checks signatures.
type Verifier interface {
	// Verify returns nil for a good signature of a key that is trusted. The error says whether the key or the signature is not.
	Verify(key string, msg, sig []byte) error
}
