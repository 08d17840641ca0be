package board

import (
	"fmt"
	"testing"

	"atelier/common/trial/wire"
)

func FuzzDecodeRow(f *testing.F) {
	f.Add(`{"trial":3,"status":"finished","value":"-0.25","params":"{\"lr\":1}","epoch":2,"checkpoint":"shared:a","metrics":{"val_loss":"0.5","a":"NaN"}}`)
	f.Add(`{"trial":3,"status":"running","value":"+inf","params":"{}","epoch":2,"metrics":{"val_loss":"0.5","a":"NaN"}}`)
	f.Add(`{"trial":3,"status":"unspecified","value":"NaN","metrics":{"val_loss":"0.5","a":"NaN"}}`)
	f.Add(`[]`)
	f.Add(`{"trial":3,"status":"finished","value":"1","epoch":2,"values":["1","NaN"],"goals":["1","-2e9"],"other_data":true,"metrics":{"val_loss":"0.5","a":"NaN"}}`)
	f.Add(`{"trial":3,"status":"finished","value":"1","epoch":2,"values":["1"],"metrics":{"val_loss":"0.5","a":"NaN"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		const objectives = 2
		r, err := decodeRow(text, objectives)
		if err != nil {
			return
		}
		again, err := encodeRow(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeRow(again, objectives)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(r) {
			t.Errorf("%q became %v, then %v (%v)", text, r, back, err)
		}
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	f.Add(`{"trial":3,"epoch":1,"metric":"0.5","size":10,"sha256":"00","location":"shared:x","worker":"w","created_ms":1,"token":9}`)
	f.Add(`{"trial":3,"epoch":1,"metric":"NaN","token":18446744073709551615}`)
	f.Add(`{"trial":-1}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeCheckpoint("s", text)
		if err != nil {
			return
		}
		again, err := encodeCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeCheckpoint("s", again)
		if err != nil || wire.ToCheckpoint(back).String() != wire.ToCheckpoint(c).String() {
			t.Errorf("%q became %v, then %v (%v)", text, c, back, err)
		}
	})
}
