package checkpoint_test

import (
	"path/filepath"
	"testing"

	"atelier/common/checkpoint"
)

// codec is the safetensors form written down once more, in Python with PyTorch's tensors.
const codec = `
import json, struct, sys, torch
types = {'F32': torch.float32, 'F64': torch.float64, 'F16': torch.float16, 'BF16': torch.bfloat16, 'I8': torch.int8, 'I16': torch.int16,
         'I32': torch.int32, 'I64': torch.int64, 'U8': torch.uint8, 'BOOL': torch.bool}

def load(path):
    raw = open(path, 'rb').read()
    n, = struct.unpack('<Q', raw[:8])
    head, data, out = json.loads(raw[8:8 + n]), raw[8 + n:], {}
    meta = head.pop('__metadata__', {})
    for name, t in head.items():
        a, b = t['data_offsets']
        dtype = types[t['dtype']]
        out[name] = torch.frombuffer(bytearray(data[a:b]), dtype=dtype).reshape(t['shape']) if b > a else torch.zeros(t['shape'], dtype=dtype)
    return out, meta

def save(path, tensors, meta):
    head, data = {'__metadata__': meta}, b''
    for name, t in tensors.items():
        b = bytes(t.contiguous().reshape(-1).view(torch.uint8).tolist()) if t.dtype != torch.bool else bytes(t.reshape(-1).tolist())
        head[name] = {'shape': list(t.shape), 'data_offsets': [len(data), len(data) + len(b)], 'dtype': [k for k, v in types.items() if v == t.dtype][0]}
        data += b
    text = json.dumps(head, indent=1).encode()
    open(path, 'wb').write(struct.pack('<Q', len(text)) + text + data)

def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bytes(a.numpy().tobytes() if a.dtype != torch.bfloat16 else a.view(torch.int16).numpy().tobytes()) == bytes(b.numpy().tobytes() if b.dtype != torch.bfloat16 else b.view(torch.int16).numpy().tobytes())
`

// TestPyTorchAndSafetensors: ours is read with PyTorch's tensors and equals the .pth of the same state; theirs is
// read here and goes back to PyTorch as a .pth that weights_only=True takes.
func TestPyTorchAndSafetensors(t *testing.T) {
	dir := t.TempDir()
	pth, ours, theirs, back := filepath.Join(dir, "a.pth"), filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.safetensors"), filepath.Join(dir, "b.pth")
	if _, err := checkpoint.Save(pth, checkpoint.FromStateDict(state())); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.SaveSafetensors(ours, state(), map[string]string{"arch": "Häuser"}); err != nil {
		t.Fatal(err)
	}
	python(t, codec+`
want = torch.load(sys.argv[1])
got, meta = load(sys.argv[2])
assert list(got) == list(want), list(got)
for k in want:
    assert same(got[k], want[k]), k
assert meta == {'arch': 'Häuser'}, meta
save(sys.argv[3], want, meta)
`, pth, ours, theirs)
	s, err := checkpoint.OpenState(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if a, b := listing(state()), listing(s.Tensors); a != b || s.Metadata["arch"] != "Häuser" {
		t.Errorf("want:\n%sgot:\n%s%v", a, b, s.Metadata)
	}
	if _, err := checkpoint.Save(back, checkpoint.FromStateDict(s.Tensors)); err != nil {
		t.Fatal(err)
	}
	python(t, codec+`
a, b = torch.load(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
assert list(a) == list(b) and all(same(a[k], b[k]) for k in a)
`, pth, back)
}
