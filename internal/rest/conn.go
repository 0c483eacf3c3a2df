package rest

import (
	"context"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/identity/caller"
)

// connContext asks the kernel who is at the other end of a unix socket, once per connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	err = raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || cred == nil {
		return ctx
	}
	return caller.With(ctx, caller.Caller{
		Username: username(cred.Uid), Protocol: caller.Unix, Address: "@", UID: cred.Uid, PID: cred.Pid,
	})
}

// username looks the user up in the host's database, which may be slow or broken: root is known by heart.
func username(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
