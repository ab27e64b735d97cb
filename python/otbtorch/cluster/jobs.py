"""From a command line with placeholders to jobs, and what identifies each of them.

A job is a dictionary that JSON holds, so that it travels to a worker or into a file as it is:

=========== ====================================================================================
id          name of the tile, or of the window
application as in ``otbcli_<application>``
words       ``[[key, [values]]]`` without what is written
outputs     ``[{key, name, options, type, map}]``; ``name`` is relative to ``folder``
window      ``[x, y, width, height]`` in pixels of the image, or None
folder      where results go; ``state``: where records and logs go
cwd         the folder that relative names of inputs begin at
format      ``tiff`` or ``cog``
=========== ====================================================================================
"""

import csv
import dataclasses
import functools
import glob
import hashlib
import json
import os
import pathlib
import re

from osgeo import gdal

from .. import __version__
from .. import contract as contracts
from . import ClusterError
from .applications import NEUTRAL, TABLE

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_KEY = re.compile(r"-[A-Za-z]")
_SAFE = re.compile(r"[A-Za-z0-9_.=+-]+$")
# A pixel this many times as large is that of a coarser band (app/otbDLPair.cxx).
COARSER = 1.25
# Each is a process, a record and some files.
MOST_WINDOWS = 50000


# -------------------------------------------------------------------------------------------------
# Words


def split_name(value):
    """``map.tif?&box=1:2:3:4`` -> ``("map.tif", "?&box=1:2:3:4")``."""
    at = value.find("?&")
    return (value, "") if at < 0 else (value[:at], value[at:])


def parse_words(words, application):
    """``[(key, [values])]`` of an application's command line; keys are checked."""
    found = []
    for word in words:
        if _KEY.match(word):
            key = word[1:]
            if key not in application.keys:
                raise ClusterError(
                    f"{word} is not a parameter of {application.name}, which has "
                    + " ".join(sorted(application.keys - {"help"}))
                )
            if key in ("inxml", "help"):
                raise ClusterError(f"{word} cannot be given here: write the parameters themselves")
            if any(k == key for k, _ in found):
                raise ClusterError(f"{word} is given twice")
            found.append((key, []))
        elif not found:
            raise ClusterError(
                f'after -- a parameter of {application.name} is expected, not "{word}"'
            )
        else:
            found[-1][1].append(word)
    if not found:
        raise ClusterError(
            f"the command line of {application.name} is missing: write it after --, as "
            "-- -in1 {before} -in2 {after} -model m.pt -out {out}"
        )
    return found


def placeholders(word):
    """Names in braces: ``{name}``, or ``{name@2}`` for the second of several values."""
    return [name.rsplit("@", 1)[0] if "@" in name else name for name in _PLACEHOLDER.findall(word)]


def substitute(word, values, where):
    """Words from a word with placeholders: several where a placeholder has several values."""

    def choose(name):
        base, at, number = name.rpartition("@")
        chosen = values.get(base if at else name)
        if chosen is None:
            raise ClusterError(f"{where}: there is no {{{name}}}; there is {_braces(values)}")
        if at:
            if not re.fullmatch(r"-?\d+", number) or int(number) == 0:
                raise ClusterError(
                    f"{{{name}}}: after @ comes the place of a value: 1, 2 ... or -1"
                )
            k = int(number) - 1 if int(number) > 0 else int(number)
            if not -len(chosen) <= k < len(chosen):
                raise ClusterError(f"{where}: {{{name}}} of {len(chosen)} value(s)")
            chosen = [chosen[k]]
        if any(v is None for v in chosen):
            raise ClusterError(f"{where}: an item has no {{{name}}}, which others have")
        if not chosen or any(v == "" for v in chosen):
            raise ClusterError(f"{where}: {{{name}}} is empty")
        return chosen

    parts = _PLACEHOLDER.split(word)  # text, name, text, name, ...
    words = [parts[0]]
    for k in range(1, len(parts), 2):
        words = [w + v + parts[k + 1] for w in words for v in choose(parts[k])]
    return words


def _braces(values):
    return " ".join(f"{{{v}}}" for v in sorted(values)) or "none"


# -------------------------------------------------------------------------------------------------
# Tiles


