"""Command line: ``python3 -m otbtorch COMMAND``.

Exit codes: 0 all right, 1 violations (or a halo that is too small), 2 the file, its contract or the
command line cannot be read.
"""

import argparse
import json
import os
import re
import sys

from . import contract as contracts
from .cluster import ClusterError
from .cluster.command import split_words
from .contract import ContractError
from .qgis import QgisError
from .report import ReportError


def _number(value):
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _scaling_text(scaling):
    if not scaling:
        return "none (raw values)"
    first = scaling[0]
    fields = [k for k in first if k not in ("type", "format")]
    same_type = all(s.get("type") == first.get("type") for s in scaling)
    if not same_type:
        return "; ".join(_scaling_text([s]) for s in scaling)
    parts = [f"{k} " + ", ".join(_number(s.get(k)) for s in scaling) for k in fields]
    return f"{first.get('type')}: " + "; ".join(parts)


def _band_names(entry):
    return [b.get("name") if isinstance(b, dict) else b for b in entry.get("bands") or []]


def _temporal_text(entry):
    t = entry["otb:temporal"]
    text = {"fixed": "{} steps", "max": "up to {} steps", "any": "any number of steps"}
    text = text[t["policy"]].format(t.get("length"))
    if t["policy"] == "max":
        pad = _number(t.get("pad_value", 0))
        text += f", padded with {pad} at the {t.get('pad_side', 'end')}"
    if t["gapfill"] == "grid":
        grid = t["grid"]
        return f"{text}, on a grid from {grid['start']} to {grid['end']} every {grid['step']} days"
    return text + {"none": ", gaps left", "linear": ", gaps filled linearly"}[t["gapfill"]]


def _beside_text(entry):
    """What an input that goes with a series says."""
    words = []
    if "otb:encoding" in entry:
        encoding = entry["otb:encoding"]
        words.append(encoding["kind"] + f" {encoding.get('reference', '')}".rstrip())
    if "otb:polarity" in entry:
        dims = entry["input"]["dim_order"]
        by = "band" if "bands" in dims else "pixel" if "height" in dims else "date"
        words.append(f"by {by}, 1 is {entry['otb:polarity']}")
        if entry.get("otb:min_valid"):
            words.append(f"dates of {_number(entry['otb:min_valid'])} valid pixels")
    if "otb:of" in entry:
        words.append(f"of {entry['otb:of']}")
    return ", ".join(words)


def _input_lines(entry, series):
    date = f" date {entry['otb:date']}" if "otb:date" in entry else ""
    if "otb:null" in entry:
        date = f" (null: {entry['otb:null']})"
    if not entry.get("otb:argument", True):
        date = " (taken by encode)"
    lines = [
        f"  input        {entry['name']}: {entry['otb:role']}{date}, {entry['input']['shape']}"
    ]
    if entry["otb:role"] in ("dates", "valid", "month", "latlon") and series:
        beside = _beside_text(entry)
        lines[0] += f", {entry['input']['data_type']}" + (f", {beside}" if beside else "")
        return lines
    if entry["otb:role"] in contracts.BANDLESS or entry["otb:role"] == "regression_score":
        lines[0] += f", {entry['input']['data_type']}"
        return lines
    lines[0] += f", bands {', '.join(_band_names(entry)) or '-'}"
    for band in entry["bands"]:
        if series and isinstance(band, dict) and "expression" in band:
            a, b = band["expression"]
            lines.append(f"    {band['name']:<10} ({a} - {b}) / ({a} + {b})")
    if "otb:temporal" in entry:
        lines.append(f"    sensor     {_sensor_text(entry)}")
        lines.append(
            f"    time       {' '.join(entry['input']['dim_order'])}: {_temporal_text(entry)}"
        )
    if entry["otb:role"] == "regression":
        lines.append("    scaling    of the regression of the pair")
    else:
        lines.append(f"    scaling    {_scaling_text(entry['value_scaling'])}")
    if entry.get("otb:nodata") is not None or "otb:nodata_fill" in entry:
        nodata = entry.get("otb:nodata")
        lines.append(
            f"    no-data    {'of the image' if nodata is None else _number(nodata)} "
            f"({entry.get('otb:nodata_rule', 'all')} bands), "
            f"seen as {_number(entry.get('otb:nodata_fill', 0))}"
        )
    return lines


