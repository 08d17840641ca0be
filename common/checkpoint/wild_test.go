package checkpoint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/checkpoint"
)

// TestFilesOfOtherTools: a MobileNet as real tools save it becomes a file that torchvision loads strictly, or is
// refused with words that say what it is; what is changed or left out is told. Tensors are one number spread out, so
// that files stay small.
func TestFilesOfOtherTools(t *testing.T) {
	dir := t.TempDir()
	python(t, `
import sys, torch, collections, argparse, pathlib, gzip, tarfile, json
import numpy as np
try: import torchvision
except ImportError: sys.exit(0)
d = sys.argv[1] + '/'
s = collections.OrderedDict((k, (torch.full((), 0.5) if v.is_floating_point() else torch.zeros((), dtype=v.dtype)).expand(v.shape)) for k, v in torchvision.models.mobilenet_v3_small(num_classes=2).state_dict().items())
O = collections.OrderedDict
pre = lambda p: O((p + k, v) for k, v in s.items())
meta = {'arch': 'mobilenet_v3_small', 'class_to_idx': {'gothic': 0, 'tudor': 1}, 'image_size': 64}
S = lambda n, o, **k: torch.save(o, d + n, **k)
S('bare', s)
S('lightning', {'state_dict': O(list(pre('model.').items()) + [('loss.weight', torch.ones(2))]), 'pytorch-lightning_version': '1.9', 'hyper_parameters': {'lr': .1}})
S('net_backbone', {'state_dict': pre('net.backbone.')})
S('averaged', O([('n_averaged', torch.tensor(5))] + list(pre('module.').items())))
S('compiled_inside', O((k.replace('features.1.', 'features.1._orig_mod.'), v) for k, v in s.items()))
S('parallel_inside', O((k.replace('features.', 'features.module.'), v) for k, v in s.items()))
S('module_orig_mod', pre('module._orig_mod.'))
S('numpy_scalar', {'model_state_dict': s, 'best_acc': np.float64(.7), 'epoch': np.int64(3), **meta})
S('namespace', {'model_state_dict': s, 'args': argparse.Namespace(lr=.1, out=pathlib.Path('x')), 'where': pathlib.PosixPath('a'), **meta})
S('protocol4', s, pickle_protocol=4)
S('protocol5_dict', {'model': s, 'best': {'a': np.float64(1)}, 'set': {1, 2}, 'raw': b'abc'}, pickle_protocol=5)
S('protocol4_legacy', s, pickle_protocol=4, _use_new_zipfile_serialization=False)
S('extra', O(list(s.items()) + [('aux.weight', torch.zeros(3, 3))]))
S('sequential_head', O((k.replace('classifier.3.', 'classifier.3.1.'), v) for k, v in s.items()))
S('no_counters', O((k, v) for k, v in s.items() if 'num_batches' not in k))
S('missing', O((k, v) for k, v in s.items() if not k.startswith('features.12.1')))
S('two_models', O(list(pre('student.').items()) + list(pre('teacher.').items())))
S('other', torchvision.models.squeezenet1_0(num_classes=2).state_dict())
S('whole', torch.nn.Linear(2, 2))
class Evil:
    def __reduce__(self): return (eval, ('open(%r, "w")' % (d + 'executed'),))
S('evil', {'model_state_dict': s, 'x': Evil()})
open(d + 'gz', 'wb').write(gzip.compress(open(d + 'bare', 'rb').read()))
tarfile.open(d + 'tar', 'w').add(d + 'bare')
`, dir)
	if _, err := os.Stat(filepath.Join(dir, "bare")); err != nil {
		t.Skip("no torchvision (Debian: apt-get install python3-torchvision)")
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]struct{ told, refused string }{
		"bare":             {},
		"lightning":        {told: "model.; left out, not of the model: loss.weight"},
		"net_backbone":     {told: "net.backbone."},
		"averaged":         {told: "module.; left out, not of the model: n_averaged"},
		"compiled_inside":  {told: "_orig_mod."},
		"parallel_inside":  {told: "module."},
		"module_orig_mod":  {told: "module. _orig_mod."},
		"numpy_scalar":     {told: "best_acc (numpy.core.multiarray.scalar), epoch (numpy.core.multiarray.scalar)"},
		"namespace":        {told: "args (argparse.Namespace), where (pathlib.PosixPath)"},
		"protocol4":        {},
		"protocol5_dict":   {told: "best (numpy.core.multiarray.scalar)"},
		"protocol4_legacy": {},
		"extra":            {told: "left out, not of mobilenet_v3_small: aux.weight"},
		"sequential_head":  {told: "classifier.3.1.bias is mobilenet_v3_small's classifier.3.bias"},
		"no_counters":      {},
		"missing":          {refused: "a mobilenet_v3_small without features.12.1.weight"},
		"two_models":       {refused: `several models, under "student." and "teacher."`},
		"other":            {},
		"whole":            {refused: `"torch.nn.modules.linear.Linear"`},
		"evil":             {refused: `.eval"`},
		"gz":               {refused: "gunzip"},
		"tar":              {refused: "a tar archive"},
	} {
		to := filepath.Join(out, file+".pth")
		got, err := checkpoint.Export(filepath.Join(dir, file), to, false)
		_, missing := os.Stat(to)
		told := strings.Join(got.Told, "; ")
		told = strings.ReplaceAll(told, "numpy._core", "numpy.core")
		switch {
		case want.refused != "":
			if err == nil || !strings.Contains(err.Error(), want.refused) || missing == nil {
				t.Errorf("%s: %v, want words on %s and no file", file, err, want.refused)
			}
		case err != nil:
			t.Errorf("%s: %v", file, err)
		case want.told == "" && told != "" || !strings.Contains(told, want.told):
			t.Errorf("%s: told %q, want %q", file, told, want.told)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "executed")); err == nil {
		t.Fatal("a pickle was executed")
	}
	python(t, `
import sys, torch, torchvision, glob
for f in glob.glob(sys.argv[1] + '/*.pth'):
    s = torch.load(f, weights_only=True)
    m = torchvision.models.squeezenet1_0(num_classes=2) if 'other' in f else torchvision.models.mobilenet_v3_small(num_classes=2)
    m.load_state_dict(s.get('model_state_dict', s))
`, out)
}