def read_csv(path):
    """``[{column: [value]}]`` of a table with a header; without ``id`` rows are numbered."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"--tiles: {path} cannot be read: {error}") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = [c.strip() for c in rows.fieldnames or []]
    if not columns or "" in columns or len(set(columns)) < len(columns):
        raise ClusterError(f"--tiles: {path}: the first line must name the columns, each once")
    rows.fieldnames = columns
    tiles = []
    for row in rows:
        if not any((v or "").strip() for k, v in row.items() if k is not None):
            continue
        if None in row or None in row.values():
            raise ClusterError(
                f"--tiles: {path}, line {rows.line_num}: expected {len(columns)} values, as in the "
                "first line"
            )
        tile = {k: [v.strip()] for k, v in row.items()}
        tile.setdefault("id", [f"tile{len(tiles) + 1:04d}"])
        tiles.append(tile)
    if not tiles:
        raise ClusterError(f"--tiles: {path} holds no tiles")
    return tiles


def check_ids(tiles, where):
    seen = set()
    for tile in tiles:
        name = tile["id"][0]
        if not _SAFE.match(name) or name.startswith("."):
            raise ClusterError(
                f'{where}: the id "{name}" cannot name a folder: letters, digits and _ . = + - only'
            )
        if name in ("plan", "assembled"):
            raise ClusterError(f'{where}: the id "{name}" is a name of otbtorch-run\'s own')
        if name in seen:
            raise ClusterError(f"{where}: the id {name} is there twice; each tile needs its own")
        seen.add(name)


# -------------------------------------------------------------------------------------------------
# Jobs


@dataclasses.dataclass
class Request:
    """A command line, and where its results go."""

    application: object
    words: list
    folder: pathlib.Path
    state: pathlib.Path
    format: str = "tiff"
    checksum: bool = False
    cwd: str = dataclasses.field(default_factory=os.getcwd)

    def job(self, name, words, outputs, window=None, folder=None, format=None):
        return {
            "id": name,
            "application": self.application.name,
            "words": words,
            "outputs": outputs,
            "window": window,
            "folder": str(folder or self.folder),
            "state": str(self.state),
            "cwd": self.cwd,
            "format": format or self.format,
            "checksum": self.checksum,
        }


def _is_written(application, key, values):
    if key in application.files.either:
        return any({"id", "out"} & set(placeholders(v)) for v in values)
    return application.written(key) is not None


def _output(application, key, words, where):
    """``{key, name, options, type, map}`` from the words after the key of an output."""
    if not words or len(words) > 2:
        raise ClusterError(f"{where}: -{key}: expected a file name, and perhaps a type of pixels")
    name, options = split_name(words[0])
    path = pathlib.PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name.startswith("/vsi"):
        raise ClusterError(
            f'{where}: -{key} "{name}": a name inside the folder of --out is expected, as '
            f"{{id}}/{key}{application.written(key)}, or {{out}} for that"
        )
    is_map = application.is_map(key)
    if is_map and path.suffix.lower() not in (".tif", ".tiff"):
        raise ClusterError(f'{where}: -{key} "{name}": maps are written as .tif')
    if "&box=" in options:
        raise ClusterError(
            f'{where}: -{key} "{words[0]}": windows are made by --windows, not &box='
        )
    kind = words[1] if len(words) == 2 else None
    return {"key": key, "name": str(path), "options": options, "type": kind, "map": is_map}


def _inputs(application, key, values, cwd):
    """Values of an input; a pattern (*.tif) that is no file itself becomes the files it means."""
    if key not in application.files.images + application.files.read:
        return values
    expanded = []
    for value in values:
        path, options = split_name(value)
        if glob.has_magic(path) and not os.path.exists(os.path.join(cwd, path)):
            names = sorted(glob.glob(path, root_dir=cwd))
            expanded += [n + options for n in names] or [value]
        else:
            expanded.append(value)
    return expanded


def tile_jobs(request, tiles, where):
    """A job for each tile. Raises ClusterError for what can be known before the first one."""
    check_ids(tiles, where)
    application = request.application
    jobs, owners = [], {}
    for tile in tiles:
        name = tile["id"][0]
        here = f"{where}: tile {name}"
        words, outputs = [], []
        for key, values in request.words:
            if _is_written(application, key, values):
                default = f"{name}/{key}{application.written(key)}"
                known = dict(tile, out=[default])
                made = [w for v in values for w in substitute(v, known, here)]
                outputs.append(_output(application, key, made, here))
            else:
                made = [w for v in values for w in substitute(v, tile, here)]
                words.append([key, _inputs(application, key, made, request.cwd)])
        for output in outputs:
            other = owners.setdefault(output["name"], f"tile {name}, -{output['key']}")
            if other != f"tile {name}, -{output['key']}":
                raise ClusterError(
                    f'{here}: -{output["key"]} would write {output["name"]}, as {other} does: put '
                    "{id} into the name, or leave it to {out}"
                )
        jobs.append(request.job(name, words, outputs))
    if not jobs[0]["outputs"]:
        raise ClusterError("nothing is written: -out {out} is missing after --, for example")
    check_inputs(jobs, application)
    return jobs


def check_inputs(jobs, application, most=20):
    """Opens every image and looks for every file that is named. Raises one error for all."""
    faults, seen = [], {}
    for job in jobs:
        for key, values in job["words"]:
            is_image = key in application.files.images
            if not is_image and key not in application.files.read + application.files.either:
                continue
            if not values:
                faults.append(f"{job['id']}: -{key} has no value")
            for value in values:
                path = split_name(value)[0]
                if (path, is_image) not in seen:
                    seen[path, is_image] = _fault(path, is_image, job["cwd"])
                if seen[path, is_image]:
                    faults.append(f"{job['id']}: -{key} {path}: {seen[path, is_image]}")
    faults = list(dict.fromkeys(faults))
    if faults:
        more = f"\n  and {len(faults) - most} more" if len(faults) > most else ""
        raise ClusterError(
            f"{len(faults)} input(s) cannot be read:\n  " + "\n  ".join(faults[:most]) + more
        )


def _fault(path, is_image, cwd):
    local = os.path.join(cwd, path)
    if os.path.isfile(local):
        if not os.access(local, os.R_OK):
            return "you may not read it"
        path = local
    elif not is_image:
        return "no such file"
    if is_image:
        try:
            _open(path)
        except RuntimeError as error:
            return str(error).strip() or "GDAL cannot open it"
    return None


def _open(path, kinds=gdal.OF_RASTER):
    """A GDAL data set. Raises RuntimeError."""
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    try:
        found = gdal.OpenEx(str(path), kinds)
        message = gdal.GetLastErrorMsg()
    finally:
        gdal.PopErrorHandler()
    if found is None:
        raise RuntimeError(message)
    return found


# -------------------------------------------------------------------------------------------------
# What identifies a job


@functools.lru_cache(maxsize=4096)
def _sha256(path, size, changed):  # the latter two make a changed file another one
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _identity(path, content):
    found = os.stat(path)
    if content:
        return {"sha256": _sha256(path, found.st_size, found.st_ctime_ns)}
    return {"size": found.st_size, "mtime": found.st_mtime_ns}


def _on_disk(name):
    """The file that a name of GDAL's lies in: itself, or an archive. None if there is none."""
    path = re.sub(r"^(/vsi\w+/)+", "/", name).replace("//", "/") if name.startswith("/vsi") else name
    for candidate in (path, path.lstrip("/")) if name.startswith("/vsi") else (path,):
        while candidate not in ("", "/"):
            if os.path.isfile(candidate):
                return candidate
            if not name.startswith("/vsi"):
                break
            candidate = os.path.dirname(candidate)
    return None


