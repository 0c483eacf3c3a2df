package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) worldDeploy() *cobra.Command {
	list := newView(a, view[[]api.WorldDeploy]{
		use: "list", short: "List deploys", aliases: []string{"ls"}, args: nargs(0, 0), example: "  shoal world deploy list\n  shoal world deploy list --watch -f json",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldDeploy], error) {
			return c.WorldDeploys(), nil
		},
		header: []string{"ID", "HASH", "SIZE", "ADDED BY", "SIGNED", "CREATED", "NOTE"},
		rows: func(all []api.WorldDeploy) [][]string {
			var rows [][]string
			for _, d := range all {
				rows = append(rows, []string{fmt.Sprint(d.ID), shortHash(d.Hash), sizeIEC(int64(d.Size)), d.Machine, signedBy(d), minute(d.Created), deployNote(d)})
			}
			return rows
		},
	})
	return group("deploy", "Manage deploys, the numbered states that machines shall have",
		a.worldDeployAdd(), list, a.worldDeployShow(), a.worldDeployPayload(), a.worldDeployPrune(), a.worldDeployRollback(), a.worldDeployStatus(), a.worldDeployReport())
}

// shortHash shortens what looks like a commit.
func shortHash(s string) string {
	if _, err := hex.DecodeString(s); err == nil && len(s) >= 40 {
		return s[:12]
	}
	return s
}

func signedBy(d api.WorldDeploy) string {
	var by []string
	if d.Author != nil {
		by = append(by, "author")
	}
	if d.Signature != nil {
		by = append(by, "machine")
	}
	return strings.Join(by, ", ")
}

func deployNote(d api.WorldDeploy) string {
	if d.RollbackOf == 0 {
		return d.Note
	}
	return strings.TrimSpace(fmt.Sprintf("rollback to %d. %s", d.RollbackOf, d.Note))
}

func (a *app) worldDeployAdd() *cobra.Command {
	var post api.WorldDeploysPost
	var sign string
	var wait bool
	cmd := &cobra.Command{Use: "add [<file>]", Short: "Add a deploy", Args: nargs(0, 1),
		Long: `Add a deploy

The payload is read from the file, or from standard input. It gets the next number; with --id or --prev-hash it is only added
when nobody else has added one in between. With --sign it carries the signature of an ed25519 key in PKCS #8
(openssl genpkey -algorithm ed25519); the configuration key world.deploy_keys has the keys that are asked for.`,
		Example: "  shoal world deploy add site.yaml --note \"more web servers\" --wait\n  git archive HEAD | shoal world deploy add --hash $(git rev-parse HEAD) --prev-hash $(git rev-parse HEAD~) --sign ~/.config/shoal/deploy.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			payload, err := a.readPayload(args)
			if err != nil {
				return err
			}
			post.WorldData = dataOf(payload)
			if sign != "" {
				if post.Author, err = signDeploy(sign, post.Hash, payload); err != nil {
					return err
				}
			}
			return a.addDeploy(cmd.Context(), post, wait)
		}}
	f := cmd.Flags()
	f.StringVar(&post.Hash, "hash", "", "What the deploy was made from, for example a git commit")
	f.StringVar(&post.PrevHash, "prev-hash", "", "What the hash of the deploy before must be")
	f.Uint64Var(&post.ID, "id", 0, "What the number of the deploy must be")
	f.StringVar(&post.Note, "note", "", "A line for people")
	f.StringVar(&sign, "sign", "", "File of the author's private key")
	f.BoolVar(&wait, "wait", false, "Wait until every machine is done or has failed")
	return cmd
}

func (a *app) readPayload(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		return a.readValue()
	}
	b, err := os.ReadFile(args[0])
	if err == nil && len(b) > maxValue {
		err = fmt.Errorf("%s is larger than %d bytes", args[0], maxValue)
	}
	return b, err
}

// signDeploy signs with the key in a file.
func signDeploy(file, hash string, payload []byte) (*api.WorldSignature, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: it is not PEM", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s: it is not an ed25519 key in PKCS #8", file)
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(payload)
	sig := ed25519.Sign(key, api.WorldDeployMessage(hash, hex.EncodeToString(sum[:])))
	return &api.WorldSignature{Key: "ed25519:" + hex.EncodeToString(pub), Sig: base64.StdEncoding.EncodeToString(sig)}, nil
}

func (a *app) addDeploy(ctx context.Context, post api.WorldDeploysPost, wait bool) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	d, err := c.AddWorldDeploy(ctx, post)
	if err != nil {
		return err
	}
	a.sayf("Deploy %d added", d.ID)
	if !wait {
		return nil
	}
	return a.waitDeploy(ctx, c, fmt.Sprint(d.ID))
}

// errDone ends a watch.
var errDone = errors.New("done")

