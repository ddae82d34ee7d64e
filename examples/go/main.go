package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"unicode/utf8"
)

// Cases is the conformance kit's cases.json.
type Cases struct {
	Format    string
	Tolerance float64
	Theta     string
	Mappings  []struct {
		File string
		X, Y [][]float64
	}
	Refused []struct{ File, Why string }

	Sequences []struct {
		Name    string
		Records []struct{ Key, File *string }
		Served  map[string]string
	}
}

func main() {
	if len(os.Args) != 2 {
		fail("usage: go run . ../conformance")
	}
	folder := os.Args[1]
	var cases Cases
	if err := json.Unmarshal(read(folder, "cases.json"), &cases); err != nil {
		fail("cases.json: %v", err)
	}
	if cases.Format != "adaptd-conformance/1" {
		fail("the kit's format is %q", cases.Format)
	}
	theta, err := ParseTheta(read(folder, cases.Theta))
	if err != nil {
		fail("%s: %v", cases.Theta, err)
	}
	thetas := map[string]Theta{theta.Hash: theta}
	for _, each := range cases.Mappings {
		mapping, err := ParseMapping(read(folder, each.File), thetas)
		if err != nil {
			fail("%s: %v", each.File, err)
		}
		for row, x := range each.X {
			compare(each.File, mapping.Apply(x), each.Y[row], cases.Tolerance*largest(each.Y))
		}
	}
	for _, each := range cases.Refused {
		if _, err := ParseMapping(read(folder, each.File), thetas); err == nil {
			fail("%s was not refused", each.File)
		}
	}
	for _, sequence := range cases.Sequences {
		served, files := map[string]*Mapping{}, map[string]string{}
		for _, record := range sequence.Records {
			if record.Key == nil {
				continue
			}
			key, _ := base64.StdEncoding.DecodeString(*record.Key)
			stream := string(key)
			if !utf8.Valid(key) || stream == "" {
				continue
			}
			if record.File == nil { // the stream was erased
				delete(served, stream)
				delete(files, stream)
				continue
			}
			mapping, err := ParseMapping(read(folder, *record.File), thetas)
			if err == nil && mapping.Newer(served[stream]) {
				served[stream], files[stream] = mapping, *record.File
			}
		}
		if fmt.Sprint(files) != fmt.Sprint(sequence.Served) {
			fail("%s: serves %v, not %v", sequence.Name, files, sequence.Served)
		}
	}
	fmt.Printf("ok: %d mappings, %d refused, %d sequences\n",
		len(cases.Mappings), len(cases.Refused), len(cases.Sequences))
}

func compare(name string, found, wanted []float64, tolerance float64) {
	for i := range wanted {
		if !(math.Abs(found[i]-wanted[i]) <= tolerance) {
			fail("%s: %v, not %v", name, found, wanted)
		}
	}
}

func largest(rows [][]float64) float64 {
	most := 0.0
	for _, row := range rows {
		for _, number := range row {
			most = math.Max(most, math.Abs(number))
		}
	}
	return most
}

func read(folder, name string) []byte {
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		fail("%v", err)
	}
	return data
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}
