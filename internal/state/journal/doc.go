// Package journal makes an operation with several effects on this machine survive kill -9.
//
// An operation is a list of named steps. Each step has an effect (Do) and, where there is something to take back,
// an Undo. The journal writes down, with fsync, that the operation begins before its first effect and that a step begins
// before that step's effect. Whatever line is the last one, the next start knows how far the operation came: [Journal.Recover] undoes
// it ([UndoOnCrash]: creations) or finishes it ([FinishOnCrash]: deletions). The journal lives in files of this node and
// needs no database, so it works without quorum.
//
// # Example
//
// A kind is registered once. Its steps are a function of the arguments alone, so that the process that recovers
// builds the same list as the one that died. Decide names, ids and addresses first and put them into the arguments.
//
//	type createArgs struct{ Project, Name, UUID string }
//
//	j, err := journal.Open(filepath.Join(stateDir, "journal"), journal.Options{Log: log})
//	j.Register(journal.NewKind("instance-create", journal.UndoOnCrash, func(a createArgs) []journal.Step {
//		return []journal.Step{
//			{Name: "image", Do: func(ctx context.Context) error { return images.Hold(ctx, …) },
//				Undo: func(ctx context.Context) error { return images.Release(ctx, …) }},
//			{Name: "root", Do: …, Undo: …},
//			{Name: "record", Do: …, Undo: …},
//		}
//	}))
//	err = j.Recover(ctx) // once, when all kinds are registered and their services run
//
//	err = j.Run(ctx, journal.Entry{Kind: "instance-create", Subject: "instance/default/c1", Args: createArgs{…}})
//
// # What steps must keep to
//
//   - Do is idempotent: after a crash it may run again although it was through.
//   - Do that returns an error has left nothing behind: its own Undo is not called, those of the earlier steps are.
//   - Undo is idempotent, succeeds when there is nothing to undo, and takes away only what this operation made (compare an id from
//     the arguments): it is also called for a step that a crash interrupted before its effect.
//
// # Subjects
//
// Entries with the same Subject exclude each other: while one runs, a second is refused with class Busy. An entry that
// could not be settled (an Undo failed, a deletion was stopped by an error) stays in the journal and is settled before the next
// one of its subject begins. So nothing half-made is in the way of a second try, and an old deletion cannot hit a new object.
package journal