// waitDeploy shows how far the machines are until each is done or has failed; then it is an error.
func (a *app) waitDeploy(ctx context.Context, c *client.Client, id string) error {
	var failed []string
	err := c.WorldDeployStatus(id).Follow(ctx, func(all []api.WorldDeployStatus) error {
		count := map[string]int{}
		failed = nil
		for _, s := range all {
			count[s.State]++
			if s.State == "failed" {
				failed = append(failed, fmt.Sprintf("%s: %s", s.Machine, s.Reason))
			}
		}
		a.sayf("%d of %d done, %d running, %d pending, %d failed", count["done"], len(all), count["running"], count["pending"], count["failed"])
		if count["done"]+count["failed"] == len(all) {
			return errDone
		}
		return nil
	})
	if !errors.Is(err, errDone) {
		return a.watched(err)
	}
	if len(failed) > 0 {
		return fmt.Errorf("deploy %s failed on %d machines:\n%s", id, len(failed), strings.Join(failed, "\n"))
	}
	return nil
}

func (a *app) worldDeployShow() *cobra.Command {
	return &cobra.Command{Use: "show [<id>]", Short: "Show a deploy, the newest if none is named", Args: nargs(0, 1), Example: "  shoal world deploy show 7",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			d, err := c.WorldDeploy(cmd.Context(), deployArg(args))
			if err != nil {
				return err
			}
			return a.yaml(d)
		}}
}

func deployArg(args []string) string {
	if len(args) == 0 {
		return "latest"
	}
	return args[0]
}

func (a *app) worldDeployPayload() *cobra.Command {
	return &cobra.Command{Use: "payload [<id>]", Aliases: []string{"get"}, Short: "Write what a deploy deploys to standard output", Args: nargs(0, 1), Example: "  shoal world deploy payload 7 > site.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			b, err := c.WorldDeployPayload(cmd.Context(), deployArg(args))
			if err != nil {
				return err
			}
			_, err = a.Out.Write(b)
			return err
		}}
}

func (a *app) worldDeployPrune() *cobra.Command {
	var keep int
	cmd := &cobra.Command{Use: "prune", Short: "Delete old deploys", Args: nargs(0, 0), Example: "  shoal world deploy prune --keep 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			n, err := c.PruneWorldDeploys(cmd.Context(), keep)
			if err != nil {
				return err
			}
			a.sayf("%d deploys deleted", n)
			return nil
		}}
	cmd.Flags().IntVar(&keep, "keep", 100, "How many of the newest stay")
	return cmd
}

func (a *app) worldDeployRollback() *cobra.Command {
	var note string
	var wait bool
	cmd := &cobra.Command{Use: "rollback <id>", Short: "Deploy again what was deployed before", Args: nargs(1, 1),
		Long:    "Deploy again what was deployed before\n\nThis adds a new deploy with the payload of the earlier one.",
		Example: "  shoal world deploy rollback 6 --note \"7 broke the mail\" --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			var id uint64
			if _, err := fmt.Sscanf(args[0], "%d", &id); err != nil || fmt.Sprint(id) != args[0] || id == 0 {
				return usagef("Invalid deploy %q: it has to be a number from 1 on", args[0])
			}
			return a.addDeploy(cmd.Context(), api.WorldDeploysPost{RollbackOf: id, Note: note}, wait)
		}}
	cmd.Flags().StringVar(&note, "note", "", "A line for people")
	cmd.Flags().BoolVar(&wait, "wait", false, "Wait until every machine is done or has failed")
	return cmd
}

func (a *app) worldDeployStatus() *cobra.Command {
	return newView(a, view[[]api.WorldDeployStatus]{
		use: "status [<id>]", short: "Show how far each machine is with a deploy", args: nargs(0, 1), example: "  shoal world deploy status\n  shoal world deploy status 7 --watch",
		live: func(c *client.Client, args []string) (client.Live[[]api.WorldDeployStatus], error) {
			return c.WorldDeployStatus(deployArg(args)), nil
		},
		header: []string{"MACHINE", "STATE", "SINCE", "REASON"},
		rows: func(all []api.WorldDeployStatus) [][]string {
			var rows [][]string
			for _, s := range all {
				rows = append(rows, []string{s.Machine, strings.ToUpper(s.State), minute(s.Since), s.Reason})
			}
			return rows
		},
	})
}

func (a *app) worldDeployReport() *cobra.Command {
	return &cobra.Command{Use: "report <id> <state> [<reason>]", Short: "Say how far this machine is with a deploy", Args: nargs(2, 3),
		Long:    "Say how far this machine is with a deploy\n\nFor programs that carry deploys out. The states are pending, running, done and failed; a failure needs a reason.",
		Example: "  shoal world deploy report 7 running\n  shoal world deploy report 7 failed \"no space on /srv\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			reason := ""
			if len(args) > 2 {
				reason = args[2]
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.SetWorldDeployStatus(cmd.Context(), args[0], args[1], reason)
			return err
		}}
}