def _sources(path, kinds=gdal.OF_RASTER):
    """Files behind an image: virtual rasters of virtual rasters, archives, parts of a container."""
    names, ahead = [], [path]
    while ahead:
        name = ahead.pop()
        if name not in names:
            names.append(name)
            try:
                ahead += _open(name, kinds).GetFileList() or []
            except RuntimeError:
                continue
    found = (_on_disk(name) for name in names)
    return list(dict.fromkeys(f for f in found if f is not None))


def _parts(path, is_image):
    """The files behind a name: what a virtual raster or a list of models refers to as well."""
    if is_image:
        return _sources(path)
    parts = [path]
    if os.path.splitext(path)[1].lower() not in (".pt", ".txt", ".json"):
        parts = _sources(path, gdal.OF_RASTER | gdal.OF_VECTOR)  # a Shapefile is several files
    if path.endswith(".txt"):
        for line in (
            pathlib.Path(path).read_text(encoding="utf-8-sig", errors="replace").split("\n")
        ):
            member = os.path.join(os.path.dirname(path), line.split("#")[0].strip())
            if line.split("#")[0].strip() and os.path.isfile(member):
                parts.append(member)
    for model in list(parts):
        for side in (model + ".mlm.json", os.path.splitext(model)[0] + ".mlm.json"):
            if os.path.isfile(side):
                parts.append(side)
    return parts


