// Reads a whole log as C2SP tlog-tiles with Go's own packages for checksum databases, and nothing of
// ours: the checkpoint's signature, every tile against the root, every entry against its leaf.
//
//	reader URL VKEY     the token that may read entries is asked of the environment, as TOKEN
//
// Prints "SIZE ROOT" (root in hex) and exits 0 if all of it holds; else 1, and why on stderr.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// bundle is the number of entries behind one full file of entries.
const bundle = 256

type server struct {
	url, token string
	// Tiles that were checked already, by their place.
	checked map[tlog.Tile][]byte
}

func (s server) get(path string) ([]byte, error) {
	request, err := http.NewRequest("GET", s.url+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return body, err
}

func (server) Height() int { return 8 }

func (s server) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, known := s.checked[tile]
		if !known {
			var err error
			// C2SP leaves the height out of the path: it is always 8.
			data, err = s.get(strings.Replace(tile.Path(), "tile/8/", "/tile/", 1))
			if err != nil {
				return nil, err
			}
		}
		all = append(all, data)
	}
	return all, nil
}

// SaveTiles is called with tiles that hold against the root.
func (s server) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		s.checked[tile] = data[i]
	}
}

// checkpoint gives the tree that a note signed by this key speaks of.
func (s server) checkpoint(vkey string) (tlog.Tree, error) {
	var tree tlog.Tree
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	text, err := s.get("/checkpoint")
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return tree, fmt.Errorf("no checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(tree.Hash) {
		return tree, fmt.Errorf("no root: %q", lines[2])
	}
	copy(tree.Hash[:], root)
	return tree, nil
}

// entries reads one file of entries: each has two bytes of length before it.
func (s server) entries(index, width int64) ([][]byte, error) {
	place := tlog.Tile{H: 8, L: 0, N: index, W: int(width)}.Path()
	data, err := s.get(strings.Replace(place, "tile/8/0/", "/tile/entries/", 1))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for len(data) >= 2 {
		length := int(binary.BigEndian.Uint16(data)) + 2
		if len(data) < length {
			break
		}
		all, data = append(all, data[2:length]), data[length:]
	}
	if len(data) != 0 || int64(len(all)) != width {
		return nil, fmt.Errorf("file %d has %d entries and not %d", index, len(all), width)
	}
	return all, nil
}

func (s server) read(vkey string) (tlog.Tree, error) {
	tree, err := s.checkpoint(vkey)
	if err != nil {
		return tree, err
	}
	// This reader checks each tile against the root before it gives a hash of it.
	hashes := tlog.TileHashReader(tree, s)
	for first := int64(0); first < tree.N; first += bundle {
		width := tree.N - first
		if width > bundle {
			width = bundle
		}
		entries, err := s.entries(first/bundle, width)
		if err != nil {
			return tree, err
		}
		for i, entry := range entries {
			seq := first + int64(i)
			proof, err := tlog.ProveRecord(tree.N, seq, hashes)
			if err == nil {
				err = tlog.CheckRecord(proof, tree.N, tree.Hash, seq, tlog.RecordHash(entry))
			}
			if err != nil {
				return tree, fmt.Errorf("entry %d: %v", seq, err)
			}
		}
	}
	return tree, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "reader URL VKEY")
		os.Exit(1)
	}
	from := server{os.Args[1], os.Getenv("TOKEN"), map[tlog.Tile][]byte{}}
	tree, err := from.read(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(tree.N, hex.EncodeToString(tree.Hash[:]))
}
