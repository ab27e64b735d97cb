"""A picture of QGIS with the maps of the demonstration: ``/usr/bin/python3 -m otbtorch.demo_qgis``.

Starts QGIS in a profile of its own (under ``xvfb-run`` where there is no display), opens map,
probability and objects as a user would, with the styles that were written with them over the
second date, and saves the window as a PNG. Needs the Debian packages qgis and python3-qgis, and xvfb
where there is no display.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

JOB = "OTBTORCH_QGIS_JOB"


def picture(job):
    """Runs inside QGIS: opens the layers, in three views side by side, and grabs the window."""
    from qgis.core import QgsContrastEnhancement, QgsMapThemeCollection, QgsProject, QgsRasterLayer, QgsRasterMinMaxOrigin, QgsVectorLayer
    from qgis.PyQt.QtCore import QSize, Qt, QTimer
    from qgis.PyQt.QtWidgets import QDockWidget
    from qgis.utils import iface

    window = iface.mainWindow()
    project = QgsProject.instance()

    def opened(layer):
        if not layer.isValid():
            raise RuntimeError("%s cannot be opened" % layer.source())
        return project.addMapLayer(layer)

    image = opened(QgsRasterLayer(job["image"], "second date"))
    probability = opened(QgsRasterLayer(job["probability"], "probability of change"))
    change = opened(QgsRasterLayer(job["map"], "change map"))
    objects = opened(QgsVectorLayer(job["objects"] + "|layername=changes", "change objects", "ogr"))
    for band, setter in zip(job["bands"], ("setRedBand", "setGreenBand", "setBlueBand")):
        getattr(image.renderer(), setter)(band)
    image.setContrastEnhancement(QgsContrastEnhancement.StretchToMinimumMaximum, QgsRasterMinMaxOrigin.CumulativeCut)

    shown = {"change map": [change, image], "probability": [probability]}
    root, tree = project.layerTreeRoot(), iface.layerTreeView()

    def check(layers):
        for node in root.findLayers():
            node.setItemVisibilityChecked(node.layer() in layers)

    # Views follow the layer panel, or a theme.
    for name, layers in shown.items():
        check(layers)
        record = QgsMapThemeCollection.createThemeFromCurrentState(root, tree.layerTreeModel())
        project.mapThemeCollection().insert(name, record)
    check([objects, image])

    window.showNormal()
    window.resize(QSize(*job["size"]))
    window.move(0, 0)
    for dock in window.findChildren(QDockWidget):
        if dock.objectName() != "Layers":
            dock.close()
    for bar in window.findChildren(type(iface.pluginToolBar())):
        bar.setVisible(bar.objectName() in ("mFileToolBar", "mMapNavToolBar"))
    extent = objects.extent()
    extent.scale(job["zoom"])
    views = []
    for name in shown:
        view = iface.createNewMapCanvas(name)
        view.setDestinationCrs(change.crs())
        view.setTheme(name)
        dock = view.parent()
        while not isinstance(dock, QDockWidget):
            dock = dock.parent()
        dock.setWindowTitle(name)
        dock.setFloating(False)
        window.addDockWidget(Qt.RightDockWidgetArea, dock)
        views.append((view, dock))
    window.splitDockWidget(views[0][1], views[1][1], Qt.Horizontal)
    docks = [window.findChild(QDockWidget, "Layers")] + [dock for _, dock in views]
    room = (job["size"][0] - job["panel"]) // 3
    window.resizeDocks(docks, [job["panel"], room, room], Qt.Horizontal)

    def show():
        tree.expandAll()
        root.findLayer(image.id()).setExpanded(False)
        tree.clearSelection()
        for canvas in [iface.mapCanvas()] + [view for view, _ in views]:
            canvas.setExtent(extent)
            canvas.refresh()
        QTimer.singleShot(job["wait"], save)

    def save():
        good = window.grab().save(job["out"])
        project.clear()
        os._exit(0 if good else 1)  # QGIS would ask whether to save the project

    QTimer.singleShot(job["wait"], show)


def start(args):
    """Starts QGIS with this file as its script, and waits for the picture."""
    program = shutil.which("qgis")
    if not program:
        raise SystemExit("qgis is not installed: apt-get install --no-install-recommends qgis python3-qgis xvfb")
    paths = {key: str(pathlib.Path(getattr(args, key)).resolve()) for key in ("image", "probability", "map", "objects", "out")}
    for key in ("image", "probability", "map", "objects"):
        if not os.path.exists(paths[key]):
            raise SystemExit("%s is not there" % paths[key])
    job = dict(paths, size=args.size, zoom=args.zoom, bands=args.bands, panel=270, wait=3000)
    words = [program, "--nologo", "--noplugins", "--code", str(pathlib.Path(__file__).resolve())]
    if not os.environ.get("DISPLAY"):
        words = ["xvfb-run", "-a", "-s", "-screen 0 %dx%dx24" % (args.size[0] + 100, args.size[1] + 100)] + words
    before = os.path.getmtime(paths["out"]) if os.path.exists(paths["out"]) else None
    with tempfile.TemporaryDirectory() as profile:
        os.chmod(profile, 0o700)
        env = dict(os.environ, **{JOB: json.dumps(job)}, XDG_RUNTIME_DIR=profile)
        env.pop("QT_QPA_PLATFORM", None)  # a window is what is wanted
        words += ["--profiles-path", profile]
        done = subprocess.run(words, env=env, timeout=args.timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not os.path.exists(paths["out"]) or os.path.getmtime(paths["out"]) == before:
        raise SystemExit("QGIS made no picture:\n" + done.stdout.decode("utf-8", "replace"))
    print("wrote " + args.out)
    return 0


def main(argv=None):
    parser = argparse.ArgumentParser(prog="otbtorch.demo_qgis", description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, help="what lies below: the second date")
    parser.add_argument("--map", required=True, help="change map")
    parser.add_argument("--probability", required=True, help="probability of change")
    parser.add_argument("--objects", required=True, help="GeoPackage of change objects")
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--bands", type=int, nargs=3, default=[3, 2, 1], metavar="N", help="of the image, as red, green and blue (default: 3 2 1)")
    parser.add_argument("--size", type=int, nargs=2, default=[1500, 620], metavar="N", help="of the window (default: 1500 620)")
    parser.add_argument("--zoom", type=float, default=0.5, help="width of the views over that of the objects")
    parser.add_argument("--timeout", type=float, default=180, help="seconds")
    return start(parser.parse_args(argv))


if JOB in os.environ:
    picture(json.loads(os.environ[JOB]))
elif __name__ == "__main__":
    sys.exit(main())
