package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"atelier/common/access"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Snapshots map every field by hand, in both directions. The tests here know the
// fields by reflection, so that one which is forgotten in either direction fails.
// They are within the package because most of the fields are.

// notKept are the fields that a machine made of a snapshot need not have alike.
var notKept = map[string]string{
	"Sweep.gen": "a stamp of the machine", "Trial.gen": "a stamp of the machine", "numbers.gen": "a stamp of the machine", "node.gen": "a stamp of the machine",
	"Sweep.layouts": "so that trials share them; each trial's own is compared",
}

// rebuilt are the fields that reading makes of others by what Apply uses, too.
// TestInvariants compares them after random commands.
var rebuilt = []string{"View.sweeps", "View.byID", "View.trials", "Sweep.Counts", "Sweep.Epochs", "Sweep.StoredBytes", "Sweep.trials", "Sweep.scores",
	"Sweep.best", "Sweep.open", "Sweep.retries", "Sweep.fresh", "Sweep.badSpec", "Sweep.stored"}

// given are the fields that cannot have just any value. None is the one that
// reading would put in for an absence.
var given = map[string]any{
	"View.index": uint64(1 << 20), "View.staged": (*staged)(nil), "Sweep.Findings": int64(1 << 20), "Sweep.EnqueuedTaken": int64(1), "Sweep.ID": "s-1",
	"Sweep.Status": trial.SweepPaused, "Sweep.Kind": trial.Inference, "Sweep.Enqueued": []string{`{"x":1}`, `{"x":2}`},
	"Sweep.WarmTrials": []*logv1.WarmTrial{{Trial: 3, ParamsJson: "{}", Status: 4, HasValue: true, Value: 5}},
	"Sweep.Tags":       []string{"a", "b"}, "Notification.URL": "http://h", "Notification.On": []trial.SweepStatus{4, 6}, "Sweep.DeletedMS": int64(0),
	"View.purged":  []purged{{"s-8", "made s-8", 11, 12, 13}, {"s-9", "made s-9", 21, 22, 23}},
	"View.aliases": []Alias{{"a", []AliasPlace{{"s-1", 31, 32, 33, "34", 35, 36, "by 37"}, {"s-7", 41, 42, 43, "44", 45, 46, "by 47"}}}, {"b", []AliasPlace{{"s-1", 51, 52, 53, "54", 55, 56, "by 57"}}}},
	"View.tokens":  []Token{{"t-0123456789", "n 61", access.Operator, [32]byte{62}, 63, 64, 65, "by 66"}, {"t-abcdefghij", "n 71", access.Admin, [32]byte{72}, 73, 74, 75, "by 76"}},
	"View.invites": []Invite{{"i-0123456789", access.Worker, "n 81", [32]byte{82}, 83, 84, 85, 1, "by 86", []InviteUse{{"u 87", [32]byte{88}, 89}}},
		{"i-abcdefghij", access.Coordinator, "", [32]byte{92}, 93, 94, 95, 96, "by 97", nil}},
	"View.acts":          []Act{{Index: 98, TimeMS: 99, By: "by 100", What: "what 101", About: "about 102", Refused: "", Count: 104}},
	"View.refusals":      []Act{{Index: 105, TimeMS: 106, By: "by 107", What: "what 108", About: "about 109", Refused: "refused 110", Count: 111}},
	"requestLog.results": []string{"71 s-1", "72 s-1"},
	"Trial.Number":       int64(2), "Trial.Status": trial.Running, "Trial.Verdict": trial.VerdictPause, "Trial.Source": trial.SourceEnqueued, "Origin.Trial": int64(1),
	"Run.Group": &trial.RunGroup{Min: 1, Max: 61, Shards: 62, Joined: 63, Members: []trial.GroupMember{
		{ID: 8, Worker: "w 64", Slot: "s 65", Incarnation: "i 66", Request: "r 67", Folder: "f 68", GrantedMS: 69, Leaving: true, Address: "a 70"}, {ID: 9, Worker: "w 71", Slot: "s 72"}},
		Views: []trial.View{{Number: 73, Members: []int32{1, 8}, TimeMS: 74, Step: 75, Reason: "r 76", PauseMS: 77}, {Number: 78, Members: []int32{8}}},
		Ended: []trial.GroupEnd{{Member: 1, Worker: "w 79", Slot: "s 80", Exit: trial.ExitKilled, Message: "m 81", TimeMS: 82}}},
	"Run.Credential": "credential 2",
	"Lease.Members":  []trial.GroupMember(nil), // the run's: see full
	"Finding.Status": trial.Diverged, "Run.Exit": trial.ExitKilled, "End.Verdict": trial.VerdictStop,
}