def describe(job, known=None):
    """All that the pixels of a job follow from. Equal descriptions, equal results.

    Images by size and time of change (by content with --checksum), models and other files by
    content. What changes no pixel is left out: -ram, -progress, threads, the machine.

    :param known: a dictionary that keeps what was looked up, for jobs that share inputs
    """
    known = {} if known is None else known
    images = TABLE[job["application"]].images if job["application"] in TABLE else ()
    inputs, options = {}, {}
    for key, values in job["words"]:
        if key in NEUTRAL:
            continue
        options[key] = values
        for value in values:
            path = os.path.join(job["cwd"], split_name(value)[0])
            is_image = key in images or (job["application"] not in TABLE and key != "model")
            if not os.path.exists(path):
                path = split_name(value)[0]  # NETCDF:"file.nc":B02, /vsizip/...
                if not is_image:
                    continue
            elif not is_image and not os.path.isfile(path):
                continue
            if (path, is_image) not in known:
                known[path, is_image] = {
                    os.path.abspath(p): _identity(p, job["checksum"] or not is_image)
                    for p in _parts(path, is_image)
                }
            inputs.update(known[path, is_image])
    return {
        "version": __version__,
        "application": job["application"],
        "options": options,
        "inputs": inputs,
        "outputs": [[o["key"], o["name"], o["options"], o["type"]] for o in job["outputs"]],
        "window": job["window"],
        "format": job["format"],
    }


def digest(description):
    """SHA-256 of a description."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def what_changed(old, new):
    """In words, what two descriptions differ in."""
    changes = []
    for field in ("version", "application", "window", "format", "outputs"):
        if old.get(field) != new[field]:
            before, after = (
                [f"-{o[0]} {o[1]}{o[2]}" + (f" {o[3]}" if o[3] else "") for o in d.get(field, [])]
                if field == "outputs"
                else d.get(field)
                for d in (old, new)
            )
            changes.append(f"{field} {_short(before)} -> {_short(after)}")
    a, b = old.get("options", {}), new["options"]
    for key in sorted(set(a) | set(b)):
        if a.get(key) != b.get(key):
            changes.append(f"-{key} {_short(a.get(key))} -> {_short(b.get(key))}")
    a, b = old.get("inputs", {}), new["inputs"]
    for path in sorted(set(a) & set(b)):
        if a[path] != b[path]:
            changes.append(f"{os.path.basename(path)} was changed")
    if not changes and a != b:
        changes.append("other input files")
    return ", ".join(changes)


def _short(value):
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = "unset" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def record_of(job):
    return pathlib.Path(job["state"]) / (job["id"] + ".json")


def read_record(path):
    """What a finished job left; None where there is none that can be read."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "hash" in found else None


def pending(job, description):
    """Why a job must be computed; None where it is finished."""
    record = read_record(record_of(job))
    if record is None:
        return "new"
    if record["hash"] != digest(description):
        return what_changed(record.get("description", {}), description) or "changed"
    for name, size in record.get("files", {}).items():
        try:
            if os.path.getsize(os.path.join(job["folder"], name)) != size:
                return f"{name} is not what was written"
        except OSError:
            return f"{name} is gone"
    return None


