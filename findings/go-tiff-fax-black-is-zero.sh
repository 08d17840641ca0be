#!/usr/bin/env bash
# Go's TIFF reader gives the negative of a fax-compressed picture whose zeros are black.
#
# Guess: PhotometricInterpretation says whether 0 is black or white, and a reader that knows both gives the same
# picture for both: the same white page with a black bar, written once as BlackIsZero and once as WhiteIsZero.
# Seen with golang.org/x/image v0.48.0 (tiff, ccitt) and npm sharp 0.34.5 (libvips and libtiff), which writes both files and
# reads both back alike: 256 dark pixels of 2,048. Go reads 256 in the WhiteIsZero file and 1,792 in the BlackIsZero one: for
# CCITT group 3 and 4 it takes white as white whatever the tag says. No error is returned. A scan that a program before Go
# wrote with BlackIsZero is learned from as its negative.
#
# Needs Go, node 20 or later, npm and their registries.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --ignore-scripts --no-audit --no-fund sharp@0.34.5 >/dev/null 2>&1
cat >write.js <<'JS'
const sharp = require('sharp');
(async () => {
  const width = 64, height = 32, page = Buffer.alloc(width * height, 255);
  for (let y = 8; y < 16; y++) page.fill(0, y * width + 8, y * width + 40); // a bar of 256 dark pixels
  for (const [name, miniswhite] of [['BlackIsZero', false], ['WhiteIsZero', true]]) {
    await sharp(page, { raw: { width, height, channels: 1 } }).toColourspace('b-w')
      .tiff({ compression: 'ccittfax4', bitdepth: 1, miniswhite }).toFile(name + '.tif');
    const { data, info } = await sharp(name + '.tif').toColourspace('b-w').raw().toBuffer({ resolveWithObject: true });
    let dark = 0;
    for (let i = 0; i < data.length; i += info.channels) if (data[i] < 128) dark++;
    console.log(`${name}: ${dark} dark pixels as sharp reads it`);
    if (dark !== 256) process.exit(1);
  }
})();
JS
node write.js
cat >go.mod <<'MOD'
module fax
go 1.24
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"image/color"
	"os"

	"golang.org/x/image/tiff"
)

func main() {
	want := map[string]int{"BlackIsZero": 1792, "WhiteIsZero": 256}
	for _, name := range []string{"BlackIsZero", "WhiteIsZero"} {
		f, err := os.Open(name + ".tif")
		if err != nil {
			panic(err)
		}
		m, err := tiff.Decode(f)
		if err != nil {
			panic(err)
		}
		dark := 0
		for y := range m.Bounds().Dy() {
			for x := range m.Bounds().Dx() {
				if color.GrayModel.Convert(m.At(x, y)).(color.Gray).Y < 128 {
					dark++
				}
			}
		}
		fmt.Printf("%s: %d dark pixels as Go reads it\n", name, dark)
		if dark != want[name] {
			fmt.Println("CHANGED")
			os.Exit(1)
		}
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$work/modules" GOWORK=off
go get golang.org/x/image@v0.48.0 >/dev/null 2>&1
go run .
