"""What a run was: the parameters that ``-outxml`` keeps, the log, the model and its card."""

import collections
import os
import re
import xml.etree.ElementTree as ElementTree

from .. import contract as contracts
from . import complaint

APPLICATIONS = ("SiameseCD", "ChangeLikelihood", "TimeSeriesClassify")

Parameter = collections.namedtuple("Parameter", "key name values")


class Run:
    """The file that an application writes with ``-outxml``: name, OTB's version, parameters with their values."""

    def __init__(self, path):
        try:
            root = ElementTree.parse(path).getroot()
        except OSError as error:
            raise complaint("run", '"%s", which cannot be read (%s)' % (path, error.strerror), "the file that -outxml wrote") from error
        except ElementTree.ParseError as error:
            raise complaint("run (%s)" % path, "that it is no XML (%s)" % error, "the file that -outxml wrote") from error
        application = root.find("application")
        self.path = path
        self.application = application.findtext("name", "").strip() if application is not None else ""
        if self.application not in APPLICATIONS:
            raise complaint("run (%s)" % path, 'the application "%s"' % self.application, "one of " + ", ".join(APPLICATIONS))
        self.otb = root.findtext("version", "").strip()
        self.parameters = []
        for p in application.iter("parameter"):
            values = [(v.text or "").strip() for v in list(p.findall("value")) + p.findall("values/value")]
            values = [v for v in values if v]
            if values:
                self.parameters.append(Parameter(p.findtext("key", "").strip(), p.findtext("name", "").strip(), values))

    def values(self, key):
        return next((p.values for p in self.parameters if p.key == key), [])

    def files(self, key):
        """Files of a parameter, where they are now: as named, or beside the XML file."""
        return [self._find(name, key) for name in self.values(key)]

    def _find(self, name, key):
        path = name.split("?")[0]
        if os.path.exists(path) or os.path.isabs(path):
            return name
        beside = os.path.dirname(os.path.abspath(self.path))
        for folder in (beside, os.path.dirname(beside)):
            if os.path.exists(os.path.join(folder, path)):
                return os.path.join(folder, name)
        if os.path.exists(os.path.join(beside, os.path.basename(path))):
            return os.path.join(beside, os.path.basename(name))
        raise complaint(
            "run (%s)" % self.path,
            '%s "%s", which is not there' % (key, path),
            "the files of the run",
            "Run this from the folder in which the application ran, or name the file by its own option.",
        )


_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \((\w+)\)(?: (\w+))?: (.*)$")
# What the applications say of machine, work and time.
_TOLD = (
    "Device",
    "Batch",
    "Patches",
    "Pixels",
    "Memory",
    "Time",
    "Threshold",
    "Change where",
    "Model",
    "Estimator",
    "Wrote",
    "Calibration",
)


def read_log(path):
    """{"text", "facts": [(what, rest)], "warnings": [text], "start", "end"} of what an application printed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(4 << 20)
    except OSError as error:
        raise complaint("log", '"%s", which cannot be read (%s)' % (path, error.strerror), "what the application printed") from error
    facts, warnings, times, kept = [], [], [], []
    for line in text.splitlines():
        line = line.split("\r")[-1]
        found = _LINE.match(line)
        if not found:
            if line.strip() and "% [" not in line:
                kept.append(line)
            continue
        kept.append(line)
        times.append(found.group(1))
        if found.group(2) in ("WARNING", "FATAL", "ERROR"):
            warnings.append(found.group(4))
        said = next((w for w in _TOLD if found.group(4).startswith(w)), None)
        if said and found.group(3) in APPLICATIONS:
            facts.append((said, found.group(4)[len(said) :].lstrip(": ")))
    return {
        "text": "\n".join(kept),
        "facts": facts,
        "warnings": warnings,
        "start": times[0] if times else "",
        "end": times[-1] if times else "",
    }


class Model:
    """A model file: its contract (None: unreadable parts are told by ``otbtorch inspect``) and the text of its card."""

    def __init__(self, path, card=None, contract=None):
        self.path = path
        read = contracts.read(path, contract)  # ContractError names the file
        self.properties = (read.data or {}).get("properties", {})
        beside = os.path.splitext(path)[0] + ".md"
        self.card = None
        if card or os.path.exists(beside):
            try:
                with open(card or beside, encoding="utf-8") as stream:
                    self.card = stream.read()
            except (OSError, UnicodeDecodeError) as error:
                raise complaint("card", '"%s", which cannot be read (%s)' % (card or beside, error), "a text in Markdown") from error

    def get(self, key, default=None):
        return self.properties.get(key, default)

    def threshold(self):
        return self.properties.get("otb:calibration", {}).get("threshold", 0.5)

    def classes(self):
        """[{"value", "name", "color_hint"}] of the first output that has any."""
        return next((o["classification:classes"] for o in self.properties.get("mlm:output", []) if o.get("classification:classes")), [])

    def bands(self, role=None):
        """Names of the bands of the first input of images (of the role)."""
        for entry in self.properties.get("mlm:input", []):
            names = [
                b.get("name") if isinstance(b, dict) else b
                for b in entry.get("bands") or []
                if not (isinstance(b, dict) and "expression" in b)
            ]
            if names and (role is None or entry.get("otb:role") == role):
                return names
        return []


def card_html(text):
    """The card as HTML: Markdown with tables; raw HTML is escaped, pictures are left out (nothing is loaded), links are kept."""
    import markdown

    maker = markdown.Markdown(extensions=["tables", "fenced_code", "sane_lists"])
    maker.preprocessors.deregister("html_block")
    maker.inlinePatterns.deregister("html")
    for name in ("image_link", "image_reference", "short_image_ref"):
        maker.inlinePatterns.deregister(name)
    # The page's own headings stay above those of the card.
    html = re.sub(r"<(/?)h([1-6])", lambda m: "<%sh%d" % (m.group(1), min(6, int(m.group(2)) + 2)), maker.convert(text))
    # Only links to the web lead anywhere from a file that travels alone.
    html = re.sub(r'<a href="(?!https?://)[^"]*"[^>]*>(.*?)</a>', r"\1", html, flags=re.S)
    return html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