def _kind_text(p):
    """What a model of change-likelihood is, and the methods that it has beside ``forward``."""
    kind = contracts.likelihood_kind(p)
    spec = p[kind]
    if kind == "otb:generative":
        schedule = spec["schedule"]
        schedule = schedule["type"] if isinstance(schedule, dict) else schedule
        words = [spec["kind"], f"schedule {schedule}", f"time {spec['time']}"]
        if "data_at" in spec:
            words[-1] += f" (data at {_number(spec['data_at'])})"
        low, high = spec.get("logsnr_range", (-6, 8))
        words.append(f"log-SNR {_number(low)} to {_number(high)}")
        words += [k for k in ("dequantize", "predicts_var") if spec.get(k)]
    elif kind == "otb:masked":
        words = [f"tokens of {spec['patch']} x {spec['patch']}", f"{spec['groups']} groups"]
        words += ["norm_pix"] if spec.get("norm_pix") else []
    elif kind == "otb:ratio":
        words = [f"weight {_number(spec.get('weight', 0.5))}"]
        words.append(f"smoothed over {_number(spec.get('smooth', 2.5))} px")
    else:
        words = ["distances of what forward() gives"]
    lines = [f"  {kind[4:]:<12} {', '.join(words)}"]
    for name, method in p.get("otb:methods", {}).items():
        what = ", ".join(f"{k} {_number(v)}" for k, v in method.items())
        lines.append(f"  method       {name}" + (f": {what}" if what else ""))
    return lines


def _class_text(entry):
    return ", ".join(f"{c['value']} {c['name']}" for c in entry["classification:classes"])


def _archive_facts(path):
    """Size, sizes of the parts and suspicious operators of a TorchScript file, without torch."""
    facts = {"file": os.fspath(path), "bytes": os.path.getsize(path)}
    with contracts.open_archive(path) as archive:
        facts["torchscript"] = contracts.is_torchscript(archive)
        facts["weights_bytes"] = sum(
            i.file_size
            for i in archive.infolist()
            if re.match(r"^[^/]+/(data|constants)/", i.filename)
        )
        code = b"".join(
            archive.read(n) for n in archive.namelist() if re.match(r"^[^/]+/code/.*\.py$", n)
        )
    facts["unsupported"] = (
        ["aten::scaled_dot_product_attention"]
        if re.search(rb"\bscaled_dot_product_attention\b", code)
        else []
    )
    return facts


def _sensor_text(entry):
    sensor = entry.get("otb:sensor", 1)
    return ", ".join(map(str, sensor)) if isinstance(sensor, list) else str(sensor)


def _tiling_text(tiling):
    if tiling.get("unit") == "pixel":
        window = tiling.get("window", 1)
        around = f", from a window of {window} x {window}" if window > 1 else ""
        return f"pixel by pixel{around}"
    multiple, blend = tiling.get("multiple", 1), tiling.get("blend", "crop")
    how = f"patch {tiling['patch']}, multiple {multiple}, halo {tiling['halo']}, {blend}"
    if blend == "crop":
        cut = contracts.ceil_to_multiple(tiling["halo"], multiple)
        how += f" (keeps {tiling['patch'] - 2 * cut} x {tiling['patch'] - 2 * cut})"
    return how


def _summary(facts, read, violations):
    lines = [
        f"{facts['file']}: {facts['bytes']} bytes ({facts['weights_bytes']} of weights)",
        f"  contract     {read.source}",
    ]
    if violations:
        lines.append(f"  INVALID      {len(violations)} violation(s):")
        return lines + [f"    {v}" for v in violations]
    p = read.data["properties"]
    tiling, calibration = p["otb:tiling"], p.get("otb:calibration", {})
    provenance = p["otb:provenance"]
    series = p["otb:task"] == contracts.TASK_SERIES
    lines += [
        f"  model        {p['mlm:name']} ({p['mlm:architecture']})",
        f"  task         {p['otb:task']}, contract {p['otb:version']}",
        f"  framework    {p.get('mlm:framework', '?')} {p.get('mlm:framework_version', '?')}",
    ]
    likelihood = p["otb:task"] == contracts.TASK_LIKELIHOOD
    if likelihood:
        lines += _kind_text(p)
    for k, sensor in enumerate(p.get("otb:sensors", [])):
        optional = " (optional)" if sensor.get("optional") else ""
        lines.append(f"  sensor {k + 1}     {sensor['name']}{optional}")
    for entry in p["mlm:input"]:
        lines += _input_lines(entry, series)
    for entry in p["mlm:output"]:
        classes = ": " + _class_text(entry) if entry.get("classification:classes") else ""
        lines.append(
            f"  output       {entry['name']}: {entry['otb:role']}, "
            f"{entry['result']['shape']}{classes}"
        )
    temperature = f"temperature {_number(calibration.get('temperature', 1))}"
    threshold = f", threshold {_number(calibration.get('threshold', 0.5))}"
    calibrated = f"{temperature}{'' if series else threshold}"
    lines += [
        f"  tiling       {_tiling_text(tiling)}",
        f"  augmentation {', '.join(tiling.get('tta', [])) or 'none'}",
        f"  calibration  {'a file of the run' if likelihood else calibrated}",
        f"  trained on   {provenance['training_data']}"
        + (f", {_number(provenance['gsd_m'])} m" if "gsd_m" in provenance else ""),
        f"  license      {provenance['license']}",
    ]
    for name in facts["unsupported"]:
        lines.append(f"  warning      the code uses {name}, which LibTorch 1.13 cannot load")
    return lines


