// Package errs gives every error of Shoal a class.
//
// A class says what kind of thing went wrong (something was not found, a name was bad, the
// database is away), not where. Code decides by class ([Is…] functions or [ClassOf]), never by
// the text of an error. One table ([HTTPStatus]) maps classes to HTTP status codes, the ones that
// LXD and Incus clients know.
//
// Make an error where the fact is known, with the constructor of its class, and wrap it on the way
// up with fmt.Errorf("…: %w"): the class survives. Texts are lower case, say what was being done
// and name the value that was wrong and what is allowed.
package errs
