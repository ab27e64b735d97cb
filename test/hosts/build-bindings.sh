#!/bin/sh
# Builds the Python bindings of the installed OTB (otbApplication), which Debian does not package, from the sources of Debian's own OTB package.
# Not part of `make test`: test/hosts/test_chain.py is skipped without them.
#
# usage: test/hosts/build-bindings.sh FOLDER
#
# Needs apt (a source archive of 700 MB is fetched, nothing is installed), swig, cmake, libotb-dev, python3-dev, python3-numpy. Afterwards:
#   OTBTORCH_SWIG=FOLDER ctest --test-dir build -R hosts_chain
#   PYTHONPATH=FOLDER OTB_APPLICATION_PATH=build/lib/otb/applications python3
set -eu
[ $# -eq 1 ] || { sed -n 's/^# usage: //p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
for program in swig cmake apt-get; do
  command -v $program > /dev/null || { echo "$0: $program is not installed" >&2; exit 1; }
done
version=$(dpkg-query -W -f '${source:Version}' libotb-dev)
code=$(. /etc/os-release && echo "$VERSION_CODENAME")

# The archive's sources, without touching the system's list of them.
if [ ! -d "$out/src/Modules/Wrappers/SWIG" ]; then
  mkdir -p "$out/apt/sources" "$out/apt/lists/partial" "$out/apt/cache/archives/partial"
  cat > "$out/apt/sources/otb.sources" << END
Types: deb-src
URIs: ${MIRROR:-http://deb.debian.org/debian}
Suites: $code
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
  apt="apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$out/apt/sources -o Dir::State::lists=$out/apt/lists -o Dir::Cache=$out/apt/cache"
  $apt update
  (cd "$out/apt" && $apt --download-only source "otb=$version")
  mkdir -p "$out/src"
  tar xJf "$out/apt/"otb_*.orig.tar.xz -C "$out/src" --wildcards '*Modules/Wrappers/SWIG/*'
fi

cat > "$out/src/CMakeLists.txt" << 'END'
cmake_minimum_required(VERSION 3.18)
project(otbApplication CXX)
find_package(Boost REQUIRED COMPONENTS filesystem serialization)
find_package(OTB REQUIRED COMPONENTS OTBApplicationEngine)
include(${OTB_USE_FILE})
find_package(Python3 REQUIRED COMPONENTS Interpreter Development NumPy)
find_package(SWIG 4 REQUIRED)
include(UseSWIG)
set(_swig "${CMAKE_CURRENT_SOURCE_DIR}/Modules/Wrappers/SWIG/src")
# Without -flatstaticmethod the module of SWIG 4.1 asks for names that it does not have.
set(CMAKE_SWIG_FLAGS -flatstaticmethod -DOTB_SWIGNUMPY=1 -I${_swig} -I${_swig}/python)
set(CMAKE_SWIG_OUTDIR "${OUT}")
set_source_files_properties(${_swig}/otbApplication.i PROPERTIES CPLUSPLUS ON)
swig_add_library(otbApplication LANGUAGE python OUTPUT_DIR "${OUT}"
  SOURCES ${_swig}/otbApplication.i ${_swig}/python/itkPyCommand.cxx ${_swig}/python/otbPythonLogOutput.cxx ${_swig}/python/otbProgressReporterManager.cxx)
target_include_directories(otbApplication PRIVATE ${_swig} ${_swig}/python ${Python3_NumPy_INCLUDE_DIRS})
target_compile_options(otbApplication PRIVATE -w)
target_link_libraries(otbApplication PRIVATE OTBApplicationEngine Python3::Python)
set_target_properties(otbApplication PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${OUT}")
END
cmake -S "$out/src" -B "$out/build" -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE="${PYTHON:-/usr/bin/python3}" -DOUT="$out"
cmake --build "$out/build"
PYTHONPATH="$out" "${PYTHON:-/usr/bin/python3}" -c 'import otbApplication; print("Built", otbApplication.__file__)'
