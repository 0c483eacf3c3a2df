package elastic

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger returns a zap logger that writes to l. Of equal messages five a second pass, then each ten-thousandth: etcd
// has loops that log. What it calls fatal panics, with a stack trace, instead of exiting without one.
func zapLogger(l *slog.Logger) *zap.Logger {
	c := zapcore.NewSamplerWithOptions(&core{h: l.Handler()}, time.Second, 5, 10000)
	return zap.New(c, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type core struct{ h slog.Handler }

// level maps etcd's levels one lower: its Info is chatter of a library, debug to us, and its Debug, a line for every page
// it writes, is for those who work on etcd.
func level(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug - 4
	case l == zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func (c *core) Enabled(l zapcore.Level) bool { return c.h.Enabled(context.Background(), level(l)) }

func (c *core) With(f []zapcore.Field) zapcore.Core { return &core{h: c.h.WithAttrs(attrs(f))} }

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// harmless are lines of etcd above info that a healthy member writes, each with why it says nothing to a user. They
// become debug lines. err is part of the line's error, to let the same words pass when they have another reason.
var harmless = []struct{ message, err string }{
	// The first start: the storage version is derived from the term, which is recorded with the first snapshot of the
	// backend; the monitor that writes it tries again.
	{"Failed to detect schema version", "missing term information"},
	{"failed to update storage version", "missing term information"},
	// One port for everything is how this daemon is built, and that port is a pipe inside this process.
	{"Running http and grpc server on single port. This is not recommended for production.", ""},
	// Connections between members end whenever one of them stops; that a machine does not answer is said by the leader, once.
	{"lost TCP streaming connection with remote peer", ""},
	{"closed TCP streaming connection with remote peer", ""},
	{"peer became inactive (message send to peer failed)", ""},
	{"rejecting member add request; local member has not been connected to majority peers, reconfigure breaks active quorum", ""},
	{"rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum", ""},
	{"failed to process Raft message", "raft: stopped"},
	{"failed to find remote peer in cluster", ""},
	// A start in which the election timeout, 0.1 s, comes before the log is read; the next one is soon.
	{"since there are still pending configuration changes to apply", ""},
	{"prober detected unhealthy status", ""},
	{"prober found high clock drift", ""},
	{"failed to reach the peer URL", ""},
	{"failed to get version", ""},
	// Tokens are for etcd's own users, which are not enabled: a client is who its certificate says.
	{"simple token is not cryptographically signed", ""},
}

func isHarmless(e zapcore.Entry, f []zapcore.Field) bool {
	for _, h := range harmless {
		if !strings.HasSuffix(e.Message, h.message) {
			continue
		}
		if h.err == "" {
			return true
		}
		for _, field := range f {
			if err, ok := field.Interface.(error); ok && strings.Contains(err.Error(), h.err) {
				return true
			}
		}
	}
	return false
}

func (c *core) Write(e zapcore.Entry, f []zapcore.Field) error {
	l := level(e.Level)
	if l > slog.LevelDebug && isHarmless(e, f) {
		l = slog.LevelDebug
	}
	if !c.h.Enabled(context.Background(), l) {
		return nil
	}
	r := slog.NewRecord(e.Time, l, "etcd: "+e.Message, e.Caller.PC)
	r.AddAttrs(attrs(f)...)
	return c.h.Handle(context.Background(), r)
}

func (c *core) Sync() error { return nil }

func attrs(fs []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fs {
		f.AddTo(enc)
	}
	out := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}
