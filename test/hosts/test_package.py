"""The Debian package: what it holds and needs; installed, run, upgraded, triggered and removed in a root of its own.

dpkg does all of it, as any user, in a folder (``--root``, scripts not chrooted). The whole on a clean Debian 12, with all hosts, is
clean-root.sh.
"""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import BIN, REPOSITORY
from osgeo import gdal

BUILD = BIN.parent
APPLICATIONS = ("ChangeEvaluation", "ChangeLikelihood", "SiameseCD", "TimeSeriesClassify")
DESCRIPTIONS = "usr/share/otb/description"

gdal.UseExceptions()


def _prefix():
    cache = BUILD / "CMakeCache.txt"
    found = re.search(r"^CMAKE_INSTALL_PREFIX:\w+=(.*)$", cache.read_text(), re.M) if cache.exists() else None
    return found and found.group(1)


if _prefix() != "/usr":
    pytest.skip("a build for the prefix /usr is not installed beside these tests (make package makes one)", allow_module_level=True)
if not shutil.which("dpkg-shlibdeps"):
    pytest.skip("dpkg-dev is not installed", allow_module_level=True)


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    run("cpack", "--config", BUILD / "CPackConfig.cmake", "-B", folder, cwd=BUILD)
    (found,) = folder.glob("*.deb")
    return found


@pytest.fixture(scope="module")
def fields(package):
    return dict(line.split(": ", 1) for line in run("dpkg-deb", "-f", package).splitlines() if ": " in line)


@pytest.fixture(scope="module")
def contents(package):
    lines = [line.split(None, 5) for line in run("dpkg-deb", "-c", package).splitlines()]
    return {words[5].split(" -> ")[0][2:]: words[0] for words in lines}


