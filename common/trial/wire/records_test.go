package wire_test

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// fill sets every field of a message, and of those in it, to values that differ
// from one another; lists and maps get one entry.
func fill(m protoreflect.Message, next *int) {
	value := func(f protoreflect.FieldDescriptor) protoreflect.Value {
		*next++
		switch f.Kind() {
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(2)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(int32(*next))
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(int64(*next))
		case protoreflect.Uint64Kind:
			return protoreflect.ValueOfUint64(uint64(*next))
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(float64(*next) + 0.5)
		}
		return protoreflect.ValueOfString(string('0'+rune(*next%10)) + "0") // a JSON document, too
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(value(f.MapKey()).MapKey(), value(f.MapValue()))
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message(), next)
		case f.IsList():
			m.Mutable(f).List().Append(value(f))
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), next)
		case f.Message() == nil:
			m.Set(f, value(f))
		}
	}
}

// missing names the fields, also of messages in it, without which convert makes
// the same of the message as with them.
func missing(m protoreflect.Message, path string, convert func() any) (out []string) {
	full := convert()
	copied := proto.Clone(m.Interface()).ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := path + string(f.Name())
		m.Clear(f)
		same := reflect.DeepEqual(convert(), full)
		m.Set(f, copied.Get(f))
		switch {
		case same:
			out = append(out, name)
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			out = append(out, missing(m.Get(f).List().Get(0).Message(), name+".", convert)...)
		default:
			out = append(out, missing(m.Get(f).Message(), name+".", convert)...)
		}
	}
	return out
}

// A field that a message gets has a place in the record, or stands here.
func TestEveryFieldIsCarried(t *testing.T) {
	check := func(m proto.Message, convert func() any, omitted ...string) {
		t.Helper()
		next := 0
		fill(m.ProtoReflect(), &next)
		got := missing(m.ProtoReflect(), "", convert)
		slices.Sort(omitted)
		slices.Sort(got)
		if !slices.Equal(got, omitted) {
			t.Errorf("%s: the record does not carry %q, want all but %q", m.ProtoReflect().Descriptor().Name(), got, omitted)
		}
	}
	sweep, one, checkpoint, report := &atelierv1.Sweep{}, &atelierv1.Trial{}, &atelierv1.Checkpoint{}, &atelierv1.Report{}
	row, worker := &atelierv1.LeaderboardRow{}, &atelierv1.Worker{}
	// The best trial is told in short.
	var best []string
	fields := one.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !slices.Contains([]string{"number", "has_value", "value", "value_epoch", "params_json", "metrics"}, name) {
			best = append(best, "best."+name)
		}
	}
	check(sweep, func() any { return wire.Sweep(sweep) }, best...)
	check(one, func() any { return wire.Trial(one) }, "findings") // search's, which the cluster keeps
	check(checkpoint, func() any { return wire.Checkpoint(checkpoint) })
	check(report, func() any { return wire.Report(report) })
	check(row, func() any { return wire.Row(row) })
	alias := &atelierv1.Alias{}
	check(alias, func() any { return wire.Alias(alias) })
	check(worker, func() any { return wire.Worker(worker) })

	// And back, what is sent as well.
	for _, x := range []struct{ was, is proto.Message }{{checkpoint, wire.ToCheckpoint(wire.Checkpoint(checkpoint))}, {report, wire.ToReport(wire.Report(report))}, {worker, wire.ToWorker(wire.Worker(worker))}} {
		if !proto.Equal(x.was, x.is) {
			t.Errorf("%v came back as %v", x.was, x.is)
		}
	}
	if c := wire.ToCheckpoint(trial.Checkpoint{Epoch: 3}); c.HasMetric || wire.Checkpoint(c).Metric != nil || wire.Worker(wire.ToWorker(trial.Worker{})).Usage != nil {
		t.Error("what is absent came back")
	}
}
