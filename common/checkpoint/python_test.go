package checkpoint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"atelier/common/checkpoint"
)

const interpreter = "/usr/bin/python3"

var haveTorch = sync.OnceValue(func() error {
	return exec.Command(interpreter, "-c", "import importlib.util as u; assert u.find_spec('torch')").Run()
})

// python runs a script with the system's Python and its torch, or skips where there is none.
func python(t *testing.T, script string, args ...string) string {
	t.Helper()
	if err := haveTorch(); err != nil {
		t.Skipf("%s has no torch (Debian: apt-get install python3-torch): %v", interpreter, err)
	}
	cmd := exec.Command(interpreter, append([]string{"-c", script}, args...)...)
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("python: %v\n%s", err, out)
	}
	return string(out)
}

func TestPyTorchReadsTrainingDict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.pth")
	if _, err := checkpoint.Save(path, training()); err != nil {
		t.Fatal(err)
	}
	python(t, `
import sys, torch, collections, math
c = torch.load(sys.argv[1])
assert list(c) == ['epoch','model_state_dict','optimizer_state_dict','best_val_loss','class_to_idx','arch','config','atelier'], list(c)
m = c['model_state_dict']
assert type(m) is collections.OrderedDict and m._metadata[''] == {'version': 1}
w = m['conv1.weight']
assert w.dtype is torch.float32 and w.shape == (2, 3) and w.is_contiguous() and not w.requires_grad
assert w.flatten().tolist() == [1, -2, 3.5, 4, 5, math.inf]
assert m['tied.weight'].data_ptr() == w.data_ptr()
assert w.data_ptr() % 16 == 0
n = m['bn1.num_batches_tracked']
assert n.dtype is torch.int64 and n.shape == () and n.item() == 7
assert c['optimizer_state_dict'] == {'state': {0: {'step': 70000, 'momentum_buffer': None}}, 'param_groups': [{'lr': 0.1, 'betas': (0.9, 0.999), 'params': [0, 1, 2]}]}
assert c['epoch'] == 3 and c['best_val_loss'] == 0.25 and c['arch'] == 'resnet18'
k = c['config']
assert k == {'name': 'Häuser', 'negative': -5, 'large': -1 << 40, 'huge': 1 << 65, 'empty': (), 'flag': True, 'off': False, 'nan': -math.inf,
             'dtype': torch.bfloat16, 'size': torch.Size([2, 3]), 'device': torch.device('cpu'), 'z': 1-2j, 'set': {'a'}, 'quad': (1, 2, 3, 4)}, k
assert type(k['size']) is torch.Size and k['flag'] is True
a = c['atelier']
assert a['rng'] == bytes([0, 1, 0x80, 0xff]) and a['nothing'] == b''
assert bytes(a['order'].tolist()) == b'order' and a['scalar'].shape == () and a['none'].shape == (0, 3)
assert a['half'].dtype is torch.float16 and a['half'][:2].tolist() == [1, -2]
assert a['brain'].dtype is torch.bfloat16 and a['brain'].item() == 1 and a['mask'].tolist() == [True, False]
`, path)
}

// TestPyTorchReadsWeightsOnly: a model's state opens with the restricted reader of PyTorch 1.13, the first
// there was; and every opcode and name of a training dictionary is one that PyTorch 2.x's reader takes.
func TestPyTorchReadsWeightsOnly(t *testing.T) {
	dir := t.TempDir()
	state, _ := checkpoint.Lookup[*checkpoint.Dict](training(), "model_state_dict")
	if _, err := checkpoint.Save(filepath.Join(dir, "bare.pth"), state); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Save(filepath.Join(dir, "training.pth"), training()); err != nil {
		t.Fatal(err)
	}
	python(t, `
import sys, torch, zipfile, pickletools
bare = torch.load(sys.argv[1] + '/bare.pth', weights_only=True)
assert bare['conv1.weight'].shape == (2, 3) and bare['bn1.num_batches_tracked'].item() == 7
z = zipfile.ZipFile(sys.argv[1] + '/training.pth')
assert z.testzip() is None
# What torch/_weights_only_unpickler.py of PyTorch 2.0 and later accepts.
ops = set('''PROTO STOP GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE EMPTY_TUPLE
  EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1'''.split())
names = set('''collections OrderedDict/torch Size/torch device/_codecs encode/__builtin__ set/__builtin__ complex/torch bfloat16/torch._utils _rebuild_tensor_v2/torch FloatStorage
/torch LongStorage/torch ByteStorage/torch HalfStorage/torch BFloat16Storage/torch BoolStorage'''.replace('\n', '').split('/'))
for op, arg, at in pickletools.genops(z.read('archive/data.pkl')):
    assert op.name in ops, (op.name, at)
    assert op.name != 'GLOBAL' or arg in names, arg
`, dir)
}

