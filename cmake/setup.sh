#!/bin/sh
# Installs what the tests, examples and benchmarks need and the system lacks (Debian 12 or later, Ubuntu
# 24.04 or later). Does nothing where all is there. The headers themselves need none of it.
#
#   sh cmake/setup.sh           compiler, build tools, libraries, pip (which fetches the demo's model)
#   sh cmake/setup.sh --ci      also what the stricter presets use: the newest clang that the system has, its OpenMP
#                               and sanitizers, clang-format; Doxygen, which makes and checks the reference; MPI,
#                               for the example that calibrates with it; and ONNX's library, to export models
#   sh cmake/setup.sh --peers   also what benchmarks are timed beside: LAPACK, and in a folder of the user's cache
#                               PyTorch, ONNX Runtime, NumPy, SciPy and, for pictures, Matplotlib from the Python
#                               package index (6 GB)
# shellcheck disable=SC2086 # lists of packages are split into words
set -eu

needed="g++ cmake ninja-build libeigen3-dev libxsimd-dev catch2 libbenchmark-dev nlohmann-json3-dev
    libutf8proc-dev libpcre2-dev libcli11-dev libfmt-dev python3 python3-pip"
# Absent from some systems; without them the encoder is slower, and the Thrust policy is not tested.
optional="libdnnl-dev libthrust-dev"
peers=
newest_clang=

case "${1-}" in
"") ;;
--ci)
    needed="$needed clang-format doxygen libmpich-dev mpich libonnx-dev libprotobuf-dev"
    newest_clang=yes
    ;;
--peers)
    needed="$needed python3-venv liblapack-dev libopenblas0-pthread"
    peers="${XDG_CACHE_HOME:-$HOME/.cache}/pare/peers"
    ;;
*)
    echo "setup.sh: unknown option '$1'; there are --ci and --peers" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: this system has no apt; install a C++17 compiler, CMake 3.25, Ninja, Eigen 3.4, xsimd 8.1," \
        "Catch2 2.13, Google Benchmark, nlohmann-json, utf8proc, PCRE2, CLI11, fmt, Python 3 with pip and, if you" \
        "can, oneDNN and Thrust 1.17." >&2
    exit 2
fi

# Those of the packages "$@" that are not installed.
missing() {
    for package; do
        case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" in
        installed) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

# Those of the packages "$@" that apt could install.
available() {
    for package; do
        case "$(apt-cache policy "$package" 2>/dev/null)" in
        "" | *"Candidate: (none)"*) ;;
        *) printf '%s ' "$package" ;;
        esac
    done
}

finish() {
    if [ -n "$peers" ] && ! [ -e "$peers/complete" ]; then
        echo "setup.sh: installing PyTorch, ONNX Runtime, NumPy and SciPy in $peers"
        quietly python3 -m venv --clear "$peers"
        quietly "$peers/bin/pip" install torch transformers numpy scipy onnx onnxruntime matplotlib
        : >"$peers/complete"
    fi
    exit 0
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        echo "setup.sh: failed: $*" >&2
        exit 1
    fi
}

as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
update() { quietly $as_root apt-get update; }

if [ -n "$newest_clang" ]; then
    newest() { apt-cache search --names-only '^clang-[0-9]+$' | sed 's/ .*//' | sort -V | tail -n 1; }
    [ -n "$(newest)" ] || update
    version=$(newest)
    version=${version#clang-}
    needed="$needed clang-$version libomp-$version-dev libclang-rt-$version-dev"
fi

wanted=$(missing $needed)
extra=$(missing $optional)
if [ -z "$wanted" ]; then
    [ -n "$extra" ] && extra=$(available $extra)
    [ -z "$extra" ] && finish
fi

if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
    echo "setup.sh: run as root: apt-get install $wanted$extra" >&2
    exit 2
fi

install="env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"

update
extra=$(available $extra)
echo "setup.sh: installing $wanted$extra"
[ -z "$wanted" ] || quietly $as_root $install $wanted
if [ -n "$extra" ] && ! $as_root $install $extra >"$log" 2>&1 </dev/null; then
    echo "setup.sh: going on without $extra"
fi
finish
