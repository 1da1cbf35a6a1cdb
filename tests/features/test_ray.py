"""Parts on a Ray cluster of real processes, one of which is killed: the bytes of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dalr.errors import ConfigError, DataError
from dalr.features.parts import merge
from dalr.features.request import ImagesRequest, TextRequest, write_on_ray
from dalr.inference.encode import EncodeOptions, encode_file, encode_on_ray, merge_parts
from dalr.inference.rows import Source
from dalr.io.console import Console
from dalr.io.on_ray import CORES, _layout
from dalr.io.share import share_of
from dalr.models.config import EncoderConfig
from tiny import Outcome, captions, write_pairs
from tiny_images import save_photos

QUIET = Console(quiet=True)
_HEAD = """
import sys, ray
found = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
                 object_store_memory=100 << 20, _temp_dir=sys.argv[1])
print("at", found.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
MEANS = '''
import numpy as np
import dalr

@dalr.register_image_encoder("means")
class Means(dalr.ImageEncoder):
    """Each colour's mean."""

    version = "1"
    dim = 3
    height = width = 4

    def __init__(self, device): ...

    @staticmethod
    def pixels(image):
        return np.asarray(image.resize((4, 4))).transpose(2, 0, 1).copy()

    def vectors(self, pixels):
        return pixels.mean((2, 3), dtype=np.float32)
'''


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two workers, which ends with this process."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        token = Path(folder) / "token"
        token.write_text("0123456789abcdef" * 4)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on the loopback alone
        pytest.importorskip("ray")
        head = subprocess.Popen(
            [sys.executable, "-c", _HEAD, f"{folder}/ray"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert head.stdin is not None
        assert head.stdout is not None
        try:
            yield next(line.split()[1] for line in head.stdout if line.startswith("at "))
        finally:
            head.stdin.close()
            head.stdout.close()
            head.wait(timeout=60)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def a_worker_killed(work: Path, finished: str) -> Iterator[list[int]]:
    """SIGKILL for one worker that has sealed a part and not finished its share, by the process id in its lock."""
    killed: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not killed and not ended.wait(0.002):
            sealed = [*work.glob("part-0*"), *work.glob("*.part")]
            for lock in work.glob(".part-*-of-*.lock") if sealed else ():
                share = lock.name.removeprefix(".").removesuffix(".lock")
                try:
                    process = int(json.loads(lock.read_bytes())["pid"])
                except (OSError, ValueError):
                    continue
                if not (work / finished.format(share.removeprefix("part-"))).exists():
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def images_of(tmp_path: Path, clip_folder: Path) -> Callable[[str], ImagesRequest]:
    """A request for the features of 90 images in 45 parts, by its --out."""
    save_photos(tmp_path / "images", 90)
    names = sorted(os.listdir(tmp_path / "images"))
    pairs = write_pairs(tmp_path / "pairs.jsonl", names, [["a dog"] for _ in names])
    return lambda out: ImagesRequest(
        out=tmp_path / out,
        pairs=pairs,
        images=tmp_path / "images",
        model=str(clip_folder),
        device="cpu",
        workers=0,
        batch_size=2,
        part_images=2,
    )


@pytest.fixture
def text_of(tmp_path: Path, tiny_teacher: Path) -> Callable[[str], TextRequest]:
    """A request for the vectors of 400 sentences in 100 parts, by its --out."""
    (tmp_path / "text.txt").write_text("".join(f"a dog runs near hill {row}\n" for row in range(400)))
    encoder = EncoderConfig(model=str(tiny_teacher))
    return lambda out: TextRequest(
        out=tmp_path / out, encoder=encoder, text=tmp_path / "text.txt", device="cpu", block=4
    )


@pytest.mark.slow
def test_image_features_have_the_same_bytes_at_once_in_merged_parts_and_on_ray_with_a_worker_killed(
    cluster: str, images_of: Callable[[str], ImagesRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts, ray = (images_of(out) for out in ("whole", "parts", "ray"))
    whole.write(console=QUIET)
    for part in ("2/3", "1/3", "3/3"):
        parts.write(share=share_of(part), console=QUIET)
    merge(parts.out)
    with a_worker_killed(ray.out / ".partial", "plan-{}") as killed:
        report = write_on_ray(ray, cluster, console=Console())
    assert killed
    assert "a worker was lost" in capsys.readouterr().err
    assert report is not None
    assert report.rows == 90
    assert content(whole.out) == content(parts.out) == content(ray.out)
    assert write_on_ray(ray, cluster, console=QUIET) is None, "it is finished"
    assert content(whole.out) == content(ray.out)


@pytest.mark.slow
def test_text_features_have_the_same_bytes_at_once_in_merged_parts_and_on_ray_with_a_worker_killed(
    cluster: str, text_of: Callable[[str], TextRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts, ray = (text_of(out) for out in ("whole", "parts", "ray"))
    whole.write(console=QUIET)
    for part in ("2/3", "1/3", "3/3"):
        parts.write_part(share_of(part), resume=False, console=QUIET)
    merge(parts.out)
    with a_worker_killed(ray.out / ".partial", "plan-{}") as killed:
        write_on_ray(ray, cluster, console=Console())
    assert killed
    assert "a worker was lost" in capsys.readouterr().err
    assert content(whole.out) == content(parts.out) == content(ray.out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v.npy", "store"])
def test_encoded_rows_have_the_same_bytes_at_once_in_merged_parts_and_on_ray_with_a_worker_killed(
    cluster: str, tmp_path: Path, tiny_teacher: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.txt").write_text("".join(f"a dog runs near hill {row}\n" for row in range(800)))
    source = Source(path=str(tmp_path / "rows.txt"))
    options = EncodeOptions(console=Console(), device="cpu", part_rows=8)
    for folder in ("whole", "parts", "ray"):
        (tmp_path / folder).mkdir()
    encode_file(str(tiny_teacher), source, tmp_path / "whole" / name, options)
    for part in ("2/3", "1/3", "3/3"):
        encode_file(str(tiny_teacher), source, tmp_path / "parts" / name, options, share=share_of(part))
    merge_parts(tmp_path / "parts" / name)
    with a_worker_killed(tmp_path / "ray" / f"{name}.parts", "part-{}.json") as killed:
        report = encode_on_ray(str(tiny_teacher), source, tmp_path / "ray" / name, options, cluster)
    assert killed
    assert "a worker was lost" in capsys.readouterr().err
    assert report.rows == 800
    assert content(tmp_path / "whole") == content(tmp_path / "parts") == content(tmp_path / "ray")


@pytest.mark.slow
def test_what_a_part_refuses_comes_back_as_the_same_error_and_unfinished_work_is_resumed(
    cluster: str, text_of: Callable[[str], TextRequest], tmp_path: Path
) -> None:
    from dataclasses import replace

    request = text_of("store")
    with pytest.raises(DataError, match=r"gone\.txt: no such file"):
        write_on_ray(replace(request, text=tmp_path / "gone.txt"), cluster, console=QUIET)
    request.write_part(share_of("1/7"), resume=False, console=QUIET)
    with pytest.raises(ConfigError, match=r"unfinished work of an earlier run; .*rerun with --resume"):
        write_on_ray(request, cluster, console=QUIET)
    with pytest.raises(ConfigError, match="was made with precision None, now asked for 'bf16'"):
        write_on_ray(replace(request, precision="bf16"), cluster, resume=True, console=QUIET)
    (request.out / ".partial" / "part-00000" / "vectors.safetensors").write_bytes(b"damaged")
    write_on_ray(request, cluster, resume=True, console=QUIET)
    text_of("whole").write(console=QUIET)
    assert content(request.out) == content(text_of("whole").out)


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own_shows_one_bar_and_leaves_nothing(
    tmp_path: Path, tiny_teacher: Path
) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(captions(50)))

    def encode(*more: str, out: str) -> subprocess.CompletedProcess[str]:
        return alone(tmp_path, "encode", str(tiny_teacher), "rows.txt", "--out", out, *more)

    assert encode(out="a.npy").returncode == 0
    done = encode("--ray", "local", out="b.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b.npy: 50 rows of 24 numbers\n"
    assert "encode: 50/" in done.stderr
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert [each.name for each in (tmp_path / "home").iterdir() if each.name not in (".cache", ".triton")] == []


@pytest.mark.slow
def test_workers_load_the_plug_in_that_an_image_encoder_comes_from(tmp_path: Path) -> None:
    (tmp_path / "means.py").write_text(MEANS)
    names = save_photos(tmp_path / "images", 5)
    write_pairs(tmp_path / "pairs.jsonl", names, [["a dog"] for _ in names])
    command = ["features", "images", "--pairs", "pairs.jsonl", "--images", "images", "--device", "cpu"]
    command += ["--plugin", "means.py", "--model", "plugin:means", "--workers", "0"]
    for more in (("--out", "once"), ("--out", "ray", "--ray", "local")):
        done = alone(tmp_path, *command, *more)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "once") == content(tmp_path / "ray")


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in this folder, without the cluster of the tests; its temporary folder is empty in the end."""
    pytest.importorskip("ray")
    (folder / "home").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "dalr", *arguments]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:  # short, as sockets lie in it
        environment |= {"HOME": str(folder / "home"), "TMPDIR": temporary}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert os.listdir(temporary) == []
    return done


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_stops_its_tasks_and_is_resumed(
    cluster: str, tmp_path: Path, tiny_teacher: Path, sent: signal.Signals
) -> None:
    (tmp_path / "rows.txt").write_text("".join(f"a dog runs near hill {row}\n" for row in range(4000)))
    source, options = (
        Source(path=str(tmp_path / "rows.txt")),
        EncodeOptions(console=QUIET, device="cpu", part_rows=8),
    )
    out, work = tmp_path / "v.npy", tmp_path / "v.npy.parts"
    script = (
        "import signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "from dalr.inference.encode import EncodeOptions, encode_on_ray; from dalr.inference.rows import Source\n"
        "model, rows, out, address = sys.argv[1:]\n"
        "options = EncodeOptions(device='cpu', part_rows=8)\n"
        "encode_on_ray(model, Source(path=rows), Path(out), options, address)\n"
    )
    command = [sys.executable, "-c", script, str(tiny_teacher), source.path, str(out), cluster]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: any(work.glob("*.part")) or running.poll() is not None)
    os.killpg(running.pid, sent) if sent == signal.SIGINT else running.send_signal(sent)
    _, said = running.communicate(timeout=120)
    assert running.returncode == (128 + sent if sent == signal.SIGTERM else -sent), said
    if sent != signal.SIGKILL:
        assert "stopped; what is sealed is kept: rerun with --resume" in said
    until(lambda: not any(alive(lock) for lock in work.glob(".part-*-of-*.lock")))
    sealed = len(list(work.glob("*.part")))
    time.sleep(0.5)
    assert 0 < len(list(work.glob("*.part"))) == sealed < 500, "no task works on"
    with pytest.raises(ConfigError, match="unfinished work of an earlier run; continue with --resume"):
        encode_on_ray(str(tiny_teacher), source, out, options, cluster)
    encode_on_ray(str(tiny_teacher), source, out, options, cluster, resume=True)
    encode_file(str(tiny_teacher), source, tmp_path / "w.npy", options)
    assert out.read_bytes() == (tmp_path / "w.npy").read_bytes()


def until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(lock: Path) -> bool:
    try:
        os.kill(int(json.loads(lock.read_bytes())["pid"]), 0)
    except (OSError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--ray", "http://x"), "expected local, auto or HOST:PORT of a running cluster, found 'http://x'"),
        (("--ray", "local", "--part", "1/2"), "--ray, --part: Ray computes all parts"),
        (("--ray", "local", "--device", "cuda:1"), "expected auto, cpu or cuda, found 'cuda:1'"),
    ],
)
@pytest.mark.parametrize("command", ["images", "text", "encode"])
def test_what_does_not_go_with_ray_is_refused(
    cli: Callable[..., Outcome], tmp_path: Path, command: str, more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "p.jsonl").write_text("{}")
    out = ("--out", tmp_path / "out")
    commands: dict[str, tuple[Any, ...]] = {
        "images": ("features", "images", "--pairs", tmp_path / "p.jsonl", "--model", "m", *out),
        "text": ("features", "text", "--text", tmp_path / "p.jsonl", "--model", "m", *out),
        "encode": ("encode", "m", tmp_path / "p.jsonl", *out),
    }
    outcome = cli(*commands[command], *more)
    assert outcome.code == 2
    assert said in outcome.err
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize("command", ["images", "text", "encode"])
def test_ray_and_update_merge_or_standard_input_do_not_go_together(
    cli: Callable[..., Outcome], tmp_path: Path, command: str
) -> None:
    out = ("--out", tmp_path / "out", "--ray", "local")
    arguments: dict[str, tuple[Any, ...]] = {
        "images": ("features", "images", "--pairs", "p", "--model", "m", *out, "--update"),
        "text": ("features", "text", "--text", "p", "--model", "m", *out, "--update"),
        "encode": ("encode", *out, "--merge"),
    }
    outcome = cli(*arguments[command])
    assert outcome.code == 2
    assert "leave one of the two out" in outcome.err
    outcome = cli("encode", "m", "-", *out)
    assert outcome.code == 2
    assert "every worker reads the input: name a file, not -" in outcome.err


def node(cores: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cores} | ({"GPU": gpus} if gpus else {})
    return {"NodeID": f"{cores}-{gpus}-{alive}", "NodeName": "n", "Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "cores", "gpus"),
    [
        ([node(1)], "auto", 1, 1, 0),
        ([node(2)], "auto", 2, 1, 0),
        ([node(64), node(16), node(32, alive=False), node(0)], "auto", 20, CORES, 0),
        ([node(16, 4), node(8)], "auto", 4, 4, 1),
        ([node(16, 4)], "cuda", 4, 4, 1),
        ([node(4, 4)], "cuda", 4, 1, 1),
        ([node(16, 4)], "cpu", 4, 4, 0),
    ],
)
def test_parts_are_laid_out_by_the_cores_and_gpus_of_the_nodes(
    nodes: list[dict[str, Any]], device: str, workers: int, cores: int, gpus: int
) -> None:
    found = _layout(nodes, device, "auto")
    assert (found.workers, found.cores, found.gpus) == (workers, cores, gpus)
    assert found.shares == max(workers, 2)


@pytest.mark.parametrize(("nodes", "device"), [([], "auto"), ([node(4)], "cuda")])
def test_a_cluster_without_what_is_asked_for_is_refused(nodes: list[dict[str, Any]], device: str) -> None:
    with pytest.raises(ConfigError, match="no node of the cluster has a"):
        _layout(nodes, device, "auto")
