// Package events is the hub that tells listeners what happens: operation, lifecycle and logging events.
//
// Whoever changes something publishes ([Hub.Operation], [Hub.Lifecycle], the handler of
// [Hub.LogHandler]); rest subscribes for each events websocket. Publishing never blocks: each listener has
// a queue of [QueueLen] frames, and one that does not keep up is dropped, its channel closed and
// [Subscription.Err] set. A frame is encoded once, and only when somebody wants it.
//
// Order: a listener sees the events of one publisher in the order in which they were published. After a
// crash nothing is replayed; listeners connect again and read the objects.
package events
