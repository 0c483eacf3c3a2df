package lifecycle

import "github.com/coreos/go-systemd/v22/daemon"

// NotifyReady tells systemd that the daemon can be used, NotifyStopping that it is on its way out, NotifyStatus what
// it is doing ("restoring 12 instances"), for systemctl status. Without systemd they do nothing.
func NotifyReady() { notify(daemon.SdNotifyReady) }

// NotifyStopping is described at [NotifyReady].
func NotifyStopping() { notify(daemon.SdNotifyStopping) }

// NotifyStatus is described at [NotifyReady].
func NotifyStatus(text string) { notify("STATUS=" + text) }

// notify forgets errors: systemd that is told nothing acts by its own time limits.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
