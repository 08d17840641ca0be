#!/usr/bin/env bash
# Regenerates the Go code of the schemas. Needs protoc (Debian: protobuf-compiler).
set -euo pipefail
cd "$(dirname "$0")"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
GOBIN=$tools go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$tools go install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
PATH=$tools:$PATH protoc -I . \
  --go_out=. --go_opt=paths=source_relative \
  --connect-go_out=. --connect-go_opt=paths=source_relative \
  atelier/v1/model.proto atelier/v1/api.proto log/v1/log.proto
