"""What goes wrong is said clearly, and leaves nothing behind that looks finished.

A message names the option, what was found and what was expected. After a failed run there is no
file under the final names, no temporary one, and an older file keeps its bytes.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
import zipfile

import numpy as np
import pytest
from conftest import (
    LAUNCHER,
    REPOSITORY,
    TRANSFORM,
    command,
    environment,
    kill_group,
    make_scene,
    parts,
    read,
    run,
    stripes,
    texture,
    write,
)

CAP_DAC_OVERRIDE = 1
PR_CAPBSET_DROP = 24


def embedded(model):
    """The contract inside a model file, as bytes."""
    with zipfile.ZipFile(model) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("extra/mlm.json")))


def assert_refused(done, folder, *fragments, keep=()):
    """A clear end: status, message, and nothing in ``folder`` but the files named ``keep``."""
    assert 0 < done.returncode < 128, f"exit status {done.returncode}:\n{done.log}"
    assert done.log.count("(FATAL)") == 1, done.log
    message = " ".join(done.log[done.log.index("(FATAL)") :].split())
    for fragment in fragments:
        assert fragment in message, f'"{fragment}" is not in: {message}'
    assert "Segmentation" not in done.log and "Exception raised from" not in done.log, done.log
    assert sorted(os.listdir(folder)) == sorted(keep)


@pytest.fixture
def out(tmp_path):
    """A folder that a test expects to find empty in the end."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def refuse(small, models, out):
    """Function: runs with one thing changed and asserts the refusal."""

    def check(*fragments, preexec=None, model="pixel.pt", env=None, **changed):
        parameters = dict(small.parameters(), model=models / model, out=out / "map.tif")
        parameters["proba"] = out / "proba.tif"
        parameters.update(changed)
        done = run(preexec=preexec, env=env, **parameters)
        assert_refused(done, out, *fragments)
        return done

    return check


# ---------------------------------------------------------------------------------------------
# Models and contracts


@pytest.mark.parametrize(
    "model, fragments",
    [
        ("absent.pt", ["no file at", "absent.pt", "a TorchScript file"]),
        ("corrupt.pt", ["corrupt.pt", "not a TorchScript archive", "a TorchScript file"]),
        ("truncated.pt", ["truncated.pt", "truncated or damaged", "whole TorchScript file"]),
        ("empty.pt", ["empty.pt", "which is empty", "a TorchScript file"]),
        ("notscript.pt", ["notscript.pt", "PyTorch checkpoint", "a TorchScript file"]),
        ("nocontract.pt", ["nocontract.pt", "without a contract", "-contract", ".mlm.json"]),
        ("mismatch_channels.pt", ["does not run", "x1 2 x 4 x 64 x 64", "6 channels"]),
        ("mismatch_outputs.pt", ["returns 1 tensor(s)", "expected 3", "mlm:output"]),
        (".", ["not a regular file", "a TorchScript file"]),
    ],
)
def test_unusable_model_is_named_with_what_is_wrong(model, fragments, refuse):
    refuse("model: found", *fragments, model=model)


def test_archive_with_damaged_weights_is_refused(refuse, models, tmp_path):
    """The archive's directory is whole: its checksums alone tell that some weights are not."""
    data = bytearray((models / "unet.pt").read_bytes())
    with zipfile.ZipFile(models / "unet.pt") as archive:
        largest = max(
            (i for i in archive.infolist() if "/data/" in i.filename), key=lambda i: i.file_size
        )
    name, extra = struct.unpack_from("<HH", data, largest.header_offset + 26)
    begin = largest.header_offset + 30 + name + extra
    data[begin + 100 : begin + 356] = bytes(256)
    (tmp_path / "damaged.pt").write_bytes(data)
    refuse("model: found", "damaged.pt", model=tmp_path / "damaged.pt")


def test_invalid_contract_lists_every_violation(refuse):
    from otbtorch import testing

    refuse("invalid.pt", "7 violations", *testing.INVALID_PATHS, model="invalid.pt")


