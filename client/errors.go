package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"
)

// Error is an error that the server sent.
type Error struct {
	Status  int    // HTTP status: the class of the error
	Message string // for people
}

// Error returns the server's text.
func (e *Error) Error() string { return e.Message }

// StatusOf returns the HTTP status of the [*Error] in err's tree, 0 when there is none.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// IsNotFound reports whether the server said that an object does not exist.
func IsNotFound(err error) bool { return StatusOf(err) == http.StatusNotFound }

// IsConflict reports whether the server said that a name is taken or an object is busy or changed.
func IsConflict(err error) bool { return StatusOf(err) == http.StatusConflict }

// IsPrecondition reports whether the server said that an object changed since its ETag was read.
func IsPrecondition(err error) bool { return StatusOf(err) == http.StatusPreconditionFailed }

// IsUnavailable reports whether the server said that it, or a part of it, is not there for now.
func IsUnavailable(err error) bool { return StatusOf(err) == http.StatusServiceUnavailable }

// ConnectError says that the daemon cannot be reached, and what to do about it.
type ConnectError struct {
	Socket string // empty when the server is on the network
	URL    string // of a server on the network
	Err    error
}

// Unwrap returns the error of the dial.
func (e *ConnectError) Unwrap() error { return e.Err }

// Error names the socket and the next step.
func (e *ConnectError) Error() string {
	var changed *CertificateChangedError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(e.Err, &changed):
		return fmt.Sprintf("cannot trust %s: %v", e.URL, changed)
	case errors.As(e.Err, &unknown):
		return fmt.Sprintf("cannot trust %s: nobody known has signed its certificate, and it was not accepted by \"shoal remote add\"", e.URL)
	case e.URL != "" && errors.Is(e.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("cannot connect to %s: nobody listens there. Is core.https_address set on that server?", e.URL)
	case e.URL != "":
		return fmt.Sprintf("cannot connect to %s: %v", e.URL, e.Err)
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("cannot connect to %s: it does not exist. Is shoald running? Start it with \"systemctl start shoald\" or \"shoald\", or set SHOAL_DIR to its directory", e.Socket)
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("cannot connect to %s: nobody answers. shoald has ended; start it with \"systemctl start shoald\" or \"shoald\"", e.Socket)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("cannot connect to %s: permission denied. Run this as root, or as a member of the group that owns the socket (shoald --group)", e.Socket)
	}
	return fmt.Sprintf("cannot connect to %s: %v", e.Socket, e.Err)
}
