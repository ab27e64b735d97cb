"""Tiles from STAC items: a collection in one JSON file, one item, or a folder of items."""

import datetime
import json
import pathlib
import re
import urllib.parse

from . import ClusterError

SCALAR = (str, int, float)


def address(href, folder):
    """A name that GDAL opens, of a file or of a URL; relative ones are relative to the item."""
    if href.startswith("file://"):
        return urllib.parse.unquote(href[len("file://") :])
    if href.startswith("s3://"):
        return "/vsis3/" + href[len("s3://") :]
    if re.match(r"https?://", href):
        return "/vsicurl/" + href
    if href.startswith("/vsi"):
        return href
    named = (folder / href).resolve()
    return str(named if named.exists() else (folder / urllib.parse.unquote(href)).resolve())


def _date(properties, where):
    """When an item was taken; None where it does not say."""
    text = properties.get("datetime") or properties.get("start_datetime")
    if text is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ClusterError(f'--stac: {where}: "{text}" is no date (2020-01-31T10:00:00Z)') from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


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
            for item in content.get("features") or []:
                yield item, file
        elif kind == "Feature":
            yield content, file
        elif not path.is_dir():  # a folder may hold catalogs as well
            raise ClusterError(f"--stac: {file} is neither an item nor a collection of items")


def tiles(path, group=None):
    """``[{placeholder: [values]}]``: a tile for each item, or for each value of a property.

    The items of a tile are in the order of their dates, and so are the values of a placeholder:
    an asset's name gives its address, a property its value, ``id`` the item's or the group's name.
    None stands for what an item of a group lacks and others have.
    """
    found = {}
    for item, file in _items(path):
        if not isinstance(item, dict):
            raise ClusterError(f"--stac: {file}: a feature that is no item: {item}")
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
        found.setdefault(name, []).append(
            (_date(properties, f"{file}: {item['id']}"), values)
        )
    result = []
    for name, items in found.items():
        if len(items) > 1:
            if any(date is None for date, _ in items):
                raise ClusterError(
                    f'--stac: tile {name}: an item without "datetime" and "start_datetime": its '
                    "place among the others is not known"
                )
            items.sort(key=lambda one: one[0])
        keys = dict.fromkeys(k for _, values in items for k in values)
        tile = {k: [values.get(k) for _, values in items] for k in keys}
        result.append(dict(tile, id=[name]))
    if not result:
        raise ClusterError(f"--stac: {path} holds no items")
    return result
