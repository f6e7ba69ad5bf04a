# Every target is a step of .ci/run, so that CI and people run the same.

STEPS := fmt vet lint arch api-check test backends interop sim fuzz cross demo benches clone

.PHONY: check api format tools bench $(STEPS)

check:
	bash .ci/run

api:
	bash .ci/api

format: tools
	bin/gofumpt -w $$(git ls-files '*.go')

tools:
	bash .ci/run tools

# Not a step: it takes a quarter of an hour and a quiet machine.
bench:
	$(MAKE) -C bench

api-check:
	bash .ci/run api

$(filter-out api-check,$(STEPS)):
	bash .ci/run $@
