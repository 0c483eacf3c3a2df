// Package schema describes configuration keys: what they are called, which values they take, what holds when
// they are not set, whether a change takes effect at once, and what they are for.
//
// A room that has configuration declares a [Table] of its keys and everything else follows from it: validation of what
// clients send, defaults, the difference between two configurations, the generated reference, completion. The tables stand in
// the rooms that own the keys (instance, network, storage, …), here is only the machinery.
//
//	func ConfigKeys() *schema.Table {
//		return schema.New("",
//			schema.Key{Name: "limits.memory", Type: schema.SizeOrPercent(), Live: true, Doc: "memory limit"},
//			schema.Key{Name: "security.nesting", Type: schema.Bool(), Default: "false", Restricted: "containers.nesting"},
//			schema.Key{Name: "user.*", Type: schema.Text(1 << 20), Doc: "free for users"},
//		)
//	}
//
// An empty value means "not set" for every key, as it does for LXD. Tables do not change after [New] and are safe for
// concurrent use.
package schema
