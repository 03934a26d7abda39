#!/usr/bin/env bash
# Build llama.cpp's `llama-server` from source, as a peer for the benchmarks.
#
# Usage: build_llamacpp.sh [TARGET]
#
#   TARGET  folder for the source, the build tree and the binary
#           (default: build/llamacpp in the root of this checkout)
#
# The source is the copy of llama.cpp that the sdist of llama-cpp-python ships
# under vendor/llama.cpp, so a Python package index is the only thing on the
# network this needs. Also needed: Python with pip, CMake 3.18 or newer, a
# C++17 compiler, and make (or whatever CMAKE_GENERATOR names).
#
# Progress goes to stderr. Stdout gets two lines, the same ones whether the
# binary was built now or was already there:
#
#   binary: TARGET/build/bin/llama-server
#   version: ...
#
# Environment: PYTHON (default python3), JOBS (parallel compile jobs, default 2).

set -euo pipefail

# What is built. These three belong together: change them together.
sdist_version=0.3.36
sdist_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
# The llama.cpp commit inside, from the sdist's CHANGELOG.md. The sdist has no
# git history to read it from, so it is handed to CMake for `--version`.
llama_commit=0c1e57098

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../.." && pwd)
python=${PYTHON:-python3}
jobs=${JOBS:-2}

if (( $# > 1 )); then
    echo "usage: ${0##*/} [TARGET]" >&2
    exit 2
fi
target=${1:-$root/build/llamacpp}
mkdir -p -- "$target"
target=$(cd -- "$target" && pwd)

sdist=$target/sdist/llama_cpp_python-$sdist_version.tar.gz
src=$target/src-$sdist_version
build=$target/build
binary=$build/bin/llama-server
stamp=$target/built-version     # written last: names what $binary was built from
stamp_text="llama-cpp-python $sdist_version, llama.cpp $llama_commit"

say() { printf '%s\n' "$*" >&2; }

report() {
    printf 'binary: %s\n' "$binary"
    # `--version` writes to stderr and adds a line on the compiler.
    "$binary" --version 2>&1 | sed -n '/^version/p'
}

# 0. Nothing to do when this very version is there already.
if [[ -x $binary && -f $stamp && $(<"$stamp") == "$stamp_text" ]]; then
    report
    exit 0
fi

# 1. Fetch the sdist. pip asks the package's build backend for its metadata
#    even when it only downloads. So pip is left to put that backend (small
#    and pure Python) in a throw-away environment of its own: only this one
#    package is held to its sdist, for `--no-binary :all:` would build the
#    backend itself from source. Nothing is compiled and nothing is installed.
check() { echo "$sdist_sha256  $sdist" | sha256sum --check --status; }
if ! { [[ -f $sdist ]] && check; }; then
    say "fetching the sdist of llama-cpp-python $sdist_version"
    rm -f -- "$sdist"
    "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python \
        --dest "${sdist%/*}" "llama-cpp-python==$sdist_version" >&2
    check || { say "error: $sdist does not have the expected SHA-256"; exit 1; }
fi

# 2. Unpack llama.cpp out of it, aside and then renamed, so that a folder of
#    this name is always a whole one.
if [[ ! -d $src ]]; then
    say "unpacking"
    rm -rf -- "$src.part"
    mkdir -- "$src.part"
    tar -xzf "$sdist" -C "$src.part" --strip-components=3 \
        "llama_cpp_python-$sdist_version/vendor/llama.cpp"
    rm -f -- "$src.part/.git"   # a submodule link to a repository that is not there
    mv -- "$src.part" "$src"
    # A build tree made from another version is of no use.
    rm -rf -- "$build" "$stamp"
fi

# 3. Configure: an optimised build for this very CPU, with OpenMP, in one
#    static-linked binary (system libraries aside). The web UI (npm, or a
#    download) and TLS are off: a benchmark on loopback needs neither, and
#    so the build touches no network.
say "configuring"
# Keep git, which the configure step asks for commit ids, from finding the
# repository that TARGET may lie in and reporting its commit as ggml's.
export GIT_CEILING_DIRECTORIES=$target
# ggml's AMX path ended in a general protection fault while loading a Q4_1 model (Intel Xeon in a virtual machine, this
# commit), so it is left out where the CPU has AMX. The AVX-512 paths stay.
flags=
if grep -qw amx_tile /proc/cpuinfo 2>/dev/null; then flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"; fi
cmake -S "$src" -B "$build" \
    -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=ON \
    -DCMAKE_C_FLAGS="$flags" \
    -DCMAKE_CXX_FLAGS="$flags" \
    -DGGML_OPENMP=ON \
    -DGGML_CCACHE=OFF \
    -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_TOOLS=ON \
    -DLLAMA_BUILD_SERVER=ON \
    -DLLAMA_BUILD_NUMBER=0 \
    -DLLAMA_BUILD_COMMIT="$llama_commit" >&2

# 4. Build. A run cut short goes on from here the next time.
say "building llama-server with $jobs jobs"
started=$SECONDS
cmake --build "$build" --config Release --target llama-server -j "$jobs" >&2
say "built in $((SECONDS - started)) s"

printf '%s\n' "$stamp_text" >"$stamp"
report