@pytest.mark.parametrize("text", ["{ not json", "", "[1, 2]", '{"type": NaN}'])
def test_side_car_that_is_not_a_json_object_is_named(text, refuse, models, tmp_path):
    """The embedded contract does not silently replace it."""
    shutil.copy(models / "pixel.pt", tmp_path)
    (tmp_path / "pixel.pt.mlm.json").write_text(text)
    done = refuse("pixel.pt.mlm.json", model=tmp_path / "pixel.pt")
    assert "without a contract" not in done.log, "there is one, which cannot be read"


def test_missing_contract_file_is_named(refuse, tmp_path):
    refuse("contract: found", "none.json", "a readable JSON file", contract=tmp_path / "none.json")


def test_contract_that_is_a_folder_is_named(refuse, tmp_path):
    refuse("contract: found", str(tmp_path), "a readable JSON file", contract=tmp_path)


def test_contract_that_is_empty_is_named(refuse, tmp_path):
    (tmp_path / "empty.json").touch()
    done = refuse("empty.json", contract=tmp_path / "empty.json")
    assert "without a contract" not in done.log, "one was given, which is empty"


def test_model_of_another_task_is_refused(refuse):
    path = REPOSITORY / "doc" / "examples" / "change-likelihood.mlm.json"
    refuse("change-likelihood", "change-detection", contract=path)


def test_another_major_version_of_the_contract_is_refused(refuse, contract_of, tmp_path):
    contract = contract_of("pixel.pt")
    contract["properties"]["otb:version"] = "2.0.0"
    path = tmp_path / "version.json"
    path.write_text(json.dumps(contract))
    refuse("/properties/otb:version", "2.0.0", contract=path)


# ---------------------------------------------------------------------------------------------
# Images


def moved(dx=0.0, dy=0.0, spacing=10.0):
    return (TRANSFORM[0] + dx, spacing, 0.0, TRANSFORM[3] + dy, 0.0, -spacing)


@pytest.mark.parametrize(
    "crop, options, fragments",
    [
        ((110, 150), {}, ["size 150 x 110", "size 151 x 117"]),
        (None, dict(transform=moved(spacing=20.0)), ["spacing 20, -20", "spacing 10, -10"]),
        (None, dict(transform=moved(5, 0)), ["origin 500010, 4799995", "origin 500005, 4799995"]),
        (None, dict(epsg=32632), ["UTM zone 32N", "UTM zone 31N"]),
        (None, dict(epsg=None), ["projection none", "UTM zone 31N"]),
        (None, dict(transform=moved(9e5)), ["origin 1400005", "do not overlap"]),
        (None, dict(transform=moved(0, 1170)), ["4801165", "do not overlap"]),
    ],
    ids=["size", "spacing", "origin", "projection", "no projection", "far away", "just beside"],
)
@pytest.mark.parametrize("which", ["in2", "mask"])
def test_another_grid_is_refused_with_both_grids(
    which, crop, options, fragments, refuse, small, tmp_path
):
    pixels = small.x2 if which == "in2" else np.ones((1,) + small.x2.shape[1:], np.float32)
    pixels = pixels[:, : crop[0], : crop[1]] if crop else pixels
    other = write(tmp_path / "other.tif", pixels, **options)
    name = "in2 (other.tif): found" if which == "in2" else "mask"
    refuse(name, "in1 (in1.tif)", "Superimpose", *fragments, **{which: other})


def test_every_difference_of_a_grid_is_listed(refuse, small, tmp_path):
    other = write(tmp_path / "o.tif", small.x2[:, 1:], transform=moved(30, 0, 12.0), epsg=32632)
    refuse("size 151 x 116", "spacing 12", "origin 500036", "UTM zone 32N", in2=other)


def test_files_of_one_date_must_lie_on_one_grid(refuse, small, tmp_path):
    bands = [write(tmp_path / f"{b}.tif", small.x1[b, : 117 - (b == 2)]) for b in range(4)]
    refuse("in1 (2.tif): found", "size 151 x 116", "size 151 x 117", in1=bands)