class Root:
    """A dpkg database and the files below it."""

    def __init__(self, folder):
        self.folder = folder
        for part in ("updates", "info", "triggers"):
            (folder / "var/lib/dpkg" / part).mkdir(parents=True)
        (folder / "var/lib/dpkg/status").touch()

    def dpkg(self, *words):
        # Packages that it needs are in the machine's own database.
        forced = ("--force-not-root", "--force-script-chrootless", "--force-depends", "--force-bad-path")
        return run("dpkg", f"--root={self.folder}", *forced, "--log=/dev/null", *words)

    def files(self):
        """All but the database, and without the folders of nothing."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if not p.is_dir() and "var/lib/dpkg" not in str(p))


LISTED = "Image Filtering|Smoothing\nLearning|TrainDimensionalityReduction\n"


@pytest.fixture(scope="module")
def otb_qgis(tmp_path_factory):
    """A package that brings the list of algorithms, as otb-qgis does."""
    folder = tmp_path_factory.mktemp("otb-qgis")
    (folder / "files/DEBIAN").mkdir(parents=True)
    (folder / "files/DEBIAN/control").write_text("Package: otb-qgis\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a list\n")
    (folder / "files" / DESCRIPTIONS).mkdir(parents=True)
    (folder / "files" / DESCRIPTIONS / "algs.txt").write_text(LISTED)
    run("dpkg-deb", "--root-owner-group", "-b", folder / "files", folder / "otb-qgis.deb")
    return folder / "otb-qgis.deb"


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


def test_it_needs_what_it_runs_with(fields):
    needed = [re.split(r"[ :]", name.strip())[0] for name in fields["Depends"].split(",")]
    for name in ("otb-bin", "libopenblas0-pthread", "libtorch1.13", "libgdal32", "libinsighttoolkit4.13", "libotbapplicationengine-8.1-1", "python3-gdal"):
        assert name in needed
    assert len(needed) == len(set(needed)), "a package is named twice"
    version = re.search(r"^project\(OTBTorch VERSION (\S+)", (REPOSITORY / "CMakeLists.txt").read_text(), re.M).group(1)
    assert fields["Package"] == "otbtorch" and fields["Version"] == version
    assert {"otb-qgis", "otb-bin-qt", "python3-torch"} <= set(re.split(r",\s*", fields["Recommends"]))


def test_modules_that_the_python_package_imports_are_needed(fields, tmp_path):
    run("/usr/bin/python3", "-c", "import otbtorch, otbtorch.__main__, otbtorch.report, otbtorch.launch", env={"PYTHONPATH": REPOSITORY / "python", "PATH": os.environ["PATH"]})
    imported, at_once = set(), set()  # at_once: when the file that names it is imported
    for path in (REPOSITORY / "python/otbtorch").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = {node.module.split(".")[0]}
            else:
                continue
            imported |= found
            if node in tree.body:
                at_once |= found
    named = ", ".join(fields[kind] for kind in ("Depends", "Recommends", "Suggests"))
    packages = {"numpy": "numpy", "osgeo": "gdal", "torch": "torch", "matplotlib": "matplotlib", "jinja2": "jinja2", "markdown": "markdown", "PIL": "pil",
                "jsonschema": "jsonschema", "dask": "dask", "distributed": "distributed", "weasyprint": "weasyprint"}
    # Hosts, and what no Debian package has: imported inside functions that only run there, or with an error that says what is missing.
    optional = {"iota2", "qgis", "dask_jobqueue"}
    assert imported - set(sys.stdlib_module_names) - {"otbtorch"} - optional == set(packages), "a module without a package, or a package without need"
    assert not at_once & optional, "an optional module is imported without a guard"
    for module in packages:
        assert re.search(rf"\b(python3-)?{packages[module]}\b", named), f"{module} is imported but not named"


def test_what_it_holds(contents):
    applications = [name for name in contents if name.endswith(".so") and "/otbapp_" in name]
    (folder,) = {os.path.dirname(name) for name in applications}
    assert re.fullmatch(r"usr/lib/[\w-]+/otb/applications", folder), "beside OTB's own, the only folder that QGIS takes"
    assert sorted(re.findall(r"otbapp_(\w+)", " ".join(applications))) == list(APPLICATIONS)
    for application in APPLICATIONS:
        for launcher in (f"usr/bin/otbcli_{application}", f"usr/bin/otbgui_{application}"):
            assert contents[launcher] == "-rwxr-xr-x"
        assert f"{DESCRIPTIONS}/{application}.txt" in contents
    for name in ("usr/bin/otbtorch", "usr/bin/otbtorch-run", "usr/lib/python3/dist-packages/otbtorch/__init__.py", "usr/share/doc/otbtorch/copyright",
                 "usr/lib/python3/dist-packages/otbtorch/model-contract.schema.json", "usr/share/otbtorch/models/siamese-s2.pt", "usr/share/otbtorch/scene/date1.tif"):
        assert name in contents
    assert f"{DESCRIPTIONS}/algs.txt" not in contents, "it belongs to otb-qgis"
    assert not [name for name in contents if "__pycache__" in name or name.startswith(("usr/include", "usr/local"))]
    assert {name.split("/")[0] for name in contents if name} == {"usr"}


def test_manual_pages(contents):
    if not shutil.which("lowdown"):
        pytest.fail("lowdown is missing: `make package` installs it, and pages are part of the package")
    pages = {f"otb{kind}_{name}" for kind in ("cli", "gui") for name in APPLICATIONS} | {"otbtorch", "otbtorch-run"}
    assert pages == {os.path.basename(n)[:-5] for n in contents if n.startswith("usr/share/man/man1/") and n.endswith(".1.gz")}


def test_installed_and_removed_without_a_trace(package, root, otb_qgis, pair):
    root.dpkg("-i", otb_qgis)
    before = root.files()

    root.dpkg("-i", package)
    lines = (root.folder / DESCRIPTIONS / "algs.txt").read_text().splitlines()
    assert sorted(line.split("|")[1] for line in lines[2:]) == list(APPLICATIONS)
    for line in lines[2:]:
        group, name = line.split("|")
        assert (root.folder / DESCRIPTIONS / f"{name}.txt").read_text().splitlines()[2] == group

    # It runs from where it is, with nothing of the build.
    usr = root.folder / "usr"
    out = root.folder.parent / "change.tif"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(root.folder.parent)}
    run(usr / "bin/otbcli_SiameseCD", "-in1", pair[0], "-in2", pair[1], "-model", usr / "share/otbtorch/models/demo-l7.pt", "-out", out, env=environment)
    expected = root.folder.parent / "expected.tif"
    run(BIN / "otbcli_SiameseCD", "-in1", pair[0], "-in2", pair[1], "-model", REPOSITORY / "data/models/demo-l7.pt", "-out", expected)
    assert (gdal.Open(str(out)).ReadAsArray() == gdal.Open(str(expected)).ReadAsArray()).all()
    for library in [*usr.rglob("otbapp_*.so"), *usr.rglob("libOTBTorch*.so*")]:
        assert str(REPOSITORY).encode() not in library.read_bytes(), "a path of the machine that built it"
    said = run(usr / "bin/otbtorch", "inspect", usr / "share/otbtorch/models/siamese-s2.pt", env=environment)
    assert "change-detection" in said

    # Python wrote its caches meanwhile; an upgrade keeps one line an application, and none of a group that was.
    assert list(usr.rglob("__pycache__"))
    root.dpkg("-i", package)
    algorithms = root.folder / DESCRIPTIONS / "algs.txt"
    assert algorithms.read_text().splitlines() == lines
    (group,) = [line for line in lines if line.endswith("|SiameseCD")]
    algorithms.write_text(algorithms.read_text().replace(group, "Old Group|SiameseCD"))
    algorithms.chmod(0o640)
    root.dpkg("-i", package)
    assert algorithms.read_text().splitlines() == lines
    assert algorithms.stat().st_mode & 0o777 == 0o640
    assert not list(algorithms.parent.glob("algs.txt?*"))

    root.dpkg("-r", "otbtorch")
    assert (root.folder / DESCRIPTIONS / "algs.txt").read_text() == LISTED
    assert root.files() == before


def test_otb_qgis_may_come_later_and_again(package, root, otb_qgis, tmp_path):
    # dpkg defers the triggers of a package whose dependencies it cannot see: here it has none.
    run("dpkg-deb", "-R", package, tmp_path / "unpacked")
    control = tmp_path / "unpacked/DEBIAN/control"
    control.write_text(re.sub(r"^Depends: .*\n", "", control.read_text(), flags=re.M))
    run("dpkg-deb", "--root-owner-group", "-b", tmp_path / "unpacked", tmp_path / "otbtorch.deb")
    root.dpkg("-i", tmp_path / "otbtorch.deb")
    assert not (root.folder / DESCRIPTIONS / "algs.txt").exists()
    for _ in range(2):
        root.dpkg("-i", otb_qgis)
        lines = (root.folder / DESCRIPTIONS / "algs.txt").read_text().splitlines()
        assert sorted(line.split("|")[1] for line in lines[2:]) == list(APPLICATIONS)
    root.dpkg("-r", "otb-qgis")
    assert not (root.folder / DESCRIPTIONS / "algs.txt").exists()


def test_without_otb_qgis(package, tmp_path):
    root = Root(tmp_path / "root")
    root.dpkg("-i", package)
    assert not (root.folder / DESCRIPTIONS / "algs.txt").exists()
    root.dpkg("-r", "otbtorch")
    assert root.files() == []