// TestPyTorchStateComesBack: what PyTorch saved in either form is read, and what is then written is equal to it
// for PyTorch.
func TestPyTorchStateComesBack(t *testing.T) {
	dir := t.TempDir()
	python(t, `
import sys, torch, torch.nn as nn
torch.manual_seed(1)
m = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5))
o = torch.optim.Adam(m.parameters(), lr=1e-3)
m(torch.randn(4, 3, 8, 8)).sum().backward(); o.step()
x = torch.arange(24.).reshape(2, 3, 4)
c = {'epoch': 2, 'model_state_dict': m.state_dict(), 'optimizer_state_dict': o.state_dict(), 'best_val_loss': 0.5,
     'class_to_idx': {'a': 0, 'b': 1}, 'param': nn.Parameter(torch.ones(2)), 'bytes': bytes(range(256)), 'set': {1}, 'size': x.shape, 'dtype': torch.int64,
     'device': torch.device('cuda', 1), 'none': None, 'big': 1 << 70, 'complex': 2j, 'rng': torch.get_rng_state(), 'empty': torch.zeros(0),
     'transposed': x.transpose(0, 2), 'slice': x[1, :, 1:3], 'part': x[1], 'expanded': torch.ones(1).expand(3, 2),
     'last': x.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last), 'bf': x.bfloat16(), 'many': list(range(3000)), 'deep': [[(1, {2: 3})]]}
torch.save(c, sys.argv[1] + '/zip.pth')
torch.save(c, sys.argv[1] + '/legacy.pth', _use_new_zipfile_serialization=False)
torch.save(m.state_dict(), sys.argv[1] + '/bare.pth')
`, dir)
	for _, name := range []string{"zip", "legacy"} {
		m, err := checkpoint.Open(filepath.Join(dir, name+".pth"))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		d := m.Root.(*checkpoint.Dict)
		for key, want := range map[string]string{
			"epoch": "int64 2", "best_val_loss": "float64 0.5", "none": "<nil> <nil>", "big": "big 1180591620717411303424", "complex": "complex128 (0+2i)",
			"set": "set{int64 1,}", "size": "checkpoint.Size checkpoint.Size{2, 3, 4}", "dtype": "checkpoint.DType 0x8", "device": `checkpoint.Device "cuda:1"`,
			"deep": "[[(int64 1,dict(false){int64 2:int64 3,\n},),],]",
		} {
			if v, ok := d.Get(key); !ok || text(v) != want {
				t.Errorf("%s: %s = %s, want %s", name, key, text(v), want)
			}
		}
		if b, ok := checkpoint.Lookup[[]byte](d, "bytes"); !ok || len(b) != 256 || b[200] != 200 {
			t.Errorf("%s: bytes %x", name, b)
		}
		for key, want := range map[string][]float32{
			"param":      {1, 1},
			"slice":      {13, 14, 17, 18, 21, 22},
			"part":       {12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23},
			"expanded":   {1, 1, 1, 1, 1, 1},
			"empty":      {},
			"transposed": {0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15, 7, 19, 11, 23},
			"last":       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23},
		} {
			x, ok := checkpoint.Lookup[*checkpoint.Tensor](d, key)
			if !ok {
				t.Fatalf("%s: no tensor %s", name, key)
			}
			got, err := x.Float32s()
			if err != nil || len(got) != len(want) {
				t.Errorf("%s: %s = %v, %v", name, key, got, err)
				continue
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: %s = %v, want %v", name, key, got, want)
					break
				}
			}
		}
		if l, _ := checkpoint.Lookup[*checkpoint.List](d, "many"); l == nil || len(l.Items) != 3000 || l.Items[2999] != int64(2999) {
			t.Errorf("%s: list of 3000 came back wrong", name)
		}
		// Written again and read by PyTorch, everything is equal.
		again := filepath.Join(dir, name+"-again.pth")
		if _, err := checkpoint.Save(again, m.Root); err != nil {
			t.Fatal(err)
		}
		python(t, `
import sys, torch
a, b = torch.load(sys.argv[1]), torch.load(sys.argv[2])
def same(a, b, at):
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b), at
    elif isinstance(a, dict):
        assert type(a) is type(b) and list(a) == list(b), at
        for k in a: same(a[k], b[k], at + [k])
    elif isinstance(a, (list, tuple)) and type(a) is type(b):
        assert len(a) == len(b), at
        for i in range(len(a)): same(a[i], b[i], at + [i])
    else:
        assert type(a) is type(b) and a == b, (at, a, b)
same(a, b, [])
assert a['model_state_dict']._metadata == b['model_state_dict']._metadata
`, filepath.Join(dir, name+".pth"), again)
	}
	m, err := checkpoint.Open(filepath.Join(dir, "bare.pth"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tensors, err := checkpoint.StateDict(m.Root)
	if err != nil || len(tensors) != 9 || tensors[0].Name != "0.weight" || tensors[6].Name != "1.num_batches_tracked" {
		t.Errorf("%d tensors, %v", len(tensors), err)
	}
}

func TestPythonObjectsAreRefusedByName(t *testing.T) {
	dir := t.TempDir()
	python(t, `
import sys, os, torch, torch.nn as nn
class Evil:
    def __reduce__(self): return (os.system, ('touch ' + sys.argv[1] + '/executed',))
for form, new in (('zip', True), ('legacy', False)):
    torch.save({'w': torch.ones(1), 'x': Evil()}, sys.argv[1] + '/evil-' + form, _use_new_zipfile_serialization=new)
    torch.save(nn.Linear(2, 2), sys.argv[1] + '/module-' + form, _use_new_zipfile_serialization=new)
torch.jit.save(torch.jit.script(nn.Linear(2, 2)), sys.argv[1] + '/script-zip')
`, dir)
	for file, want := range map[string]string{
		"evil-zip": "posix.system", "evil-legacy": "posix.system",
		"module-zip": "torch.nn.modules.linear.Linear", "module-legacy": "a whole module",
		"script-zip": "TorchScript",
	} {
		_, err := checkpoint.Open(filepath.Join(dir, file))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v should speak of %s", file, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "executed")); err == nil {
		t.Fatal("the pickle was executed")
	}
}
