# Atelier. `make run` and `make test` do everything on a fresh Debian 12 with Go.
SHELL := /bin/bash
GO ?= go
BIN := bin
export PATH := $(PATH):/usr/local/go/bin
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS := -s -w -X atelier/common/version.Version=$(VERSION)

# Debian packages: what programs need, and what only tests and parity need.
RUN_PACKAGES := g++ libtorch-dev redis-server
BENCH_PACKAGES := python3-optuna
TEST_PACKAGES := $(RUN_PACKAGES) python3-torch python3-torchvision python3-sklearn chromium $(shell command -v npm >/dev/null || echo nodejs npm) curl

# Where libtorch is; empty = Debian's.
LIBTORCH ?=
export LIBTORCH

# Shows what go test -json says, and which tests were skipped without being allowed to.
SHOW := CGO_ENABLED=0 $(GO) run ./deploy/skips

# make run
DATA ?=
RUN_FLAGS ?=

.PHONY: help run test test-go test-trainer test-cluster build programs trainer libtorch deps test-deps lint bench bench-cluster bench-go bench-search bench-stop bench-sweeps bench-tracking bench-trainer bench-inference bench-data bench-group gpu-check gpu-test gpu-test-programs fuzz parity proto settings man charts screenshots clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

run: deps build ## a local cluster runs three sweeps on house facades, or on DATA=folder
	$(BIN)/atelier-local $(if $(DATA),--data "$(DATA)") $(RUN_FLAGS)

build: programs trainer ## all programs into bin/

programs: ## the pure-Go programs: atelier, atelier-coordinator, atelier-worker, atelier-local
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/atelier ./tuner
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/atelier-coordinator ./coordinator
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/atelier-worker ./worker
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/atelier-local ./deploy/local/run

libtorch: deps ## gotorch's C++ and torchx into one shared library
	deploy/libtorch/build.sh

trainer: libtorch ## atelier-trainer, which needs only that library
	@mkdir -p $(BIN)
	eval "$$(deploy/libtorch/build.sh --env)" && CGO_ENABLED=1 $(GO) build -tags libtorch -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/atelier-trainer ./worker/trainer
	install -m 755 build/libtorch/libcgotorch.so $(BIN)/ # beside it, so that bin/ can be copied to other machines

deps: ## Debian packages the programs need
	@deploy/packages.sh $(RUN_PACKAGES)

test-deps: ## Debian packages the tests need
	@deploy/packages.sh $(TEST_PACKAGES)

test: export MUST_RUN := 1# a test that is skipped and not in deploy/skips/skips.txt fails
test: test-deps build lint test-go test-trainer test-cluster ## everything the project promises

test-go: ## pure Go, fast, no libtorch
	set -o pipefail; CGO_ENABLED=0 $(GO) test -json -timeout 20m $$($(GO) list ./... | grep -v atelier/deploy/e2e) | $(SHOW)

test-trainer: libtorch ## the trainer against libtorch, parity with torchvision
	set -o pipefail; eval "$$(deploy/libtorch/build.sh --env)" && CGO_ENABLED=1 $(GO) test -json -timeout 40m -tags libtorch ./worker/trainer/... | $(SHOW)

test-cluster: programs ## real processes, killed and stopped
	set -o pipefail; CGO_ENABLED=0 $(GO) test -json -count=1 -timeout 30m ./deploy/e2e/... | $(SHOW)

lint: libtorch ## gofmt, a tidy go.mod, go vet and staticcheck with and without libtorch
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) mod tidy -diff
	CGO_ENABLED=0 $(GO) build -modfile deploy/lint.mod -o build/staticcheck honnef.co/go/tools/cmd/staticcheck
	CGO_ENABLED=0 $(GO) vet ./... && CGO_ENABLED=0 build/staticcheck ./...
	eval "$$(deploy/libtorch/build.sh --env)" && export CGO_ENABLED=1 && $(GO) vet -tags libtorch ./worker/trainer/... && build/staticcheck -tags libtorch ./worker/trainer/...

parity: test-deps libtorch ## numbers beside torchvision's
	eval "$$(deploy/libtorch/build.sh --env)" && CGO_ENABLED=1 $(GO) test -count=1 -timeout 25m -tags libtorch -run 'Parity' -v ./worker/trainer/...

bench: bench-go bench-cluster bench-search bench-stop bench-tracking bench-trainer bench-inference bench-data bench-group ## all measurements

bench-go: ## benchmarks of single rooms
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchtime 1s ./coordinator/state/... ./tuner/search/... ./common/...

bench-cluster: programs ## the cluster's figures, beside bare raft in the same run
	CGO_ENABLED=0 $(GO) run ./deploy/bench/cluster $(BENCH_FLAGS)

