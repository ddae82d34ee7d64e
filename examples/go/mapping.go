// Package main reads adapted mappings with nothing but Go's standard library: it verifies a record's
// value, adds `lowrank` factors to their θ, and applies the mapping. docs/wire-formats.md describes
// the formats; `go run . ../conformance` checks this reader against the recorded ones.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

// Tensor is an array as it was stored: its bytes, and its numbers in float64.
type Tensor struct {
	Shape   []int
	Raw     []byte
	Numbers []float64
	DType   string
}

// Tensors are a file's tensors by name, and Facts its metadata.
type Tensors map[string]Tensor
type Facts map[string]string

// Mapping is one stream's mapping f(x) = σo(w2·σ(w1·x + b1) + b2), ready to apply.
type Mapping struct {
	Facts                                Facts
	W1, B1, W2, B2                       []float64
	Source, Hidden, Target               int
	Epoch, Version, EventTime, Partition int64
}

// Theta has the weights that `lowrank` mappings are added to.
type Theta struct {
	Hash    string
	Tensors Tensors
}

var activations = map[string]func(float64) float64{
	"none":    func(z float64) float64 { return z },
	"relu":    func(z float64) float64 { return math.Max(z, 0) },
	"gelu":    func(z float64) float64 { return 0.5 * z * (1 + math.Erf(z/math.Sqrt2)) },
	"tanh":    math.Tanh,
	"sigmoid": func(z float64) float64 { return 0.5 * (1 + math.Tanh(0.5*z)) },
}

// Apply maps source features to target features.
func (m *Mapping) Apply(x []float64) []float64 {
	sigma, output := activations[m.Facts["activation"]], activations[m.Facts["output_activation"]]
	return layer(m.W2, m.B2, layer(m.W1, m.B1, x, sigma), output)
}

func layer(w, b, x []float64, sigma func(float64) float64) []float64 {
	y := make([]float64, len(b))
	for i := range y {
		z := b[i]
		for j, number := range x {
			z += w[i*len(x)+j] * number
		}
		y[i] = sigma(z)
	}
	return y
}

// Newer says whether m takes the place of the mapping that a stream is served by.
func (m *Mapping) Newer(served *Mapping) bool {
	if served == nil {
		return true
	}
	if m.Partition != served.Partition { // the stream moved: the newer event counts
		return m.EventTime > served.EventTime ||
			m.EventTime == served.EventTime && m.Partition > served.Partition
	}
	return m.Epoch > served.Epoch || m.Epoch == served.Epoch && m.Version >= served.Version
}

// ParseMapping verifies a record's value and returns its mapping. Thetas are known by content hash.
func ParseMapping(value []byte, thetas map[string]Theta) (*Mapping, error) {
	tensors, facts, err := parseFile(value)
	if err != nil {
		return nil, err
	}
	if facts["format"] != "adapted-mapping/1" && facts["format"] != "adapted-mapping/2" {
		return nil, fmt.Errorf("format %q", facts["format"])
	}
	if facts["kind"] != "mlp" {
		return nil, fmt.Errorf("kind %q", facts["kind"])
	}
	if found := contentHash(tensors, facts); found != facts["content_hash"] {
		return nil, fmt.Errorf("the tensors do not match their hash")
	}
	single, err := unscaled(tensors)
	if err != nil {
		return nil, err
	}
	if facts["encoding"] == "lowrank" {
		theta, known := thetas[facts["meta_init_hash"]]
		if !known {
			return nil, fmt.Errorf("needs θ %s", facts["meta_init_hash"])
		}
		if single, err = added(theta.Tensors, single); err != nil {
			return nil, err
		}
	}
	return checked(single, facts)
}

// checked returns the mapping if it can be ordered and applied.
func checked(t Tensors, facts Facts) (*Mapping, error) {
	m := &Mapping{Facts: facts}
	numbers := map[string]*int64{
		"epoch": &m.Epoch, "version": &m.Version,
		"event_time_ms": &m.EventTime, "partition": &m.Partition,
	}
	for name, into := range numbers {
		number, err := strconv.ParseInt(facts[name], 10, 64)
		if err != nil || number < 0 {
			return nil, fmt.Errorf("%s is %q", name, facts[name])
		}
		*into = number
	}
	dims := map[string]*int{"source_dim": &m.Source, "hidden_dim": &m.Hidden, "target_dim": &m.Target}
	for name, into := range dims {
		dim, err := strconv.Atoi(facts[name])
		if err != nil {
			return nil, fmt.Errorf("%s is %q", name, facts[name])
		}
		*into = dim
	}
	shapes := map[string][]int{
		"w1": {m.Hidden, m.Source}, "b1": {m.Hidden}, "w2": {m.Target, m.Hidden}, "b2": {m.Target},
	}
	if len(t) != len(shapes) {
		return nil, fmt.Errorf("%d tensors", len(t))
	}
	for name, shape := range shapes {
		if !equal(t[name].Shape, shape) {
			return nil, fmt.Errorf("%s has shape %v, not %v", name, t[name].Shape, shape)
		}
	}
	for _, name := range []string{"activation", "output_activation"} {
		if activations[facts[name]] == nil {
			return nil, fmt.Errorf("%s is %q", name, facts[name])
		}
	}
	m.W1, m.B1, m.W2, m.B2 = t["w1"].Numbers, t["b1"].Numbers, t["w2"].Numbers, t["b2"].Numbers
	return m, nil
}

