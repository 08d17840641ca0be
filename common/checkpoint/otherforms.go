package checkpoint

import (
	"bytes"
	"errors"
)

const magicBytes = 64 << 10 // of a file that are looked at to say what it is

// otherForm says what a file is that is no checkpoint of a form that is read.
func otherForm(b []byte) error {
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(b[:min(len(b), 1<<10)], []byte("\xef\xbb\xbf")), " \t\r\n"))
	starts := func(signs ...string) bool {
		for _, s := range signs {
			if bytes.HasPrefix(b, []byte(s)) {
				return true
			}
		}
		return false
	}
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case starts("\x1f\x8b"):
		return errors.New("a gzip file: unpack it first (gunzip; .tar.gz: tar xzf)")
	case starts("BZh"), starts("\xfd7zXZ\x00"), starts("\x28\xb5\x2f\xfd"), starts("7z\xbc\xaf\x27\x1c"), starts("Rar!"):
		return errors.New("a compressed archive: unpack it first")
	case len(b) >= 262 && string(b[257:262]) == "ustar":
		return errors.New("a tar archive: unpack it and take the .pth or .safetensors inside; if PyTorch itself wrote it (before 0.1.10), load it there and save its state_dict again")
	case starts("version https://git-lfs.github.com/spec/"):
		return errors.New("a Git LFS pointer, not the file itself: fetch it with git lfs pull, or download it from the site's file page")
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")), bytes.HasPrefix(text, []byte("<?xml")), bytes.HasPrefix(text, []byte("<!--")):
		return errors.New("a web page, not a checkpoint: the download gave an answer for people (a login, a missing file): download it again")
	case bytes.HasPrefix(text, []byte("{")) && bytes.Contains(b, []byte(`"weight_map"`)):
		return errors.New("the index of a model in several files (weight_map), without weights of its own: such models are not read; load it in Python and save its state_dict into one file")
	case bytes.HasPrefix(text, []byte("{")), bytes.HasPrefix(text, []byte("[")):
		return errors.New("JSON text, not a checkpoint: it may be a model's settings; take the .pth or .safetensors beside it")
	case starts("\x89HDF\r\n\x1a\n"):
		return errors.New("an HDF5 file (Keras): only PyTorch's checkpoints and safetensors are read")
	case starts("\x93NUMPY"):
		return errors.New("a NumPy array: only PyTorch's checkpoints and safetensors are read")
	case starts("GGUF"):
		return errors.New("a GGUF file: only PyTorch's checkpoints and safetensors are read")
	case looksLikeONNX(b):
		return errors.New("an ONNX model: it contains a computation, not a state_dict; take the PyTorch checkpoint that it was exported from")
	}
	return errors.New("neither a zip archive nor a pickle nor safetensors: not a checkpoint (or the download is cut off)")
}

// looksLikeONNX reports whether b is a protobuf message that begins with ONNX's ir_version and goes on with the names of its
// producer, a domain, a graph or an opset.
func looksLikeONNX(b []byte) bool {
	if len(b) < 4 || b[0] != 0x08 || b[1] == 0 || b[1] > 0x20 {
		return false
	}
	switch b[2] {
	case 0x12, 0x1a, 0x22, 0x3a, 0x42: // fields 2, 3, 4, 7 and 8, with a length
		return true
	}
	return false
}
