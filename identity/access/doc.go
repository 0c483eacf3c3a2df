// Package access decides who may do what: it knows the kinds of callers, the classes of requests, and nothing of HTTP.
//
// [Decide] is the only gate. Whoever serves a request says of which [Class] it is and which projects it touches; a request of a class
// that nobody declared is for full administrators only, so something new is closed until somebody has thought about it.
//
// A restricted caller gets the same answer for what is hidden from it and for what does not exist: the decision is made on names,
// before anything is looked up.
package access
