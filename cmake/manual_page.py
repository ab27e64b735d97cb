"""Manual pages from what is written already: a page of doc/, and what the application says of its parameters.

``manual_page.py otbcli_SiameseCD --page doc/SiameseCD.md --out man/`` runs ``otbcli_SiameseCD -help`` and writes
``man/otbcli_SiameseCD.1.gz`` through lowdown, with ``otbgui_SiameseCD.1.gz`` beside it. ``--no-parameters``: the page alone.
"""

import argparse
import gzip
import pathlib
import re
import subprocess

TABLE_OF_PARAMETERS = re.compile(r"^\| *(?:key|option) *\|.*\n(?:\|.*\n)+", re.M)
PARAMETER = re.compile(r"^(MISSING)? +-(\S+) +<([^>]+)>( \[pixel\])? +(.*)$")


def page_text(text, name, title):
    """The page under a manual's headings; links as their text, without pictures."""
    words = re.match(r"# [^:\n]+(?:: (.*))?\n", text)
    text = text[words.end() :]
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    fences = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
    fences[::2] = [re.sub(r"^#(#+ )", r"\1", part, flags=re.M) for part in fences[::2]]
    names = [name] + ([name.replace("otbcli_", "otbgui_")] if name.startswith("otbcli_") else [])
    summary = (title or words.group(1) or "part of OTBTorch").rstrip(".")
    return f"# NAME\n\n{escape(', '.join(names))} - {summary}\n\n# DESCRIPTION\n" + "".join(fences)


def details(printed):
    """[(key, kind, default ..., lines)] of ``-help key key ...``."""
    found = []
    for line in printed.splitlines():
        parameter = PARAMETER.match(line)
        if parameter:
            missing, key, kind, pixel, rest = parameter.groups()
            # The choices of a pixel type are the same everywhere.
            rest = re.sub(r"\s*\[pixel=[^\]]*\]", "", rest).replace("optional, off by default, ", "").strip()
            rest = re.sub(r"\s*\(optional[^)]*\)", "", rest.replace("default value is", "default:")).replace("  (", " (") + "."
            found.append((key, kind + (" [pixel type]" if pixel else ""), rest, []))
        elif found and line.startswith(" " * 20):
            found[-1][3].append(line.strip())
    return found


def escape(text):
    return re.sub(r"([\\*_<>|`\[\]])", r"\\\1", text)


def parameters(launcher):
    """All parameters as a list of definitions."""

    def ask(*words):
        # OTB ends with 1 after its help.
        done = subprocess.run([launcher, "-help", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout

    keys = [key for key, kind, _, _ in details(ask()) if kind != "group" and key not in ("help", "progress")]
    if not keys:
        raise SystemExit(f"manual_page.py: {launcher} -help lists no parameters")
    lines = ["# OPTIONS", "", "As the application says them (`-help KEY` prints one).", ""]
    for key, kind, rest, text in details(ask(*keys)):
        lines += [f"**-{key}** *{escape(kind)}*", "", f": {escape(rest)}"]
        lines += [f"  {escape(line)}" if not line.startswith("- ") else f"\n    {escape(re.sub(r': *$', '', line))}" for line in text] + [""]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--page", required=True, type=pathlib.Path)
    parser.add_argument("--launcher", help="asked for its parameters")
    parser.add_argument("--title", help="one line, instead of the page's own")
    parser.add_argument("--version", default="")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()

    text = page_text(args.page.read_text(encoding="utf-8"), args.name, args.title)
    if args.launcher:
        text = TABLE_OF_PARAMETERS.sub("The options are listed below.\n", text) + "\n" + parameters(args.launcher)
    text += "\n# SEE ALSO\n\nThe pages in /usr/share/doc/otbtorch, <https://www.orfeo-toolbox.org>\n"
    command = ["lowdown", "-s", "-tman", "-m", f"title={args.name}", "-m", "section=1", "-m", "volume=OTBTorch", "-m", f"source=OTBTorch {args.version}", "-"]
    manual = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    args.out.mkdir(parents=True, exist_ok=True)

    def write(name, page):
        (args.out / f"{name}.1.gz").write_bytes(gzip.compress(page.encode("utf-8"), mtime=0))

    write(args.name, manual)
    if args.name.startswith("otbcli_"):
        write(args.name.replace("otbcli_", "otbgui_"), f".so man1/{args.name}.1\n")


if __name__ == "__main__":
    main()