def inspect(args):
    facts = _archive_facts(args.model)
    if not facts["torchscript"]:
        raise ContractError(
            f"{args.model}: not TorchScript: the archive holds no code (written by torch.save, of "
            "a state dict perhaps)"
        )
    read = contracts.read(args.model, args.contract)
    violations = contracts.validate(read.data)
    if args.json:
        facts.update(
            source=read.source,
            contract=read.data,
            violations=[v._asdict() for v in violations],
        )
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_summary(facts, read, violations)))
    return 1 if violations else 0


def _load(path):
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ContractError(f"{path}: torch cannot load it: {(lines or ['?'])[0]}") from error


def validate(args):
    contracts.open_archive(args.model).close()
    read = contracts.read(args.model, args.contract)
    violations = contracts.validate(read.data)
    what = "contract"
    if not violations and not args.no_run:
        from .export import dry_run, forbidden_operators

        what = "contract and dry run"
        module = _load(args.model)
        violations = dry_run(module, read.data)
        violations += [
            contracts.Violation("", m) for m in forbidden_operators(module.inlined_graph)
        ]
    if args.json:
        result = {"source": read.source, "violations": [v._asdict() for v in violations]}
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for violation in violations:
            print(violation)
        verdict = f"{len(violations)} violation(s)" if violations else f"{what}: all right"
        print(f"{read.source}: {verdict}")
    return 1 if violations else 0


def probe_halo(args):
    contracts.open_archive(args.model).close()
    read = contracts.read(args.model, args.contract)
    violations = contracts.validate(read.data)
    if violations:
        for violation in violations:
            print(violation, file=sys.stderr)
        return 1
    if read.data["properties"]["otb:tiling"].get("unit") == "pixel":
        from .probe import BY_PIXEL as skipped
    elif contracts.is_latent(read.data["properties"]):
        from .probe import LATENT as skipped
    else:
        skipped = None
    if skipped:
        print(json.dumps({"skipped": skipped}) if args.json else f"{args.model}: {skipped}")
        return 0
    module = _load(args.model)
    from .probe import probe_halo as run

    try:
        report = run(module, read.data, n=args.samples, seed=args.seed)
    except RuntimeError as error:
        print(f"{args.model}: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print(f"{args.model}: {report}")
    return 1 if report.warnings else 0


def _parser():
    parser = argparse.ArgumentParser(prog="python3 -m otbtorch", description="OTBTorch models")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, run, text):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", help="a TorchScript file")
        command.add_argument("--contract", metavar="FILE", help="instead of the model's own")
        command.add_argument("--json", action="store_true", help="machine-readable output")
        command.set_defaults(run=run)
        return command

    add("inspect", inspect, "Say what a model wants and gives (does not load the weights).")
    command = add("validate", validate, "List all violations of the contract, then try the model.")
    command.add_argument("--no-run", action="store_true", help="the contract only, without torch")
    command = add("probe-halo", probe_halo, "Measure the halo and the stride of a model.")
    command.add_argument("--samples", type=int, default=8, help="random inputs (default: 8)")
    command.add_argument("--seed", type=int, default=0)

    from . import train_sits  # imports no torch

    text = "Train a classifier of image time series, beside a Random Forest."
    command = commands.add_parser("train-sits", help=text, description=text)
    train_sits.add_arguments(command)
    command.set_defaults(run=train_sits.command)

    from .report import command as report  # imports nothing that a machine may lack

    text = "Report of a run: one HTML file, its PDF, a QGIS project."
    command = commands.add_parser("report", help=text, description=text)
    report.add_arguments(command)
    command.set_defaults(run=report.command)

    from .qgis import folder

    text = "Make an OTB folder for QGIS that holds these applications; set up a profile of QGIS."
    command = commands.add_parser("qgis-folder", help=text, description=text)
    folder.add_arguments(command)
    command.set_defaults(run=folder.command)

    from .cluster import command as cluster  # imports neither dask nor GDAL

    text = "An application over many tiles, or over windows of one huge image, on a cluster."
    command = commands.add_parser("run", help=text, description=text, prog="otbtorch-run")
    cluster.add_arguments(command)
    command.set_defaults(run=cluster.command)
    return parser


def main(argv=None):
    argv, words = sys.argv[1:] if argv is None else list(argv), []
    if argv[:1] == ["run"]:
        argv, words = split_words(argv)
    args = _parser().parse_args(argv)
    args.words = words
    code = 141  # what a shell says of a program that SIGPIPE ended
    try:
        code = args.run(args)
        sys.stdout.flush()
    except (ClusterError, ContractError, QgisError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # The reader has what it wanted; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
