package config

import (
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/shoal-project/shoal/internal/errs"
)

// MaxSchedules bounds how many expressions one snapshots.schedule may have.
const MaxSchedules = 32

// Schedule is a parsed snapshots.schedule.
type Schedule struct {
	OnStart bool // @startup
	times   []cron.Schedule
}

// ParseSchedule reads a list, separated by ", ", of cron expressions with five fields and the words @hourly, @daily, @midnight,
// @weekly, @monthly, @annually, @yearly, @startup and @never. The words get a minute (and an hour, from @daily on) that follows from
// id, so that not all instances of a host are snapshotted at once; @midnight is the same as @daily, as in LXD.
func ParseSchedule(expr, id string) (Schedule, error) {
	var s Schedule
	if strings.TrimSpace(expr) == "" {
		return s, nil
	}
	parts := strings.Split(expr, ", ")
	if len(parts) > MaxSchedules {
		return s, errs.Invalid("schedule %q has %d parts; at most %d are allowed", expr, len(parts), MaxSchedules)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	minute, hour := strconv.Itoa(int(h.Sum32()%60)), strconv.Itoa(int(h.Sum32()/60%24))
	words := map[string]string{
		"@hourly": minute + " * * * *", "@daily": minute + " " + hour + " * * *", "@midnight": minute + " " + hour + " * * *",
		"@weekly": minute + " " + hour + " * * 0", "@monthly": minute + " " + hour + " 1 * *",
		"@annually": minute + " " + hour + " 1 1 *", "@yearly": minute + " " + hour + " 1 1 *",
	}
	for _, part := range parts {
		part = strings.TrimSpace(part)
		switch {
		case part == "@never":
			continue
		case part == "@startup":
			s.OnStart = true
			continue
		case words[part] != "":
			part = words[part]
		case len(strings.Fields(part)) != 5 || strings.HasPrefix(part, "@"):
			return Schedule{}, errs.Invalid("schedule %q: allowed are cron expressions with five fields and "+
				"@hourly, @daily, @midnight, @weekly, @monthly, @annually, @yearly, @startup and @never, separated by \", \"", part)
		}
		t, err := cron.ParseStandard(part)
		if err != nil {
			return Schedule{}, errs.Invalid("schedule %q: %v", part, err)
		}
		s.times = append(s.times, t)
	}
	return s, nil
}

// Due reports whether the schedule names the minute that t lies in.
func (s Schedule) Due(t time.Time) bool {
	minute := t.Truncate(time.Minute)
	for _, x := range s.times {
		if x.Next(minute.Add(-time.Second)).Equal(minute) {
			return true
		}
	}
	return false
}

var creationDate = regexp.MustCompile(`\{\{\s*creation_date\s*(?:\|\s*date:\s*(?:'([^']*)'|"([^"]*)")\s*)?\}\}`)

// SnapshotName makes the name of a snapshot from snapshots.pattern (empty: snap%d): {{ creation_date }} with an optional
// |date:'LAYOUT' in Go's notation, and at most one %d, which becomes the lowest number above those that are used (from 0). A name
// without %d that is taken gets -0, -1 and so on, as in LXD. The result may still be no valid name.
func SnapshotName(pattern string, now time.Time, taken func(string) bool, names []string) (string, error) {
	if pattern == "" {
		pattern = "snap%d"
	}
	name := creationDate.ReplaceAllStringFunc(pattern, func(m string) string {
		sub := creationDate.FindStringSubmatch(m)
		layout := sub[1] + sub[2]
		if layout == "" {
			layout = "2006-01-02_15-04-05"
		}
		return now.Format(layout)
	})
	if strings.Contains(name, "{{") || strings.Contains(name, "{%") {
		return "", errs.Invalid("snapshot pattern %q: only {{ creation_date }} and {{ creation_date|date:'2006-01-02' }} are known", pattern)
	}
	if n := strings.Count(name, "%"); n > 1 || n == 1 && !strings.Contains(name, "%d") {
		return "", errs.Invalid("snapshot pattern %q: %%d may be there once, and no other %%", pattern)
	}
	if !strings.Contains(name, "%d") {
		base := name
		for i := 0; taken(name); i++ {
			name = base + "-" + strconv.Itoa(i)
		}
		return name, nil
	}
	before, after, _ := strings.Cut(name, "%d")
	highest := -1
	for _, n := range names {
		digits, ok := strings.CutPrefix(n, before)
		if digits, ok2 := strings.CutSuffix(digits, after); ok && ok2 {
			if i, err := strconv.ParseUint(digits, 10, 31); err == nil {
				highest = max(highest, int(i))
			}
		}
	}
	return before + strconv.Itoa(highest+1) + after, nil
}

func checkSchedule(v string) error { _, err := ParseSchedule(v, ""); return err }

func checkPattern(v string) error {
	_, err := SnapshotName(v, time.Unix(0, 0), func(string) bool { return false }, nil)
	return err
}