type filler struct{ n int64 }

// fill gives everything below v a value that nothing else has.
func (f *filler) fill(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	f.n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := fieldName(v.Type(), i)
			field := reachable(v.Field(i))
			if value, ok := given[name]; ok {
				field.Set(reflect.ValueOf(value))
			} else if notKept[name] == "" && !slices.Contains(rebuilt, name) {
				f.fill(t, field, name)
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return // the spec
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(t, v.Elem(), name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			f.fill(t, v.Index(i), name)
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(f.n)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.n))
	case reflect.Float64:
		v.SetFloat(float64(f.n) + 0.5)
	case reflect.String:
		v.SetString(fmt.Sprintf("%s %03d", name, f.n))
	default:
		t.Fatalf("%s: this test does not know how to fill a %s", name, v.Kind())
	}
}

// fieldName is "Type.field", without the arguments of a generic type.
func fieldName(t reflect.Type, i int) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	return name + "." + t.Field(i).Name
}

// reachable is a field, exported or not, of something that can be addressed.
func reachable(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// Differences names the fields in which two states differ, those of notKept left out.
func Differences(a, b *View) (list []string) {
	differences(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem(), "View", &list)
	return list
}

func differences(a, b reflect.Value, path string, list *[]string) {
	differ := func(a, b any) { *list = append(*list, fmt.Sprintf("%s: %v and %v", path, a, b)) }
	if m, ok := a.Interface().(proto.Message); ok {
		if !proto.Equal(m, b.Interface().(proto.Message)) {
			differ(m, b)
		}
		return
	}
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if notKept[fieldName(a.Type(), i)] == "" {
				differences(reachable(a.Field(i)), reachable(b.Field(i)), path+"."+a.Type().Field(i).Name, list)
			}
		}
	case reflect.Pointer:
		switch {
		case a.IsNil() || b.IsNil():
			if a.IsNil() != b.IsNil() {
				differ(a, b)
			}
		case a.Pointer() != b.Pointer():
			differences(a.Elem(), b.Elem(), path, list)
		}
	case reflect.Slice:
		if a.Len() != b.Len() {
			differ(a, b)
			return
		}
		for i := range a.Len() {
			differences(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i), list)
		}
	case reflect.Float64:
		if math.Float64bits(a.Float()) != math.Float64bits(b.Float()) {
			differ(a, b)
		}
	default:
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			differ(a, b)
		}
	}
}

// zero names the fields below v that are zero wherever they stand; seen has those
// that are not.
func zero(v reflect.Value, seen map[string]bool) {
	switch v.Kind() {
	case reflect.Struct:
		if _, ok := v.Addr().Interface().(proto.Message); ok || v.Type() == reflect.TypeFor[spec.Spec]() {
			return
		}
		for i := range v.NumField() {
			field := reachable(v.Field(i))
			name := fieldName(v.Type(), i)
			seen[name] = seen[name] || !field.IsZero()
			zero(field, seen)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			zero(v.Elem(), seen)
		}
	case reflect.Slice:
		for i := range v.Len() {
			zero(v.Index(i), seen)
		}
	}
}

// full is a machine in whose state every field has a value of its own.
func full(t *testing.T) *Machine {
	t.Helper()
	text, err := os.ReadFile("../../common/spec/testdata/v1/full.json")
	if err != nil {
		t.Fatal(err)
	}
	document := strings.TrimSpace(string(text))
	sp, err := spec.Decode(document)
	if err != nil {
		t.Fatal(err)
	}
	m := New()
	f := &filler{n: 100}
	f.fill(t, reflect.ValueOf(&m.live).Elem(), "View")
	s := &Sweep{Spec: sp}
	f.fill(t, reflect.ValueOf(s).Elem(), "Sweep")
	s.SpecJSON = document
	deleted := *s // one that has ended: others are not deleted
	deleted.ID, deleted.Status, deleted.CreateRequest, deleted.DeletedMS = "s-2", trial.SweepFinished, "made s-2", 77
	m.addSweep(s)
	m.addTrial(s, &Trial{Number: 1, ParamsJSON: "{}", Status: trial.Failed, Findings: []Finding{{Ordinal: 1, Status: trial.Failed}},
		Runs: []Run{{Token: 1, Exit: trial.ExitBadSpec}}})
	second := &Trial{}
	f.fill(t, reflect.ValueOf(second).Elem(), "Trial")
	last := &second.Runs[1]
	last.Exit, second.Lease.Token, second.Lease.Members = 0, last.Token, last.Group.Members
	second.curve.layout = m.addLayout(s.ID, s.metrics)
	second.curve.values, second.curve.absent = []float64{0.25, math.NaN(), 0.75, 1}, []uint32{1}
	m.addTrial(s, second)
	m.addTrial(s, &Trial{Number: 3, Status: trial.Waiting, ParamsJSON: "{}", Runs: []Run{{Token: last.Token + 1, Exit: trial.ExitLost}}})
	m.addTrial(s, &Trial{Number: 4, Status: trial.Waiting, ParamsJSON: "{}"})
	m.addSweep(&deleted)

	saved := New()
	begin := &logv1.BeginRestore{Id: "r-1", Bytes: 1000, Sha256: make([]byte, 32), Format: StreamFormat, TakenMs: 1}
	begin.Sha256[0] = 1
	var b bytes.Buffer
	if _, err := saved.View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	var r Result
	m.beginRestore(begin, &r)
	m.stageRestore(&logv1.StageRestore{Id: "r-1", Data: b.Bytes()}, &r)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return m
}

