package errs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Class is the kind of an error. The zero value is [Internal].
type Class int

// The classes. Each comment names the HTTP status that clients see.
const (
	Internal         Class = iota // 500: a bug or an unexpected host failure
	InvalidInput                  // 400: a bad name, key, value or body
	Denied                        // 403: the caller may not do this
	NotFoundClass                 // 404: the object does not exist (or the caller may not know that it does)
	ExistsClass                   // 409: the name is taken
	BusyClass                     // 409: the object is in use or another operation runs on it
	ConflictClass                 // 409: somebody changed the object since it was read; retry
	Precondition                  // 412: the ETag in If-Match is not the current one
	TooLargeClass                 // 413: a body, archive or object is over its limit
	NoSpaceClass                  // 507: the pool or disk is full; nothing was changed
	UnavailableClass              // 503: the database or a member is away, or the daemon starts or stops
	UnsupportedClass              // 501: this host, driver or build cannot do it
)

var classNames = [...]string{"internal", "invalid", "denied", "not-found", "exists", "busy", "conflict", "precondition", "too-large", "no-space", "unavailable", "unsupported"}

// String returns the class's stable machine name, the one that appears in logs and between members.
func (c Class) String() string {
	if c < 0 || int(c) >= len(classNames) {
		return "internal"
	}
	return classNames[c]
}

type classified struct {
	class Class
	err   error
}

func (e *classified) Error() string { return e.err.Error() }
func (e *classified) Unwrap() error { return e.err }

func newf(c Class, format string, a []any) error {
	return &classified{class: c, err: fmt.Errorf(format, a...)}
}

// Invalid reports bad input: say what was wrong and what is allowed.
func Invalid(format string, a ...any) error { return newf(InvalidInput, format, a) }

// Forbidden reports that the caller may not do this.
func Forbidden(format string, a ...any) error { return newf(Denied, format, a) }

// NotFound reports an object that does not exist.
func NotFound(format string, a ...any) error { return newf(NotFoundClass, format, a) }

// Exists reports a name that is taken.
func Exists(format string, a ...any) error { return newf(ExistsClass, format, a) }

// Busy reports an object that is in use or held by another operation.
func Busy(format string, a ...any) error { return newf(BusyClass, format, a) }

// Conflict reports that an object changed since it was read.
func Conflict(format string, a ...any) error { return newf(ConflictClass, format, a) }

// PreconditionFailed reports an If-Match header that does not match.
func PreconditionFailed(format string, a ...any) error { return newf(Precondition, format, a) }

// TooLarge reports input over a limit.
func TooLarge(format string, a ...any) error { return newf(TooLargeClass, format, a) }

// NoSpace reports a full disk or pool.
func NoSpace(format string, a ...any) error { return newf(NoSpaceClass, format, a) }

// Unavailable reports a part of the system that is away for now.
func Unavailable(format string, a ...any) error { return newf(UnavailableClass, format, a) }

// Unsupported reports what this host, driver or build cannot do.
func Unsupported(format string, a ...any) error { return newf(UnsupportedClass, format, a) }

// Classify gives err a class; nil stays nil. Use it where an error of a library enters the house.
func Classify(c Class, err error) error {
	if err == nil {
		return nil
	}
	return &classified{class: c, err: err}
}

// ClassOf returns the class of the outermost classified error in err's tree, [Internal] when there
// is none. An error with a method BadInput (api.NameError) counts as [InvalidInput], a cancelled or
// expired context as [UnavailableClass].
func ClassOf(err error) Class {
	var c *classified
	if errors.As(err, &c) {
		return c.class
	}
	var bad interface{ BadInput() }
	if errors.As(err, &bad) {
		return InvalidInput
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return UnavailableClass
	}
	return Internal
}

// Is reports whether err is of class c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }

// IsNotFound reports whether err says that an object does not exist.
func IsNotFound(err error) bool { return Is(err, NotFoundClass) }

// IsExists reports whether err says that a name is taken.
func IsExists(err error) bool { return Is(err, ExistsClass) }

// IsConflict reports whether err says that an object changed since it was read.
func IsConflict(err error) bool { return Is(err, ConflictClass) }

var httpStatus = map[Class]int{
	Internal: http.StatusInternalServerError, InvalidInput: http.StatusBadRequest, Denied: http.StatusForbidden,
	NotFoundClass: http.StatusNotFound, ExistsClass: http.StatusConflict, BusyClass: http.StatusConflict,
	ConflictClass: http.StatusConflict, Precondition: http.StatusPreconditionFailed,
	TooLargeClass: http.StatusRequestEntityTooLarge, NoSpaceClass: http.StatusInsufficientStorage,
	UnavailableClass: http.StatusServiceUnavailable, UnsupportedClass: http.StatusNotImplemented,
}

// HTTPStatus returns the HTTP status code for a class.
func HTTPStatus(c Class) int {
	if s, ok := httpStatus[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// FromHTTPStatus returns the class that a status code received from another daemon stands for.
func FromHTTPStatus(status int) Class {
	switch status {
	case http.StatusConflict:
		return ConflictClass
	case http.StatusUnauthorized:
		return Denied
	}
	for c, s := range httpStatus {
		if s == status {
			return c
		}
	}
	return Internal
}
