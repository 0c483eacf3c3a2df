package unified_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
)

const good = `
architecture: amd64
creation_date: 1795252491
properties:
  os: Debian
  serial: 20260101
templates:
  /etc/hostname:
    when: [create, copy]
    template: hostname.tpl
future_key: {a: 1}
`

func TestMetadata(t *testing.T) {
	m, err := unified.ParseMetadata([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if m.Architecture != "x86_64" || m.CreationDate != 1795252491 || m.Properties["serial"] != "20260101" || m.Templates["/etc/hostname"].Template != "hostname.tpl" {
		t.Errorf("read %+v", m)
	}
}

func TestBadMetadata(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
	base := "architecture: x86_64\ncreation_date: 1\n"
	for name, c := range map[string]struct {
		text string
		says string
	}{
		"empty":                 {"", "empty"},
		"not yaml":              {"{", "metadata.yaml"},
		"a list":                {"[1, 2]", "metadata.yaml"},
		"a string":              {"hello", "metadata.yaml"},
		"no architecture":       {"creation_date: 1", "architecture is missing"},
		"unknown architecture":  {"architecture: z80\ncreation_date: 1", `"z80"`},
		"no date":               {"architecture: x86_64", "creation_date"},
		"date is text":          {"architecture: x86_64\ncreation_date: soon", "metadata.yaml"},
		"date of the year 10^9": {"architecture: x86_64\ncreation_date: 99999999999999999", "creation_date"},
		"alias bomb":            {base + bomb, "aliases"},
		"merge key":             {"x: &x {architecture: x86_64}\n<<: *x\ncreation_date: 1", "aliases"},
		"duplicate key":         {base + "architecture: aarch64\n", "already"},
		"deep":                  {base + "x: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "deep"},
		"very deep":             {base + "x: " + strings.Repeat("[", 100000), "metadata.yaml"},
		"too long":              {base + "x: " + strings.Repeat("a", 1<<20), "at most"},
		"properties are a list": {base + "properties: [a]", "metadata.yaml"},
		"property with newline": {base + "properties: {\"a\\nb\": c}", "control"},
		"property with escape":  {base + "properties: {a: \"\\e[31m\"}", "control"},
		"null template":         {base + "templates: {/etc/x: }", "empty"},
		"template climbs":       {base + "templates: {/etc/x: {template: ../../shadow}}", "template file"},
		"template is absolute":  {base + "templates: {/etc/x: {template: /etc/shadow}}", "template file"},
		"target climbs":         {base + "templates: {/etc/../../x: {template: a}}", "target"},
		"target is relative":    {base + "templates: {etc/x: {template: a}}", "target"},
		"strange when":          {base + "templates: {/etc/x: {template: a, when: [never]}}", "never"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unified.ParseMetadata([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want an error with %q", err, c.says)
			}
			if cl := errs.ClassOf(err); cl != errs.InvalidInput && cl != errs.TooLargeClass {
				t.Errorf("class %v", cl)
			}
		})
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := unified.ParseMetadata(b)
		if err != nil {
			return
		}
		if _, err := unified.Architecture(m.Architecture); err != nil || m.CreationDate <= 0 {
			t.Errorf("accepted %+v", m)
		}
		for target, tpl := range m.Templates {
			if strings.ContainsAny(tpl.Template, "/\x00") || target[0] != '/' || strings.Contains(target, "/../") {
				t.Errorf("accepted template %q → %q", tpl.Template, target)
			}
		}
	})
}

func superblock(change func(b []byte)) []byte {
	b := make([]byte, unified.SuperblockSize)
	copy(b, "hsqs")
	le := binary.LittleEndian
	le.PutUint32(b[4:], 10)
	le.PutUint32(b[12:], 128<<10)
	le.PutUint16(b[22:], 17)
	le.PutUint16(b[28:], 4)
	le.PutUint64(b[40:], 5000)
	for i := range 6 {
		le.PutUint64(b[48+8*i:], 4000)
	}
	change(b)
	return b
}

func TestSuperblock(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func(b []byte)
		ok     bool
	}{
		"whole":           {func([]byte) {}, true},
		"no xattrs":       {func(b []byte) { le.PutUint64(b[56:], ^uint64(0)) }, true},
		"wrong magic":     {func(b []byte) { b[0] = 'x' }, false},
		"version 3":       {func(b []byte) { b[28] = 3 }, false},
		"truncated":       {func(b []byte) { le.PutUint64(b[40:], 5001) }, false},
		"negative size":   {func(b []byte) { le.PutUint64(b[40:], 1<<63) }, false},
		"block size zero": {func(b []byte) { le.PutUint32(b[12:], 0) }, false},
		"block size odd":  {func(b []byte) { le.PutUint32(b[12:], 100000) }, false},
		"huge inodes":     {func(b []byte) { le.PutUint32(b[4:], 1<<31) }, false},
		"table outside":   {func(b []byte) { le.PutUint64(b[64:], 5000) }, false},
	} {
		_, err := unified.ParseSuperblock(superblock(c.change), 5000)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok=%v", name, err, c.ok)
		}
	}
}

func FuzzSuperblock(f *testing.F) {
	f.Add(superblock(func([]byte) {}), int64(5000))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		sb, err := unified.ParseSuperblock(b, size)
		if err == nil && (sb.BytesUsed > size || sb.BytesUsed < unified.SuperblockSize || sb.BlockSize == 0 || !bytes.HasPrefix(b, []byte("hsqs"))) {
			t.Errorf("accepted %+v of %d bytes", sb, size)
		}
	})
}

func TestQcow2(t *testing.T) {
	be := binary.BigEndian
	for name, c := range map[string]struct {
		change func(b []byte)
		ok     bool
	}{
		"whole":              {func([]byte) {}, true},
		"zstd clusters":      {func(b []byte) { be.PutUint64(b[72:], 1<<3) }, true},
		"backing file":       {func(b []byte) { be.PutUint64(b[8:], 200); be.PutUint32(b[16:], 11) }, false},
		"external data file": {func(b []byte) { be.PutUint64(b[72:], 1<<2) }, false},
		"unknown feature":    {func(b []byte) { be.PutUint64(b[72:], 1<<40) }, false},
		"encrypted":          {func(b []byte) { be.PutUint32(b[32:], 1) }, false},
		"8 EiB":              {func(b []byte) { be.PutUint64(b[24:], 8<<60) }, false},
		"version 9":          {func(b []byte) { be.PutUint32(b[4:], 9) }, false},
		"vmdk":               {func(b []byte) { copy(b, "KDMV") }, false},
	} {
		b := make([]byte, unified.Qcow2HeadSize)
		copy(b, "QFI\xfb")
		be.PutUint32(b[4:], 3)
		be.PutUint32(b[20:], 16)
		be.PutUint64(b[24:], 10<<30)
		c.change(b)
		if err := unified.CheckQcow2(b); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok=%v", name, err, c.ok)
		}
	}
	if unified.CheckQcow2([]byte("QFI\xfb")) == nil {
		t.Error("a header of four bytes was accepted")
	}
}

func FuzzQcow2(f *testing.F) {
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if unified.CheckQcow2(b) == nil && (binary.BigEndian.Uint64(b[8:]) != 0 || b[79]&4 != 0) {
			t.Error("a disk that names another file was accepted")
		}
	})
}
