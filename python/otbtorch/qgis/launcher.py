"""What QGIS starts instead of OTB's launcher, from the folder that ``otbtorch qgis-folder`` makes.

QGIS's OTB provider gives an application no environment, hands over one folder of applications, leaves
names of files without quotes, and does not look whether the application failed. This gives back
what is missing, then runs OTB's launcher.
"""

import os
import pwd
import signal
import subprocess
import sys


def file_keys(descriptor):
    """Keys of the parameters that hold one name of a file, from a descriptor. None if it cannot be read."""
    try:
        with open(descriptor, encoding="utf-8") as stream:
            lines = [line.split("|") for line in stream]
    except OSError:
        return set()
    return {line[1] for line in lines if line[0].lstrip("*") == "QgsProcessingParameterFile"}


def join_names(words, keys):
    """The words of a command line, in which names of files that were cut at spaces are one again.

    :param keys: of parameters that take one name
    """
    joined, key, values = [], "", 0
    for word in words:
        if word[:1] == "-" and word[1:2].isalpha():
            joined.append(word)
            key, values = word[1:], 0
        elif key in keys and values > 0:
            joined[-1] += " " + word
        else:
            joined.append(word)
            values += 1
    return joined


def environment(applications):
    """The environment of an application: QGIS's, with what a program may rely on.

    :param applications: folders, those of the system first
    """
    env = dict(os.environ, OTB_APPLICATION_PATH=":".join(dict.fromkeys(applications)))
    env.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return env


def main(launcher, applications, descriptions, argv):
    """Runs OTB's launcher as QGIS asks for it. Returns its exit status.

    :param launcher: OTB's own
    :param applications: folder of these applications
    :param descriptions: folder of the descriptors
    :param argv: name of the application, folder of applications, its parameters
    """
    if len(argv) < 2:
        return subprocess.call([launcher] + argv)
    name, folders, words = argv[0], argv[1], argv[2:]
    words = join_names(words, file_keys(os.path.join(descriptions, name + ".txt")))
    status = subprocess.call([launcher, name] + words, env=environment(folders.split(":") + [applications]))
    if status == 0:
        return 0
    how = "exit status %d" % status if status > 0 else "ended by %s" % signal.Signals(-status).name
    try:
        # A line of progress without a colon: what QGIS 3.22 cannot read makes the algorithm fail, nothing else does.
        print("%s failed at ?%% [%s, see the reason above]" % (name, how), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the application said so itself, and QGIS went
    return status if status > 0 else 128 - status
