"""Processing script: the report of a run (`otbtorch report`), as an algorithm for the toolbox and for models.

`python3 -m otbtorch qgis-folder --profile default` puts it into a profile; or Processing Toolbox, Scripts, Add Script to Toolbox.
"""

import os
import subprocess

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
    QgsProviderRegistry,
    QgsSettings,
)

LANGUAGES = ["en", "fr"]

# Option of the command, what it is.
IMAGES = [("date1", "Image of the first date"), ("date2", "Image of the second date")]
MAPS = [
    ("change", "Change map"),
    ("probability", "Probability of change"),
    ("score", "Score of ChangeLikelihood"),
    ("pvalue", "P-value of ChangeLikelihood"),
    ("errors", "Map of errors"),
    ("labels", "Label map"),
    ("confidence", "Confidence"),
    ("valid-dates", "Number of valid dates"),
]
FILES = [("model", "TorchScript model"), ("dates", "Dates of the series"), ("evaluation", "Results of ChangeEvaluation (.json)")]
WRITTEN = [
    ("out", "Report", "HTML (*.html)", True),
    ("pdf", "The same as PDF", "PDF (*.pdf)", False),
    ("qgs", "QGIS project", "QGIS project (*.qgs)", False),
]


class OtbTorchReport(QgsProcessingAlgorithm):
    """Runs the command in a process of its own: libraries of plots and pages stay out of QGIS."""

    def createInstance(self):
        return OtbTorchReport()

    def name(self):
        return "otbtorch_report"

    def displayName(self):
        return "Report of a change or label map"

    def group(self):
        return "OTBTorch"

    def groupId(self):
        return "otbtorch"

    def shortHelpString(self):
        return (
            "One page that holds what SiameseCD, ChangeLikelihood, TimeSeriesClassify and ChangeEvaluation left behind: maps, where they are wrong, "
            "figures, areas, objects. A map at least; all maps lie on one grid."
        )

    def initAlgorithm(self, config=None):
        raster = QgsProcessing.TypeRaster
        for key, text in IMAGES + [("series", "Series: a stack, or an image per date"), ("series-mask", "Validity of the series")]:
            self.addParameter(QgsProcessingParameterMultipleLayers(key, text, raster, optional=True))
        for key, text in MAPS:
            self.addParameter(QgsProcessingParameterRasterLayer(key, text, optional=True))
        self.addParameter(QgsProcessingParameterVectorLayer("objects", "Change objects", [QgsProcessing.TypeVectorPolygon], optional=True))
        for key, text in FILES:
            self.addParameter(QgsProcessingParameterFile(key, text, optional=True))
        self.addParameter(QgsProcessingParameterString("title", "Title", optional=True))
        self.addParameter(QgsProcessingParameterEnum("lang", "Language", ["English", "French"], defaultValue=0))
        for key, text, kind, always in WRITTEN:
            self.addParameter(QgsProcessingParameterFileDestination(key, text, kind, optional=not always, createByDefault=always))

    @staticmethod
    def source(layer):
        parts = QgsProviderRegistry.instance().decodeUri(layer.dataProvider().name(), layer.source())
        if "path" not in parts:
            raise QgsProcessingException('"%s" is no file' % layer.name())
        return parts["path"]

    def processAlgorithm(self, parameters, context, feedback):
        words = []
        for key, _ in IMAGES + [("series", ""), ("series-mask", "")]:
            files = [self.source(layer) for layer in self.parameterAsLayerList(parameters, key, context) or []]
            words += ["--" + key] + files if files else []
        for key, _ in MAPS:
            layer = self.parameterAsRasterLayer(parameters, key, context)
            words += ["--" + key, self.source(layer)] if layer else []
        layer = self.parameterAsVectorLayer(parameters, "objects", context)
        words += ["--objects", self.source(layer)] if layer else []
        for key, _ in FILES:
            file = self.parameterAsFile(parameters, key, context)
            words += ["--" + key, file.strip('"')] if file else []
        title = self.parameterAsString(parameters, "title", context)
        words += ["--title", title] if title else []
        words += ["--lang", LANGUAGES[self.parameterAsEnum(parameters, "lang", context)]]
        made = {}
        for key, _, _, _ in WRITTEN:
            path = self.parameterAsFileOutput(parameters, key, context)
            if path:
                made[key] = path
                words += ["--" + key, path]

        env = dict(os.environ)
        package = QgsSettings().value("otbtorch/python", "")  # where it is no package of Debian's
        if package:
            env["PYTHONPATH"] = package + (":" + env["PYTHONPATH"] if env.get("PYTHONPATH") else "")
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
        feedback.pushCommandInfo("otbtorch report " + " ".join(words))
        done = subprocess.run(
            [python, "-m", "otbtorch", "report"] + words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
        )
        feedback.pushConsoleInfo(done.stdout)
        if done.returncode:
            lines = done.stdout.strip().splitlines() or ["it printed nothing"]
            raise QgsProcessingException("otbtorch report: " + lines[-1])
        return made
