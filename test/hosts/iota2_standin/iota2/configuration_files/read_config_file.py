"""``ReadConfigFile(path).get_param(section, key)``."""

import json


class ReadConfigFile:
    def __init__(self, path):
        with open(path, encoding="utf-8") as stream:
            self.cfg = json.load(stream)

    def get_param(self, section, key):
        return self.cfg[section][key]
