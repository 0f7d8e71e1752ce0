# Sourced by scripts/test and scripts/fuzz, after common.sh: libFuzzer on the sans-IO core. POSIX sh.
# shellcheck shell=sh

# shellcheck disable=SC2034
FUZZ_TARGETS="request response chunked trailers frames tunnel registration control hello proxy meta websocket"

# The fuzzer, and the build that tells it where it has been. Its wheels are for x86-64 and Python up to 3.13.
need_fuzzer() {
    python -c 'import importlib.metadata as m; m.version("atheris")' 2>/dev/null ||
        pip_install --only-binary :all: 'atheris>=2.3'
    build_tree fuzz
    "${CC:-cc}" -shared -fPIC -O2 -o build/fuzz/coverage.so tests/fuzz/coverage.c
    FUZZ_RUNTIME=$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/asan_with_fuzzer.so
    [ -f "$FUZZ_RUNTIME" ] || die "atheris has come without $FUZZ_RUNTIME"
}

# libFuzzer on one target: run_fuzzer TARGET ARGUMENT...
run_fuzzer() {
    target=$1
    shift
    # Python leaks at exit; leaks of ours are counted by the targets. The sanitizers come with the fuzzer.
    on_tree fuzz env LD_PRELOAD="$ROOT/build/fuzz/coverage.so $FUZZ_RUNTIME" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:abort_on_error=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        python -m tests.fuzz.run "$target" -max_len=4096 -timeout=20 -rss_limit_mb=2048 -verbosity=1 \
        -print_final_stats=1 -artifact_prefix="build/fuzz/found/$target-" "$@"
}

# fuzz_target TARGET SECONDS: new inputs go to build/fuzz/corpus, what breaks something to build/fuzz/found.
fuzz_target() {
    mkdir -p "build/fuzz/corpus/$1" build/fuzz/found
    run_fuzzer "$1" -max_total_time="$2" "build/fuzz/corpus/$1" "tests/fuzz/corpus/$1"
}

# fuzz_merge TARGET: what reaches something new goes from build/fuzz/corpus to the corpus of the repository.
fuzz_merge() {
    run_fuzzer "$1" -merge=1 -max_len=1024 "tests/fuzz/corpus/$1" "build/fuzz/corpus/$1"
}