// added returns θ plus the factors: w1 + aᵀ·x, b1 + beta, [w2, b2]·(1 + n) + yᵀ·v. Factors that
// change nothing may be missing.
func added(theta, f Tensors) (Tensors, error) {
	hidden, source := theta["w1"].Shape[0], theta["w1"].Shape[1]
	target, wide := theta["b2"].Shape[0], theta["w1"].Shape[0]+1
	pairs := 0
	for _, name := range []string{"x", "y"} {
		if tensor, has := f[name]; has && len(tensor.Shape) == 2 {
			pairs = tensor.Shape[0]
		}
	}
	shapes := map[string][]int{
		"x": {pairs, source}, "a": {pairs, hidden}, "beta": {hidden},
		"y": {pairs, target}, "n": {wide, wide}, "v": {pairs, wide},
	}
	for name, tensor := range f {
		if !equal(tensor.Shape, shapes[name]) {
			return nil, fmt.Errorf("%s has shape %v, its θ asks for %v", name, tensor.Shape, shapes[name])
		}
	}
	for one, other := range map[string]string{"a": "x", "v": "y"} {
		if _, has := f[one]; has && f[other].Shape == nil {
			return nil, fmt.Errorf("%s needs %s", one, other)
		}
	}
	w1 := append([]float64{}, theta["w1"].Numbers...)
	addProduct(w1, f["a"].Numbers, f["x"].Numbers, pairs, hidden, source)
	b1 := append([]float64{}, theta["b1"].Numbers...)
	for i, number := range f["beta"].Numbers {
		b1[i] += number
	}
	whole := make([]float64, target*wide) // [w2, b2]
	for i := 0; i < target; i++ {
		copy(whole[i*wide:], theta["w2"].Numbers[i*hidden:(i+1)*hidden])
		whole[i*wide+hidden] = theta["b2"].Numbers[i]
	}
	changed := append([]float64{}, whole...)
	if n := f["n"].Numbers; n != nil {
		for i := 0; i < target; i++ {
			for j := 0; j < wide; j++ {
				for k := 0; k < wide; k++ {
					changed[i*wide+j] += whole[i*wide+k] * n[k*wide+j]
				}
			}
		}
	}
	if f["v"].Numbers != nil {
		addProduct(changed, f["y"].Numbers, f["v"].Numbers, pairs, target, wide)
	}
	w2, b2 := make([]float64, 0, target*hidden), make([]float64, target)
	for i := 0; i < target; i++ {
		w2 = append(w2, changed[i*wide:i*wide+hidden]...)
		b2[i] = changed[i*wide+hidden]
	}
	return Tensors{
		"w1": {Shape: []int{hidden, source}, Numbers: w1}, "b1": {Shape: []int{hidden}, Numbers: b1},
		"w2": {Shape: []int{target, hidden}, Numbers: w2}, "b2": {Shape: []int{target}, Numbers: b2},
	}, nil
}

// addProduct adds leftᵀ·right to sum; left is (pairs, rows), right (pairs, columns).
func addProduct(sum, left, right []float64, pairs, rows, columns int) {
	if left == nil || right == nil {
		return
	}
	for p := 0; p < pairs; p++ {
		for i := 0; i < rows; i++ {
			for j := 0; j < columns; j++ {
				sum[i*columns+j] += left[p*rows+i] * right[p*columns+j]
			}
		}
	}
}

// ParseTheta verifies a θ's file and returns what mappings are added to.
func ParseTheta(file []byte) (Theta, error) {
	tensors, facts, err := parseFile(file)
	if err != nil {
		return Theta{}, err
	}
	digest := sha256.New()
	digest.Write([]byte(facts["adaptd.facts"]))
	for _, name := range names(tensors) {
		numbers := tensors[name].Numbers
		raw := make([]byte, 4*len(numbers))
		for i, number := range numbers {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(float32(number)))
		}
		fmt.Fprintf(digest, "\n%s <f4 %s\n", name, pythonTuple(tensors[name].Shape))
		digest.Write(raw)
	}
	if found := hex.EncodeToString(digest.Sum(nil)); found != facts["adaptd.content_hash"] {
		return Theta{}, fmt.Errorf("the θ is damaged: its tensors do not match its hash")
	}
	mapping := Tensors{}
	for _, name := range []string{"w1", "b1", "w2", "b2"} {
		mapping[name] = tensors["mapping."+name]
	}
	return Theta{facts["adaptd.content_hash"], mapping}, nil
}

