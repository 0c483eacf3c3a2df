package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/shoal-project/shoal/api"
)

// WorldSchedules are all schedules, by name.
func (c *Client) WorldSchedules() Live[[]api.WorldSchedule] {
	return Live[[]api.WorldSchedule]{c: c, path: worldPath("scheduler")}
}

// WorldSchedule is one schedule; followed, it is nil while there is none.
func (c *Client) WorldSchedule(name string) Live[*api.WorldSchedule] {
	return Live[*api.WorldSchedule]{c: c, path: worldPath("scheduler", name)}
}

// PutWorldSchedule creates or changes a schedule.
func (c *Client) PutWorldSchedule(ctx context.Context, name string, put api.WorldSchedulePut) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPut, Path: worldPath("scheduler", name), Body: put})
	return err
}

// DeleteWorldSchedule deletes a schedule; with force although hosts take part in it.
func (c *Client) DeleteWorldSchedule(ctx context.Context, name string, force bool) error {
	r := Request{Method: http.MethodDelete, Path: worldPath("scheduler", name)}
	if force {
		r.Query = url.Values{"force": {"true"}}
	}
	_, _, err := c.call(ctx, r)
	return err
}

// JoinWorldSchedule has the daemon's machine take part in a schedule until it leaves, whether it is up or not.
func (c *Client) JoinWorldSchedule(ctx context.Context, name string, host api.WorldScheduleHost) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodPost, Path: worldPath("scheduler", name, "hosts"), Body: host})
	return err
}

// LeaveWorldSchedule takes a host out of a schedule. The daemon's own machine is replaced first; another goes at once.
func (c *Client) LeaveWorldSchedule(ctx context.Context, name, host string) error {
	_, _, err := c.call(ctx, Request{Method: http.MethodDelete, Path: worldPath("scheduler", name, "hosts", host)})
	return err
}
