package dataset

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
)

// benchImage is a JPEG with edges and texture, at the quality of the web.
func benchImage(w, h int) []byte {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			v := 128 + 60*math.Sin(float64(x)/9)*math.Cos(float64(y)/7) + float64((x*7919+y*104729)%31)
			m.SetRGBA(x, y, color.RGBA{byte(v), byte(v / 2), byte((x / 16) * 9), 255})
		}
	}
	var b bytes.Buffer
	jpeg.Encode(&b, m, &jpeg.Options{Quality: 85})
	return b.Bytes()
}