def write_whole(path, text):
    """A text file under its name at once, or not at all."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


# -------------------------------------------------------------------------------------------------
# Windows


def grid_of(request):
    """``(width, height, geotransform)`` of the maps: those of the image that they lie on."""
    application = request.application
    for key in application.files.grid:
        for name, values in request.words:
            if name == key and values:
                chosen = None
                for value in _inputs(application, key, values, request.cwd):
                    path = os.path.join(request.cwd, split_name(value)[0])
                    found = _open(path if os.path.isfile(path) else split_name(value)[0])
                    if chosen is None or _is_coarser(chosen, found):
                        chosen = found
                    if key == "il":
                        break
                if chosen.GetGCPCount() and chosen.GetGeoTransform(can_return_null=True) is None:
                    raise ClusterError(
                        "--windows: the image is located by ground control points, which windows "
                        "would lose: warp it first (gdalwarp), or run the application once"
                    )
                return (
                    chosen.RasterXSize,
                    chosen.RasterYSize,
                    chosen.GetGeoTransform(can_return_null=True),
                )
    raise ClusterError(
        "--windows: the image is missing: " + " or ".join(f"-{k}" for k in application.files.grid)
    )


def _is_coarser(image, than):
    a, b = image.GetGeoTransform(), than.GetGeoTransform()
    if not image.GetProjection():
        return False
    one, two = image.GetSpatialRef(), than.GetSpatialRef()
    same = two is not None and one.IsSame(two) == 1
    return same and abs(a[1]) >= COARSER * abs(b[1]) and abs(a[5]) >= COARSER * abs(b[5])


@dataclasses.dataclass
class Patches:
    """How a network cuts an image: squares ``step`` apart, each giving ``core`` pixels."""

    step: int
    overlap: bool
    learns: bool  # does the network ask for a regression of the whole scene?

    def count(self, x0, y0, x1, y1):
        """Patches that a region needs (PatchGrid::Covering)."""
        more = 1 if self.overlap else 0
        columns = (x1 - 1) // self.step + 1 + more - x0 // self.step
        rows = (y1 - 1) // self.step + 1 + more - y0 // self.step
        return columns * rows


def patches_of(request):
    """How the model of a command line cuts images; None for one that labels single pixels."""
    given = {key: values for key, values in request.words}
    if not given.get("model"):
        return None
    model = os.path.join(request.cwd, given["model"][0])
    model = (
        _parts(model, False)[1]
        if model.endswith(".txt") and len(_parts(model, False)) > 1
        else model
    )
    side = given.get("contract")
    found = contracts.read(model, os.path.join(request.cwd, side[0]) if side else None).data
    violations = contracts.validate(found)
    if violations:
        raise ClusterError(
            f"{model}: its contract has {len(violations)} violation(s): {violations[0]}"
        )
    tiling = found["properties"]["otb:tiling"]
    roles = {entry.get("otb:role") for entry in found["properties"]["mlm:input"]}
    if tiling.get("unit") == "pixel":
        return None
    multiple = tiling.get("multiple", 1)
    blend = (given.get("blend") or ["auto"])[0]
    blend = tiling.get("blend", "crop") if blend == "auto" else blend
    learns = bool(roles & {"regression", "regression_score"})
    if blend == "hann":
        return Patches(tiling["patch"] // 2, True, learns)
    window = (given.get("window") or ["1"])[0]
    halo = tiling["halo"] + (int(window) - 1 if window.isdigit() else 0) // 2
    step = tiling["patch"] - 2 * contracts.ceil_to_multiple(halo, multiple)
    return Patches(max(1, step), False, learns)


def parse_side(text):
    """``2048`` or ``4096x2048`` -> (width, height); ``auto`` -> None."""
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    side = found and (int(found.group(1)), int(found.group(2) or found.group(1)))
    if not side or min(side) < 1:
        raise ClusterError(f'--windows: found "{text}"; expected 2048, 4096x2048 or auto')
    return side


def cut(width, height, side, patches):
    """Windows ``(x, y, w, h)`` row by row, as even as whole patches allow: no slivers at the end."""
    step = patches.step if patches else 1

    def length(total, wanted):
        steps, most = -(-total // step), -(-wanted // step)
        return -(-steps // -(-steps // most)) * step

    w, h = length(width, side[0]), length(height, side[1])
    count = -(-width // w) * -(-height // h)
    if count > MOST_WINDOWS:
        raise ClusterError(f"--windows: {count} windows of {w} x {h} pixels; choose larger ones")
    return [
        (x, y, min(w, width - x), min(h, height - y))
        for y in range(0, height, h)
        for x in range(0, width, w)
    ]


def repeated(windows, width, height, patches):
    """``(patches of the image, patches that windows make on top)``."""
    once = patches.count(0, 0, width, height)
    return once, sum(patches.count(x, y, x + w, y + h) for x, y, w, h in windows) - once


def window_jobs(request, side, workers, single):
    """``(jobs, finals, notes)``: a job for each window; the maps that are assembled from them.

    ``single`` is the file that --out names, if it names one.
    """
    application, notes = request.application, []
    how = application.files.windows
    if how not in ("box", "scene"):
        raise ClusterError(f"--windows: {application.name}: {how}. Give tiles (--tiles)")
    words, finals = [], []
    for key, values in request.words:
        if key == "objects":
            raise ClusterError(
                "--windows: -objects: polygons would be cut at the edges of windows. Leave it out, "
                "and vectorise the assembled map afterwards (gdal_polygonize.py), or run the "
                "application once on the whole image"
            )
        if key in application.files.either and not _is_written(application, key, values):
            words.append([key, values])
        elif application.written(key) is None:
            if any(placeholders(v) for v in values):
                raise ClusterError(
                    f"--windows: -{key}: there are no columns to take {values[0]} from"
                )
            words.append([key, _inputs(application, key, values, request.cwd)])
        elif not application.is_map(key):
            raise ClusterError(f"--windows: -{key} is of a whole image: leave it out")
        else:
            first = not finals
            default = single.name if single and first else f"{key}.tif"
            if single and not first:
                default = f"{single.stem}_{key}{single.suffix}"
            known = {"out": [default], "id": ["whole"]}
            made = [w for v in values for w in substitute(v, known, "--windows")]
            finals.append(_output(application, key, made, "--windows"))
    if not finals:
        raise ClusterError("nothing is written: -out {out} is missing after --, for example")
    names = [f["name"] for f in finals]
    if single and single.name not in names:
        raise ClusterError(f"--out {single.name}: no output has that name; there is {', '.join(names)}")
    if len(set(names)) < len(names):
        raise ClusterError("--windows: two outputs have one name: " + ", ".join(names))
    check_inputs([request.job("whole", words, [])], application)
    width, height, transform = grid_of(request)
    patches = patches_of(request)
    if how == "scene":
        notes.append(
            f"{application.name} decides by the scores of the whole image: it runs as one job"
        )
        windows = [(0, 0, width, height)]
    else:
        if side is None:
            count = workers if patches and patches.learns else 4 * workers
            length = max(512, int((width * height / max(1, count)) ** 0.5))
            side = (length, length)
        windows = cut(width, height, side, patches)
        notes.append(
            f"{len(windows)} windows of {windows[0][2]} x {windows[0][3]} of {width} x {height} pixels"
        )
        if patches:
            once, more = repeated(windows, width, height, patches)
            notes[-1] += f"; patches of {once}: {more} made twice ({100 * more / once:.1f} %)"
        if patches and patches.learns and len(windows) > 1:
            notes.append(
                "the network asks for the regression of the dates, which every window fits anew on "
                "the whole image: few large windows are faster"
            )
    jobs = []
    for number, (x, y, w, h) in enumerate(windows):
        name = f"x{x:06d}_y{y:06d}"
        mine = words
        if number and "coreg" in application.keys and not _moves(words):
            # Measured and logged once: the shift is of the whole image, and moves nothing here.
            mine = [p for p in words if p[0] != "coreg"] + [["coreg", ["none"]]]
        outputs = [
            {
                "key": f["key"],
                "name": f"{name}/{f['key']}.tif",
                "options": _part_options(f["options"]),
                "type": f["type"],
                "map": True,
            }
            for f in finals
        ]
        jobs.append(
            request.job(name, mine, outputs, [x, y, w, h], request.state / "windows", "tiff")
        )
    grid = {"width": width, "height": height, "transform": transform}
    return jobs, {"finals": finals, "grid": grid}, notes


def _moves(words):
    return any(key == "coreg" and values == ["shift"] for key, values in words)


def creation_options(options):
    """``{key: value}`` of the &gdal:co: in an extended file name."""
    return dict(re.findall(r"&gdal:co:([^=&]+)=([^&]*)", options))


def _part_options(options):
    """Those of a window's own file: as asked for, but for how the file is laid out."""
    kept = re.sub(r"&gdal:co:[^&]*", "", options) or "?"
    return kept + "&gdal:co:TILED=YES&gdal:co:BIGTIFF=IF_SAFER"
