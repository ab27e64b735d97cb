#!/bin/bash
# The package on a clean Debian 12: installed, run in every host, removed again without a trace.
#
#   sudo test/hosts/clean-root.sh PACKAGE.deb ROOT [OUT]
#
# ROOT becomes a bare system (debootstrap, with this machine's package sources), gets the hosts and then the package, with
# nothing of this checkout but its tests, which run there against /usr/bin. OUT (default: ROOT.out) gets logs and screenshots.
# A ROOT that is there already is used again. Ends with 0 where all tests pass and nothing is left. Needs root, debootstrap, a network;
# about 15 minutes the first time.
set -euo pipefail
package=$(readlink -f "$1")
root=$(readlink -m "$2")
out=$(readlink -m "${3:-$root.out}")
here=$(cd "$(dirname "$0")/../.." && pwd)

if [ -z "${OTBTORCH_OWN_MOUNTS:-}" ]; then
  # Mounts of our own: they go when this ends, however it ends.
  OTBTORCH_OWN_MOUNTS=1 exec unshare --mount --pid --fork "$0" "$package" "$root" "$out"
fi
mkdir -p "$out"

if [ ! -e "$root/etc/debian_version" ]; then
  debootstrap --variant=minbase --include=ca-certificates bookworm "$root" http://deb.debian.org/debian > "$out/debootstrap.log" 2>&1
fi
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm" 2>/dev/null || true
mkdir -p "$root/tmp/home"
rm -rf "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d" "$root/etc/apt/apt.conf.d"
cp -rL /etc/apt/sources.list.d /etc/apt/apt.conf.d "$root/etc/apt/"
[ -e /etc/apt/sources.list ] && cp /etc/apt/sources.list "$root/etc/apt/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"
cp "$package" "$root/var/otbtorch.deb"

inside() { # a clean environment, as after a login
  chroot "$root" /usr/bin/env -i HOME=/tmp/home PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

files() { # all but what any installation or run writes: databases, logs, caches, homes
  inside find / -xdev \( -path /proc -o -path /dev -o -path /sys -o -path /tmp -o -path /root -o -path /var/otbtorch.deb -o -path /run -o -path /var/lib/dpkg \
    -o -path /var/lib/apt -o -path /var/log -o -path /var/cache -o -path /etc/ld.so.cache -o -path /checkout -o -name __pycache__ -not -path '*otbtorch*' \) \
    -prune -o -printf '%p %y\n' | sort
}

# The hosts, and what the package depends on or recommends: then what the package itself brings can be told apart.
needs=$(dpkg-deb -f "$package" Depends Recommends | sed -E 's/^[A-Za-z]+: //; s/\([^)]*\)//g; s/\|[^,]*//g' | tr ',\n' '  ')
inside apt-get update -qq > "$out/apt.log" 2>&1
# shellcheck disable=SC2086
inside apt-get install -y -qq --no-install-recommends $needs qgis python3-qgis qgis-providers monteverdi xvfb xauth x11-utils xdotool imagemagick \
  python3-pytest man-db >> "$out/apt.log" 2>&1
inside apt-get remove -y -qq otbtorch >> "$out/apt.log" 2>&1 || true
files > "$out/files-before.txt"
inside md5sum /usr/share/otb/description/algs.txt > "$out/algs-before.txt"

inside apt-get install -y -qq /var/otbtorch.deb >> "$out/apt.log" 2>&1
files > "$out/files-installed.txt"
inside sh -c 'otbcli_SiameseCD -help' > "$out/help.txt" 2>&1 || true
grep -q "This is the SiameseCD application" "$out/help.txt"
inside man -w otbcli_SiameseCD otbgui_SiameseCD otbtorch otbtorch-run > "$out/man.txt"
inside otbtorch inspect /usr/share/otbtorch/models/siamese-s2.pt > "$out/inspect.txt"

# The tests of the hosts, from a copy that holds no sources and no build.
rm -rf "$root/checkout"
mkdir -p "$root/checkout"
cp -r "$here/test" "$here/data" "$root/checkout/"
status=0
inside /usr/bin/env OTBTORCH_BIN=/usr/bin LC_ALL=C.UTF-8 \
  /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider /checkout/test/hosts 2>&1 | tee "$out/tests.txt" || status=1

# The demonstration pair in each host, from what is installed alone, with pictures.
demo=/checkout/demo
share=/usr/share/otbtorch
inside /usr/bin/python3 -m otbtorch.recipes.demo_scene --date1 $share/scene/date1.tif --out $demo > "$out/demo.txt" 2>&1
inside otbcli_SiameseCD -in1 $share/scene/date1.tif -in2 $demo/date2.tif -model $share/models/demo-l7.pt -out $demo/otbcli.tif >> "$out/demo.txt" 2>&1
inside otbtorch qgis-folder --profile default >> "$out/demo.txt" 2>&1
inside /usr/bin/env QT_QPA_PLATFORM=offscreen XDG_RUNTIME_DIR=/tmp/home /usr/bin/qgis_process.bin run otb:SiameseCD -- in1=$share/scene/date1.tif in2=$demo/date2.tif \
  model=$share/models/demo-l7.pt out=$demo/change.tif proba=$demo/probability.tif objects=$demo/objects.gpkg >> "$out/demo.txt" 2>&1
inside /usr/bin/python3 -c "
from osgeo import gdal
a, b = (gdal.Open('$demo/' + name).ReadAsArray() for name in ('otbcli.tif', 'change.tif'))
assert (a == b).all() and (a == 1).sum() > 1000, 'QGIS and otbcli differ'"
inside /usr/bin/python3 -m otbtorch.demo_qgis --image $demo/date2.tif --map $demo/change.tif --probability $demo/probability.tif --objects $demo/objects.gpkg \
  --out $demo/qgis.png >> "$out/demo.txt" 2>&1
inside /usr/bin/python3 -m otbtorch.demo_gui --date1 $share/scene/date1.tif --date2 $demo/date2.tif --model $share/models/demo-l7.pt \
  --otbgui $demo/otbgui.png --monteverdi $demo/monteverdi.png >> "$out/demo.txt" 2>&1
cp "$root"$demo/*.png "$out/"

inside apt-get remove -y -qq otbtorch >> "$out/apt.log" 2>&1
files > "$out/files-after.txt"
inside md5sum /usr/share/otb/description/algs.txt > "$out/algs-after.txt"
diff "$out/files-before.txt" "$out/files-after.txt" || { echo "apt remove left these files" >&2; status=1; }
diff "$out/algs-before.txt" "$out/algs-after.txt" || { echo "apt remove left algs.txt changed" >&2; status=1; }
[ $status -eq 0 ] && echo "clean root: installed, run, removed; $(comm -13 "$out/files-before.txt" "$out/files-installed.txt" | wc -l) files came and went"
exit $status
