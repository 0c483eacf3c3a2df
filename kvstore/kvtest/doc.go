// Package kvtest is the suite that every kvstore backend passes, and a wrapper that makes one fail.
package kvtest
