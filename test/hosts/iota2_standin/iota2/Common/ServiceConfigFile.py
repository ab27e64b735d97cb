"""``serviceConfigFile(path).getParam(section, key)``."""

import json


class serviceConfigFile:
    def __init__(self, path):
        with open(path, encoding="utf-8") as stream:
            self.cfg = json.load(stream)

    def getParam(self, section, key):
        if key not in self.cfg.get(section, {}):
            raise Exception(f"{section}.{key} is not there")
        return self.cfg[section][key]
