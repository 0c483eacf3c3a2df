package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// editDocument replaces a document by what is on standard input, or by what the user makes of it in an editor.
// When the server refuses it, the user may go on editing.
func (a *app) editDocument(ctx context.Context, header string, d *document) error {
	if _, tty := terminal(a.In); !tty {
		data, err := a.stdinDocument()
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return fmt.Errorf("no YAML document on standard input and no terminal to edit on")
		}
		return d.replace(ctx, data)
	}
	text, err := marshalYAML(d.edit)
	if err != nil {
		return err
	}
	return a.editLoop(ctx, append([]byte(comment(header)), text...), func(data []byte) error { return d.replace(ctx, data) })
}

// editLoop starts the editor until accept takes the text or the user gives up.
func (a *app) editLoop(ctx context.Context, text []byte, accept func([]byte) error) error {
	for {
		next, err := a.editor(ctx, text)
		if err != nil {
			return err
		}
		if err = accept(next); err == nil {
			return nil
		}
		a.errorf("Config parsing error: %s\nPress enter to open the editor again or ctrl+c to abort change\n", err)
		if _, rerr := bufio.NewReader(a.In).ReadString('\n'); rerr != nil {
			return err
		}
		text = next
	}
}

// replace decodes YAML over the writable part and saves it. Keys that are missing are emptied.
func (d *document) replace(ctx context.Context, data []byte) error {
	v := reflect.ValueOf(d.edit).Elem()
	fresh := reflect.New(v.Type())
	if err := unmarshalYAML(data, fresh.Interface()); err != nil {
		return err
	}
	v.Set(fresh.Elem())
	return d.save(ctx)
}

func comment(header string) string {
	var b strings.Builder
	for line := range strings.Lines(header) {
		b.WriteString("### " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// editor lets the user edit a text in the editor of $VISUAL or $EDITOR, else vi. The editor is the user's own
// command and needs the terminal; it is started as the user wrote it, with blanks between arguments and no shell.
func (a *app) editor(_ context.Context, text []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "shoal-edit-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "document.yaml")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, err
	}
	argv := strings.Fields(os.Getenv("VISUAL"))
	if len(argv) == 0 {
		argv = strings.Fields(os.Getenv("EDITOR"))
	}
	if len(argv) == 0 {
		argv = []string{"vi"}
	}
	path, err := lookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("start the editor: %w; set EDITOR to one that is installed, or give the document on standard input", err)
	}
	p, err := os.StartProcess(path, append(argv, name), &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return nil, fmt.Errorf("start the editor %s: %w", path, err)
	}
	st, err := p.Wait()
	if err != nil {
		return nil, fmt.Errorf("editor %s: %w", path, err)
	}
	if !st.Success() {
		return nil, fmt.Errorf("editor %s: %s", path, st)
	}
	return os.ReadFile(name)
}

// lookPath finds a program on PATH.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%q is not on PATH", name)
}