bench-search: programs ## search methods beside Debian's Optuna: make bench-search SEARCH_FLAGS="-seeds 3 -methods gp"
	@deploy/packages.sh $(BENCH_PACKAGES)
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -o build/bench-search ./deploy/bench/search && build/bench-search -atelier $(BIN)/atelier $(SEARCH_FLAGS)

bench-stop: ## what stopping rules save, in virtual time on curves of real trainings
	CGO_ENABLED=0 $(GO) run ./deploy/bench/stop $(STOP_FLAGS)

bench-sweeps: build ## sweeps of real trainings, a method each: make bench-sweeps SWEEPS_FLAGS="-data pictures -seeds 1,2"
	CGO_ENABLED=0 $(GO) build -o build/bench-sweeps ./deploy/bench/sweeps && build/bench-sweeps $(SWEEPS_FLAGS)

bench-tracking: build ## what MLflow costs a training
	CGO_ENABLED=0 $(GO) build -o build/bench-tracking ./deploy/bench/tracking && build/bench-tracking $(TRACKING_FLAGS)

bench-trainer: test-deps build ## the trainer beside PyTorch, 40 minutes; 5 with TRAINER_BENCH_FLAGS="--sizes 64 --rounds 2 --parts steps"
	CGO_ENABLED=0 $(GO) run ./deploy/bench/training $(TRAINER_BENCH_FLAGS)

bench-inference: test-deps build ## production mode beside PyTorch one image at a time; the web app under load: INFERENCE_BENCH_FLAGS="-rounds 1 -journal rounds.jsonl"
	CGO_ENABLED=0 $(GO) run ./deploy/bench/inference $(INFERENCE_BENCH_FLAGS)

bench-data: test-deps programs ## cleanup and packing beside Python; what cleanup finds: make bench-data DATA_FLAGS="-parts faults"
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -o build/bench-data ./deploy/bench/data && build/bench-data $(DATA_FLAGS)

bench-group: test-deps build ## trainings of several members: bits, faults, speed beside DistributedDataParallel: make bench-group DATA=images GROUP_FLAGS="-parts bits"
	@mkdir -p build
	CGO_ENABLED=0 $(GO) build -o build/bench-group ./deploy/bench/group && build/bench-group $(if $(DATA),-images "$(DATA)") $(GROUP_FLAGS)

gpu-check: ## the trainer built for CUDA on a machine without a GPU, in a Debian 13 of its own (root, 7 GB): make gpu-check GPU_CHECK_FLAGS="-run X ./worker/trainer/"
	deploy/libtorch/gpu-check.sh $(GPU_CHECK_FLAGS)

gpu-test-programs: build ## what gpu-test needs on a GPU machine without Go, in build/gpu-test; carry the checkout and that folder there
	deploy/libtorch/gpu-test.sh --programs

gpu-test: ## on a machine with a GPU: the library against its libtorch or PyTorch, tests on the device, images a second beside PyTorch
	deploy/libtorch/gpu-test.sh

FUZZTIME ?= 20s
fuzz: ## every fuzz test for FUZZTIME
	@set -e; for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$p/*_test.go | sed 's/func //'); do \
	    echo "$$p $$f"; CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

charts: ## a gallery of every chart, with drawn data, into build/charts
	rm -rf build/charts && mkdir -p build/charts
	ATELIER_PLOTS=$(CURDIR)/build/charts CGO_ENABLED=0 $(GO) test -count=1 ./common/plot ./tuner/tune/report ./tuner/data/info ./worker/trainer/score ./worker/trainer/explain/chart ./worker/trainer/augment -run 'Panel|EveryCase|Charts|Sheet|Gallery'

settings: ## configuration files, the reference page and the page of troubleshooting, from the tables that the programs read
	CGO_ENABLED=0 $(GO) test -count=1 ./deploy/conf -run TestGeneratedFilesAreCurrent -write

man: programs ## manual pages of all programs, in build/man (man -M build/man atelier)
	@mkdir -p build/man/man8 && bin/atelier man build/man
	@for p in coordinator worker; do bin/atelier-$$p --man > build/man/man8/atelier-$$p.8 || exit 1; done

screenshots: test-deps build ## the pictures of README, from drawn facades: deploy/docs/pictures
	ATELIER_BIN=$(CURDIR)/$(BIN) ATELIER_PICTURES=$(CURDIR)/deploy/docs/pictures CGO_ENABLED=0 $(GO) test -count=1 -timeout 30m -run '^TestScreenshots$$' ./deploy/e2e

proto: ## Go code of the schemas (needs protobuf-compiler)
	common/proto/generate.sh

clean: ## what builds and runs left
	rm -rf $(BIN) build run
