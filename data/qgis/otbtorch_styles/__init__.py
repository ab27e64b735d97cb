"""QGIS plugin: layers that an algorithm of the OTB provider made open with their default style.

Processing opens results without it (QgsProcessingUtils: ``loadDefaultStyle = false``), while the
same file dragged into the window has its colours and names.
"""

from qgis.core import QgsApplication, QgsProcessingLayerPostProcessorInterface


class DefaultStyle(QgsProcessingLayerPostProcessorInterface):
    def postProcessLayer(self, layer, context, feedback):
        layer.loadDefaultStyle()  # leaves the layer as it is where there is none
        layer.triggerRepaint()


class Plugin:
    def __init__(self):
        self.processors = []  # one a layer, kept: QGIS neither shares them well nor keeps them
        self.patched = {}

    def initGui(self):
        self.initProcessing()

    def initProcessing(self):
        registry = QgsApplication.processingRegistry()
        registry.providerAdded.connect(self.look)
        self.look("otb")

    def look(self, name):
        """The class of the provider's algorithms tells of the layers that are loaded at the end."""
        provider = QgsApplication.processingRegistry().providerById(name) if name == "otb" else None
        if provider is None:
            return
        provider.algorithmsLoaded.connect(lambda: self.patch(provider))
        self.patch(provider)

    def patch(self, provider):
        for kind in {type(algorithm) for algorithm in provider.algorithms()} - set(self.patched):
            before = self.patched[kind] = kind.__dict__.get("postProcessAlgorithm")

            def after(algorithm, context, feedback, before=before):
                made = before(algorithm, context, feedback) if before else {}
                layers = context.layersToLoadOnCompletion()
                for details in layers.values():
                    self.processors.append(DefaultStyle())
                    details.setPostProcessor(self.processors[-1])
                context.setLayersToLoadOnCompletion(layers)
                return made

            kind.postProcessAlgorithm = after

    def unload(self):
        QgsApplication.processingRegistry().providerAdded.disconnect(self.look)
        for kind, before in self.patched.items():
            if before is None:
                del kind.postProcessAlgorithm
            else:
                kind.postProcessAlgorithm = before
        self.patched = {}


def classFactory(iface):
    return Plugin()
