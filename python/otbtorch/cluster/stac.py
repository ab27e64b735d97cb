"""Tiles from STAC items: a collection in one JSON file, one item, or a folder of items."""

import json
import pathlib
import re

from . import ClusterError

SCALAR = (str, int, float)


def address(href, folder):
    """A name that GDAL opens, of a file or of a URL; relative ones are relative to the item."""
    if href.startswith("file://"):
        return href[len("file://") :]
    if href.startswith("s3://"):
        return "/vsis3/" + href[len("s3://") :]
    if re.match(r"https?://", href):
        return "/vsicurl/" + href
    if href.startswith("/vsi"):
        return href
    return str((folder / href).resolve())


def _items(path):
    path = pathlib.Path(path)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ClusterError(f"--stac: {file} cannot be read: {error}") from error
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "FeatureCollection":
            for item in content.get("features", []):
                yield item, file
        elif kind == "Feature":
            yield content, file
        elif not path.is_dir():  # a folder may hold catalogs as well
            raise ClusterError(f"--stac: {file} is neither an item nor a collection of items")


def tiles(path, group=None):
    """``[{placeholder: [values]}]``: a tile for each item, or for each value of a property.

    The items of a tile are in the order of their dates, and so are the values of a placeholder:
    an asset's name gives its address, a property its value, ``id`` the item's or the group's name.
    """
    found = {}
    for item, file in _items(path):
        name = item.get("id")
        assets = item.get("assets")
        if not isinstance(name, str) or not isinstance(assets, dict) or not assets:
            raise ClusterError(f'--stac: {file}: an item without "id" or "assets"')
        properties = item.get("properties") or {}
        if group is not None:
            if not isinstance(properties.get(group), SCALAR):
                known = ", ".join(sorted(properties)) or "none"
                raise ClusterError(
                    f'--stac: {file}: item {name} has no property "{group}"; it has {known}'
                )
            name = str(properties[group])
        elif name in found:
            raise ClusterError(
                f"--stac: {file}: two items are called {name}; give each an id of its own, or "
                "join those of a tile with --stac-group PROPERTY"
            )
        values = {k: str(v) for k, v in properties.items() if isinstance(v, SCALAR)}
        for key, asset in assets.items():
            if isinstance(asset, dict) and isinstance(asset.get("href"), str):
                values[key] = address(asset["href"], file.parent)
        found.setdefault(name, []).append((str(properties.get("datetime") or ""), values))
    result = []
    for name, items in found.items():
        items.sort(key=lambda one: one[0])
        keys = dict.fromkeys(k for _, values in items for k in values)
        tile = {k: [values[k] for _, values in items if k in values] for k in keys}
        result.append(dict(tile, id=[name]))
    if not result:
        raise ClusterError(f"--stac: {path} holds no items")
    return result
