// Package policy decides whether a project may hold what somebody wants to put into it: its limits (limits.*) and its
// restrictions (restricted.*).
//
// [Check] is the one gate for every way in: create, update, patch, copy, restore, import, a change of a profile, of a volume, of a
// network or of the project itself. It is a pure function over the project's configuration and its contents before and after, and it
// looks at the effective configuration: what profiles and defaults make of what was sent. Whoever writes does not call it but
// project.Service.Gate, which knows the contents and makes the decision part of the transaction that writes, so that two requests that
// fit one by one but not together cannot both win.
//
// [Keys] is the table of a project's configuration keys. Which key of an instance falls under which restriction is said by [Governs]
// alone; the tables of the rooms above take it from there for their documentation.
package policy
