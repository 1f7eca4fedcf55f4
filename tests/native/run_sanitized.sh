#!/usr/bin/env bash
# Build the native modules under AddressSanitizer and UndefinedBehaviourSanitizer and run the tests
# of closeby.index that drive their kernels.
#
#   tests/native/run_sanitized.sh PYTHON [pytest arguments]
#
# PYTHON is an interpreter that has closeby and its test extra (`make test-native` gives its own).
# The instrumented build goes to build/sanitized and never into that interpreter's environment.
# The first finding ends the run: the kernels are built with -fno-sanitize-recover=all.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(realpath --no-symlinks "${1:?usage: $0 PYTHON [pytest arguments]}")
shift
site=$PWD/build/sanitized/site
rm -rf "$site"
export CXX=${CXX:-g++}

echo "run_sanitized: building the kernels with -fsanitize=address,undefined"
"$python" -m pip install --disable-pip-version-check --quiet --no-deps --target "$site" \
  --config-settings=cmake.define.CLOSEBY_SANITIZE=ON --config-settings=build-dir=build/sanitized/cmake .

# The interpreter is not instrumented, so the sanitizers' runtimes have to be there before it.
libasan=$(realpath "$("$CXX" -print-file-name=libasan.so)")
libubsan=$(realpath "$("$CXX" -print-file-name=libubsan.so)")

sanitized() {
  # PYTHONMALLOC=malloc: every Python object becomes an allocation that ASan watches.
  # detect_leaks=0: CPython keeps memory until its end, and none of it is ours.
  env LD_PRELOAD="$libasan:$libubsan" \
    PYTHONMALLOC=malloc \
    PYTHONPATH="$site" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:strict_string_checks=1 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
    "$python" "$@"
}

sanitized - "$site" <<'PY'
import sys
import closeby.index._native as native

assert native.__file__.startswith(sys.argv[1]), native.__file__
with open("/proc/self/maps") as maps:
    assert "libasan" in maps.read(), "AddressSanitizer is not loaded"
print("run_sanitized: testing", native.__file__)
PY
# The files that drive every kernel with every shape. What they leave out of tests/index measures
# recall and collision rates on many points: the same kernels, minutes of instrumented arithmetic.
drive=()
for stem in native crew json_rows maxip_kernels batches features segments files lsh paper duplicates topk; do
  drive+=("tests/index/test_$stem.py")
done
drive+=("tests/index/test_calibration.py::test_ranked_cells_are_those_of_the_bitmaps")
drive+=("tests/index/test_sparse_engines.py::test_exact_scores_are_those_of_counting")
sanitized -m pytest -q -p no:cacheprovider -m 'not slow' -n auto "${drive[@]}" "$@"
