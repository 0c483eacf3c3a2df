// Package cli is the command line of Shoal: the verbs, flags, tables and messages that users of lxc 5.0 know, and
// "shoal admin" for the daemon itself.
//
// [Main] is the whole program: it builds the command tree (one file per noun), runs one command and
// returns the exit code. A command is a method of app that returns a cobra command; it parses its arguments, calls
// the methods of package client, and prints. What commands share:
//
//   - app.go: streams, connection, project; remote.go: "local:" prefixes;
//   - document.go: get, set, unset, show and edit for everything that has a configuration;
//   - table.go and output.go: -f table|compact|csv|json|yaml;
//   - wait.go: following operations, progress, Ctrl-C;
//   - complete.go: shell completion of names.
//
// Exit codes: 0 success, 1 error, 2 wrong usage, 130 ended by Ctrl-C; "exec" and "launch --console" pass on the code of
// what they ran. Errors go to standard error as "Error: …". Progress is shown on a terminal only.
//
// The start of the program is part of every command's time: no init work, no file is read before a command
// needs it.
package cli