@pytest.mark.parametrize("which", ["in1", "in2"])
def test_wrong_number_of_bands_is_refused_with_the_names_of_the_bands(which, refuse, small):
    image = f"{getattr(small, which)}?&bands=1,2,3"
    name = f"{which} ({which}.tif)"
    refuse(name, "3 band(s)", "4 (B02 B03 B04 B08)", "?&bands=", **{which: image})


def test_mask_with_two_bands_is_refused(refuse, tmp_path):
    mask = write(tmp_path / "mask.tif", np.ones((2, 117, 151), np.float32))
    refuse("mask", "2 bands", "one band", mask=mask)


@pytest.mark.parametrize("content", [None, b"", b"hello, world\n"])
@pytest.mark.parametrize("which", ["in1", "in2", "mask"])
def test_image_file_that_is_none_is_named(which, content, refuse, tmp_path):
    image = tmp_path / "image.tif"
    if content is not None:
        image.write_bytes(content)
    refuse("image.tif", **{which: image})


def test_truncated_image_is_named(refuse, small, tmp_path):
    """Found when its pixels are read, in the middle of the run."""
    image = tmp_path / "cut.tif"
    image.write_bytes(small.in2.read_bytes()[:150000])
    refuse("cut.tif", in2=image)


# ---------------------------------------------------------------------------------------------
# Other parameters


@pytest.mark.parametrize("value", ["1.5", "0", "1", "-0.5", "nan"])
def test_threshold_outside_0_1_is_refused(value, refuse):
    refuse("thr: found", "between 0 and 1", thr=value)


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:x", "CPU"])
def test_unknown_device_is_refused(value, refuse):
    refuse(f'device: found "{value}"', "auto, cpu, cuda or cuda:N", device=value)


@pytest.fixture(scope="module")
def without_cuda(models, small, tmp_path_factory):
    """Skips where this LibTorch has CUDA."""
    folder = tmp_path_factory.mktemp("probe")
    model, map_ = models / "pixel.pt", folder / "map.tif"
    done = run(model=model, out=map_, **small.parameters()).ok()
    if "this LibTorch has no CUDA" not in done.log:
        pytest.skip("this LibTorch has CUDA: its absence cannot be tested")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_cuda_is_refused(device, refuse, without_cuda):
    refuse(f'device: found "{device}"', "without CUDA", "cpu or auto", device=device)


def test_half_precision_on_the_cpu_is_refused(refuse):
    refuse("precision: found fp16 on the CPU", "fp32 or bf16", precision="fp16", device="cpu")


def test_unknown_precision_is_refused(refuse):
    refuse("precision", "int8", precision="int8")


@pytest.mark.parametrize("key", ["sem1", "sem2"])
def test_class_map_of_a_binary_model_is_refused(key, refuse, out):
    refuse(f"{key}: found", '"pixel"', "no class heads", "sem1_logits", **{key: out / "sem.tif"})


# ---------------------------------------------------------------------------------------------
# Outputs


def test_missing_output_folder_is_refused(refuse, out):
    refuse("out: found", "no/map.tif", "does not exist", out=out / "no" / "map.tif")


def test_output_that_is_a_folder_is_refused(refuse, tmp_path):
    refuse("out: found", "not a file", "a writable file name", out=tmp_path)


def test_one_file_for_two_outputs_is_refused(refuse, out):
    refuse("proba: found", "map.tif", "one file an output", proba=out / "map.tif")


def test_one_file_for_two_outputs_under_two_names_is_refused(refuse, out):
    """The same file, spelt differently."""
    refuse("proba: found", "one file an output", proba=f"{out}/./map.tif")


def test_unknown_format_is_refused_with_the_name_that_was_given(refuse, out):
    done = refuse("map.xyz", out=out / "map.xyz")
    assert ".part-" not in done.log[done.log.index("(FATAL)") :]