func TestSnapshotKeepsEveryField(t *testing.T) {
	m := full(t)
	seen := map[string]bool{}
	zero(reflect.ValueOf(&m.live).Elem(), seen)
	for name, filled := range seen {
		of, _, _ := strings.Cut(name, ".")
		if !filled && notKept[name] == "" && !slices.Contains(rebuilt, name) && !slices.Contains([]string{"vector", "node", "Counts"}, of) {
			t.Errorf("%s: has no value: the test cannot tell whether a snapshot keeps it", name)
		}
	}
	var b bytes.Buffer
	if _, err := m.View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	stream := bytes.Clone(b.Bytes())
	read := New()
	if err := read.Restore(&b); err != nil {
		t.Fatal(err)
	}
	for _, d := range Differences(m.View(), read.View()) {
		t.Errorf("written and read: %s", d)
	}
	if m.View().Hash() != read.View().Hash() {
		t.Error("another hash")
	}
	everyRecordFieldIsWritten(t, stream)
}

// unwritten are the fields of records that no snapshot of today has.
var unwritten = map[string]string{
	"CreateSweep.name": "spec_json", "CreateSweep.training_json": "spec_json", "CreateSweep.seed": "spec_json", "CreateSweep.objective": "spec_json",
	"CreateSweep.search_method": "spec_json", "CreateSweep.algorithm": "spec_json", "CreateSweep.trainer": "spec_json", "CreateSweep.parallelism": "spec_json",
	"CreateSweep.max_retries": "spec_json", "CreateSweep.checkpoint_bytes": "spec_json", "CreateSweep.stopping_json": "spec_json", "CreateSweep.warm_start": "spec_json",
	"Alias.location": "the index", "LeaseRecord.members": "the run's", "CreateSweep.notify": "the sweep's record", "CreateSweep.objectives": "spec_json", "CreateSweep.constraints": "spec_json", "CreateSweep.requires": "spec_json",
	"ConsumeInvite.id": "the invitation's", "Checkpoint.sweep_id": "the record before", "Checkpoint.trial": "the trial's record", "SetMember.cluster_id": "the header's",
}

// everyRecordFieldIsWritten wants each field that a record of the stream may have
// in one of them.
func everyRecordFieldIsWritten(t *testing.T, stream []byte) {
	t.Helper()
	written := map[string]bool{}
	var look func(m protoreflect.Message)
	look = func(m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			name := string(m.Descriptor().Name()) + "." + string(f.Name())
			written[name] = written[name] || m.Has(f)
			switch {
			case f.Message() == nil || !m.Has(f) || f.Message().Name() == "WarmTrial": // kept as it came
			case f.IsList():
				for j := range m.Get(f).List().Len() {
					look(m.Get(f).List().Get(j).Message())
				}
			default:
				look(m.Get(f).Message())
			}
		}
	}
	for r := bufio.NewReader(bytes.NewReader(stream)); ; {
		var record logv1.Record
		if err := protodelim.UnmarshalFrom(r, &record); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		look(record.ProtoReflect())
	}
	for name, is := range written {
		if !is && unwritten[name] == "" {
			t.Errorf("%s: no snapshot has it, and it is not listed as such", name)
		}
		if is && unwritten[name] != "" {
			t.Errorf("%s is written, and listed as not", name)
		}
	}
}