// unscaled returns the tensors with those in float16 multiplied by their numbers in `scales`.
func unscaled(stored Tensors) (Tensors, error) {
	scales, scaled := stored["scales"]
	result := Tensors{}
	for i, name := range names(stored) {
		if name == "scales" {
			continue
		}
		result[name] = stored[name]
		if !scaled {
			continue
		}
		// `scales` sorts between the factors' names, and counts none of itself
		at := i
		if name > "scales" {
			at--
		}
		if len(scales.Numbers) != len(stored)-1 {
			return nil, fmt.Errorf("%d scales for %d tensors", len(scales.Numbers), len(stored)-1)
		}
		numbers := make([]float64, len(stored[name].Numbers))
		for k, number := range stored[name].Numbers {
			numbers[k] = number * scales.Numbers[at]
		}
		result[name] = Tensor{Shape: stored[name].Shape, Numbers: numbers}
	}
	return result, nil
}

// contentHash covers each tensor's name, shape and bytes in the order of names; for any form but
// `full` in float32 the encoding, the dtype and the hash of θ come first.
func contentHash(tensors Tensors, facts Facts) string {
	digest := sha256.New()
	if facts["format"] != "adapted-mapping/1" {
		theta := ""
		if facts["encoding"] == "lowrank" {
			theta = facts["meta_init_hash"]
		}
		fmt.Fprintf(digest, "adapted-mapping/2;%s;%s;%s;", facts["encoding"], facts["dtype"], theta)
	}
	for _, name := range names(tensors) {
		fmt.Fprintf(digest, "%s:%s;", name, joined(tensors[name].Shape, ","))
		digest.Write(tensors[name].Raw)
	}
	return hex.EncodeToString(digest.Sum(nil))
}

// parseFile reads a safetensors file: eight bytes of length, a JSON header, the numbers.
func parseFile(value []byte) (Tensors, Facts, error) {
	if len(value) < 8 {
		return nil, nil, fmt.Errorf("%d bytes are no safetensors file", len(value))
	}
	size := binary.LittleEndian.Uint64(value)
	if size > uint64(len(value)-8) {
		return nil, nil, fmt.Errorf("the header is cut short")
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(value[8:8+size], &header); err != nil {
		return nil, nil, err
	}
	facts := Facts{}
	if err := json.Unmarshal(header["__metadata__"], &facts); err != nil {
		return nil, nil, err
	}
	delete(header, "__metadata__")
	tensors, data := Tensors{}, value[8+size:]
	for name, raw := range header {
		tensor, err := parseTensor(raw, data)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		tensors[name] = tensor
	}
	return tensors, facts, nil
}

func parseTensor(described json.RawMessage, data []byte) (Tensor, error) {
	var entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(described, &entry); err != nil {
		return Tensor{}, err
	}
	width := map[string]int{"F32": 4, "F16": 2}[entry.DType]
	count := 1
	for _, dim := range entry.Shape {
		if dim < 0 || dim > len(data) {
			return Tensor{}, fmt.Errorf("shape %v", entry.Shape)
		}
		count *= dim
		if count > len(data) {
			return Tensor{}, fmt.Errorf("shape %v", entry.Shape)
		}
	}
	begin, end := entry.Offsets[0], entry.Offsets[1]
	if width == 0 || begin < 0 || end > len(data) || end-begin != count*width {
		return Tensor{}, fmt.Errorf("%s %v does not fit its %d bytes", entry.DType, entry.Shape, end-begin)
	}
	raw, numbers := data[begin:end], make([]float64, count)
	for i := range numbers {
		if width == 4 {
			numbers[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		} else {
			numbers[i] = half(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	}
	return Tensor{entry.Shape, raw, numbers, entry.DType}, nil
}

// half returns the number of a float16.
func half(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10)&31, float64(bits&1023)
	if bits>>15 == 1 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction == 0 {
			return math.Inf(int(sign))
		}
		return math.NaN()
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

func names(tensors Tensors) []string {
	found := make([]string, 0, len(tensors))
	for name := range tensors {
		found = append(found, name)
	}
	sort.Strings(found)
	return found
}

func equal(one, other []int) bool {
	return one != nil && other != nil && joined(one, ",") == joined(other, ",")
}

func joined(shape []int, separator string) string {
	texts := make([]string, len(shape))
	for i, dim := range shape {
		texts[i] = strconv.Itoa(dim)
	}
	return strings.Join(texts, separator)
}

// pythonTuple writes a shape as Python prints it, which the hash of a θ is made of.
func pythonTuple(shape []int) string {
	if len(shape) == 1 {
		return fmt.Sprintf("(%d,)", shape[0])
	}
	return "(" + joined(shape, ", ") + ")"
}
