#!/bin/sh
# Installs the Debian packages that are missing, and only those. As root, or with sudo; otherwise says what to install.
#   install-packages.sh             what the build, its tests and the demo need
#   install-packages.sh hosts       also the programs that run the applications: QGIS, Monteverdi, dask, and a screen for them
#   install-packages.sh package     also what `make package` needs
set -eu

# Build: OTB's exported targets want Qt, Qwt, FFTW, TinyXML and three of OTB's own programs to be there. OpenBLAS: without it LibTorch's matrix
# products run some twenty times slower. Tests: GoogleTest, pytest, jsonschema. Demo and reports: NumPy, GDAL for Python, matplotlib, Pillow,
# Jinja2, Markdown (PDF: also weasyprint, which is not installed here).
packages="
  cmake g++ make
  libotb-dev otb-bin otb-bin-qt otb-qgis
  libtorch-dev libopenblas0-pthread nlohmann-json3-dev libeigen3-dev libgdal-dev libopencv-dev
  libboost-filesystem-dev libboost-serialization-dev
  qtbase5-dev qttools5-dev libqt5opengl5-dev libqwt-qt5-dev libfftw3-dev libtinyxml-dev
  libgtest-dev libgmock-dev
  python3 python3-torch python3-numpy python3-gdal python3-matplotlib python3-pil python3-jinja2 python3-markdown python3-pytest python3-jsonschema
"

# Windows are looked at under Xvfb, moved by xdotool and photographed by ImageMagick.
hosts="qgis python3-qgis qgis-providers monteverdi xvfb xauth x11-utils xdotool imagemagick python3-dask python3-distributed"
# dpkg-dev finds the packages that our libraries need; lowdown makes manual pages.
package="dpkg-dev file lowdown"

for group in "$@"; do
  case $group in
    hosts) packages="$packages $hosts" ;;
    package) packages="$packages $package" ;;
    *) echo "install-packages.sh: no group \"$group\"; there are hosts and package" >&2; exit 2 ;;
  esac
done

missing=""
for package in $packages; do
  state=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$state" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
  as_root=""
elif command -v sudo >/dev/null 2>&1; then
  as_root="sudo"
else
  echo "Missing packages, and no way to become root here. Have them installed:" >&2
  echo "  apt-get install --no-install-recommends$missing" >&2
  exit 1
fi

echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get -o DPkg::Lock::Timeout=600 update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends $missing