def as_plain_user():
    """Root obeys permissions from here on (before the application is started)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_unwritable_output_folder_is_refused(models, small, out):
    out.chmod(0o555)
    try:
        model = models / "pixel.pt"
        done = run(preexec=as_plain_user, model=model, out=out / "map.tif", **small.parameters())
    finally:
        out.chmod(0o755)
    assert_refused(done, out, "out: found", "map.tif", "may not write", "permissions")


def test_write_protected_output_file_is_kept(models, small, out):
    old = out / "map.tif"
    old.write_bytes(b"old")
    old.chmod(0o444)
    model = models / "pixel.pt"
    done = run(preexec=as_plain_user, model=model, out=old, **small.parameters())
    assert_refused(done, out, "out: found", "may not write", keep=["map.tif"])
    assert old.read_bytes() == b"old"


def limited(size):
    """Files may grow to ``size`` bytes; beyond it write() fails as on a full disk."""

    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


FULL_DISK = {
    "GTiff": (".tif", "", ["out"], 60000),
    "GTiff at close": (".tif", "", ["out"], 139300),
    "GTiff from the first byte": (".tif", "", ["out"], 0),
    "float GTiff": (".tif", "", ["proba"], 300000),
    "several": (".tif", "", ["out", "proba", "conf"], 300000),
    "stripes": (".tif", stripes(17), ["out"], 60000),
    "DEFLATE": (".tif", "?&gdal:co:COMPRESS=DEFLATE", ["proba"], 100000),
    "PNG": (".png", "", ["out"], 3000),
    "ERDAS": (".img", "", ["out"], 60000),
}


@pytest.mark.parametrize("case", FULL_DISK)
def test_full_disk_is_said_and_an_older_file_is_kept(case, models, scene, out):
    suffix, options, names, size = FULL_DISK[case]
    names = ["out"] + [n for n in names if n != "out"]
    paths = {name: out / f"{name}{suffix}" for name in names}
    for path in paths.values():
        path.write_bytes(b"older result")
    outputs = {name: f"{path}{options}" for name, path in paths.items()}
    model = models / "pixel.pt"
    done = run(preexec=limited(size), model=model, **scene.parameters(), **outputs)
    assert_refused(done, out, keep=[p.name for p in paths.values()])
    message = done.log[done.log.index("(FATAL)") :].lower()
    assert any(word in message for word in ("space", "disk", "too large", "write")), done.log
    for path in paths.values():
        assert path.read_bytes() == b"older result", path.name


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB; skips where one cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        pytest.skip(f"mount cannot be run here: {error}")
    if done.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {done.stdout.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_too_small_a_disk_is_found_before_any_inference(tiny_disk, models, scene):
    (tiny_disk / "proba.tif").write_bytes(b"older result")
    done = run(
        model=models / "unet.pt",
        out=tiny_disk / "out.tif",
        proba=tiny_disk / "proba.tif",
        **scene.parameters(),
    )
    assert_refused(done, tiny_disk, "MB free", str(tiny_disk), "expected", keep=["proba.tif"])
    assert "Inference" not in done.log
    assert (tiny_disk / "proba.tif").read_bytes() == b"older result"


@pytest.mark.parametrize("names", [["out"], ["out", "proba"]])
def test_a_disk_that_fills_up_is_said(names, tiny_disk, models, scene):
    """Outputs with a compression, whose size nobody knows before."""
    for name in names:
        (tiny_disk / f"{name}.tif").write_bytes(b"older result")
    done = run(
        model=models / "unet.pt",
        **{n: [f"{tiny_disk}/{n}.tif?&gdal:co:COMPRESS=PACKBITS", "double"] for n in names},
        **scene.parameters(),
    )
    assert_refused(done, tiny_disk, keep=[f"{name}.tif" for name in names])
    assert "No space left on device" in done.log, done.log
    for name in names:
        assert (tiny_disk / f"{name}.tif").read_bytes() == b"older result"


# ---------------------------------------------------------------------------------------------
# Runs that are ended from outside


@pytest.fixture(scope="module")
def long_scene(tmp_path_factory):
    """A scene that takes some seconds, written in many stripes."""
    made = make_scene(tmp_path_factory.mktemp("long"), 900, 900)
    made.mask = made.m = None
    return made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_nothing_under_the_final_name(number, models, long_scene, out):
    """Neither a beginning of it: a file that bears its final name is finished."""
    (out / "proba.tif").write_bytes(b"older result")
    words = command(
        model=models / "attention.pt",
        out=f"{out}/map.tif{stripes(48)}",
        proba=f"{out}/proba.tif{stripes(48)}",
        **long_scene.parameters(),
    )
    with open(out.parent / "log", "wb") as log:
        process = subprocess.Popen(
            [str(LAUNCHER)] + words,
            env=environment(1),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while not parts(out) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.3)
            assert process.poll() is None, "the run was over before it could be killed"
            assert parts(out), "no output had been begun"
        finally:
            status = kill_group(process, number)
    assert status != 0
    assert (out / "proba.tif").read_bytes() == b"older result"
    assert sorted(os.listdir(out)) == sorted(parts(out) + ["proba.tif"])


def test_a_run_after_a_killed_one_succeeds(models, small, out):
    """Left-overs of another process do not disturb."""
    for name in ("map.part-1.tif", "map.part-99999.tif"):
        (out / name).write_bytes(b"left over")
    run(model=models / "pixel.pt", out=out / "map.tif", **small.parameters()).ok()
    assert ((read(out / "map.tif") == 255) == ~small.valid()).all()


def test_a_model_that_fails_in_the_middle_is_said(contract_of, out, tmp_path):
    """An exception of the network itself, at a patch that comes late."""
    import torch
    from otbtorch import export, testing

    class Fragile(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = testing.seeded(lambda: testing.PixelCD(4), 31, 4, heads=["head"])

        def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
            if bool((x1 > 9.0).any()):
                raise RuntimeError("this patch is too bright")
            return self.net(x1, x2)

    model = tmp_path / "fragile.pt"
    export(Fragile().eval(), contract_of("prob.pt") | {"id": "fragile"}, str(model), atol=1.0)
    rng = np.random.default_rng(9)
    x1, x2 = texture(rng, 4, 300, 200), texture(rng, 4, 300, 200)
    x1[:, 290, 190] = 30000
    done = run(
        in1=write(tmp_path / "1.tif", x1),
        in2=write(tmp_path / "2.tif", x2),
        model=model,
        out=f"{out}/map.tif{stripes(10)}",
        proba=out / "proba.tif",
    )
    assert_refused(done, out, "the model failed", "this patch is too bright")


def test_outputs_of_different_windows_are_refused(models, scene, tmp_path):
    done = run(
        model=models / "unet.pt",
        out=f"{tmp_path}/out.tif?&box=0:0:100:100",
        proba=f"{tmp_path}/proba.tif?&box=50:50:100:100",
        **scene.parameters(),
    )
    assert_refused(done, tmp_path, "proba", "box 50:50:100:100", "box 0:0:100:100 as out")


def test_a_pixel_type_that_cannot_hold_no_data_is_refused(models, scene, tmp_path):
    done = run(
        model=models / "unet.pt",
        out=tmp_path / "out.tif",
        proba=[tmp_path / "proba.tif", "uint8"],
        **scene.parameters(),
    )
    assert_refused(done, tmp_path, "proba", "uint8", "no-data value -1")


def test_blending_on_the_command_line_keeps_the_rule_of_the_contract(models, scene, tmp_path):
    data = json.loads(embedded(models / "unet.pt"))
    data["properties"]["otb:tiling"].update(patch=100, multiple=4)
    for entry in data["properties"]["mlm:input"]:
        entry["input"]["shape"][2:] = [100, 100]
    for entry in data["properties"]["mlm:output"]:
        entry["result"]["shape"][2:] = [100, 100]
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps(data))
    folder = tmp_path / "maps"
    folder.mkdir()
    done = run(
        model=models / "unet.pt",
        contract=contract,
        out=folder / "out.tif",
        blend="hann",
        **scene.parameters(),
    )
    assert_refused(done, folder, "multiple of twice the network's stride (8 pixels), found 100")
