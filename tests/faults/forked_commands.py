"""Real processes that run a command on tiny inputs, and are killed or stopped before a chosen change of theirs.

    python forked_commands.py kills FOLDER COMMAND...    kill at every change, start again
    python forked_commands.py pairs FOLDER COMMAND...    a second process while the first is at work

Every command is a process of its own, forked from one that has imported everything. One line of JSON per trial.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

CHANGES = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir", "chmod")
Act = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended or stopped: its exit code (negative for a signal, None while it is stopped)."""

    code: int | None
    err: str
    process: int


class World:
    """Good inputs of every command, and the command lines; `{}` stands for the folder of the outputs."""

    def __init__(self, folder: Path) -> None:
        from published_checkpoints import simcse
        from senteval import write_senteval
        from tiny import Toys, save_tiny_bert, write_data
        from tiny_images import save_photos, save_tiny_image_model

        self.folder = folder
        good = folder / "good"
        data = write_data(good / "data")
        bert = save_tiny_bert(good / "bert")
        recipe = Toys(data=data, student=bert, teacher=bert).recipe(good)
        names = save_photos(good / "photos", 3)
        photos = "".join(json.dumps({"image": name, "caption": "a dog"}) + "\n" for name in names)
        (good / "photos.jsonl").write_text(photos)
        save_tiny_image_model(good / "vision", "resnet")
        senteval = write_senteval(good / "senteval")
        published = simcse(good / "published").folder
        study = "name: two\nseeds: [0]\nselect_by: tsv\nmethods:\n  one: {recipe: recipe.yaml}\n"
        (good / "study.yaml").write_text(study)
        self._features(good)
        scored = ("evaluate", str(bert), "--pooling", "cls", "--tasks", "STS-B", "--data", str(senteval))
        scored += ("--allow-changed-data", "--map", "none", "-q", "--json")
        code = in_a_child(lambda: run_command((*scored, str(good / "results.json")))).code
        assert code == 0, "the world could not be made"
        images = ("features", "images", "--pairs", f"{good}/photos.jsonl", "--images", f"{good}/photos")
        imported = ("features", "import")
        self.commands: dict[str, tuple[str, ...]] = {
            "features text": (
                *("features", "text", "--model", str(bert), "--pooling", "cls"),
                *("--text", str(data.text), "--out", "{}/out", "-q"),
            ),
            "features images": (
                *(*images, "--model", f"{good}/vision", "--workers", "0"),
                *("--out", "{}/out", "--resume", "-q"),
            ),
            "features import": (*imported, str(data.matrix), "--ids", str(data.ids), "--out", "{}/out", "-q"),
            "features import (.json)": (*imported, f"{good}/x.json", "--out", "{}/out", "-q"),
            "features import (.hdf5)": (
                *(*imported, f"{good}/x.hdf5", "--captions"),
                *(f"{good}/captions.txt", "--out", "{}/out", "-q"),
            ),
            "import": ("import", str(published), "--out", "{}/out"),
            "evaluate --json": (*scored, "{}/out.json"),
            "report": (
                *("report", f"{good}/results.json", "--out", "{}/out.html", "-q"),
                *("--markdown", "{}/out.md", "--latex", "{}/out.tex"),
            ),
            "check --json": ("check", str(recipe), "--json", "{}/out.json", "-q"),
            "init": ("init", "--pairs", str(data.pairs), "--out", "{}/out.yaml", "-q"),
            "train": ("train", str(recipe), "--out", "{}/out", "-q"),
            "study": ("study", f"{good}/study.yaml", "--out", "{}/out", "-q"),
            "demo": ("demo", "--out", "{}/out", "-q"),
        }

    def line(self, command: str, place: Path) -> tuple[str, ...]:
        return tuple(part.replace("{}", str(place)) for part in self.commands[command])

    def place(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    @staticmethod
    def _features(good: Path) -> None:
        import h5py

        random = np.random.default_rng(0)
        tree = {
            f"{number}.jpg": {
                "captions": ["one", "two"],
                "image_feat": random.normal(size=4).tolist(),
                "lang_feat": random.normal(size=(2, 4)).tolist(),
            }
            for number in range(3)
        }
        (good / "x.json").write_text(json.dumps(tree))
        with h5py.File(good / "x.hdf5", "w") as file:
            file.create_dataset("features", data=random.normal(size=(3, 4)).astype(np.float32))
        (good / "captions.txt").write_text("one\ntwo\nthree\n")


def run_command(arguments: tuple[str, ...]) -> None:
    """The entry point of the command line; raises SystemExit."""
    from dalr.cli import main

    sys.argv = ["dalr", *arguments]
    main()


def in_a_child(act: Act, *, stops: bool = False) -> Ended:
    """Run `act` in a forked process until it ends or, if it may, stops itself."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(there, 2)
        os.close(there)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = 1
        try:
            act()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        except BaseException as error:  # noqa: BLE001 - what escapes is a finding
            sys.stderr.write(f"ESCAPED {error!r}")
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(code)
    os.close(there)
    _, status = os.waitpid(child, os.WUNTRACED if stops else 0)
    if os.WIFSTOPPED(status):
        os.close(here)
        return Ended(code=None, err="", process=child)
    with open(here, "rb") as said:
        err = said.read().decode(errors="replace")
    return Ended(code=os.waitstatus_to_exitcode(status), err=err, process=child)


def before_change(place: Path, chosen: int, what: int, counter: Path | None = None) -> None:
    """Have this process send itself the signal `what` before its `chosen`th change below `place`."""
    count, owner = 0, os.getpid()

    def change(argument: Any, options: dict[str, Any]) -> None:
        nonlocal count
        if os.getpid() != owner:
            return
        with contextlib.suppress(OSError, TypeError, ValueError):
            path = os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else os.fspath(argument)
            if options.get("dir_fd") is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{options['dir_fd']}"), path)
            if not Path(path).absolute().is_relative_to(place):
                return
            count += 1
            if counter is not None:
                counter.write_text(str(count))
            if count == chosen:
                os.kill(owner, what)

    def watched(original: Callable[..., Any], is_change: Callable[..., bool]) -> Callable[..., Any]:
        def call(argument: Any, *more: Any, **options: Any) -> Any:
            if is_change(*more, **options):
                change(argument, options)
            return original(argument, *more, **options)

        return call

    for name in CHANGES:
        setattr(os, name, watched(getattr(os, name), lambda *_, **__: True))
    os.open = watched(os.open, lambda flags=0, *_, **__: bool(flags & os.O_CREAT))
    plain = watched(builtins.open, lambda mode="r", *_, **__: mode[0] in "wax")
    builtins.open = io.open = plain  # type: ignore[assignment]


def import_everything(world_folder: Path) -> World:
    """So that the forked processes spend their time on the work."""
    import dalr.api
    import dalr.cli
    import dalr.evaluation.run
    import dalr.models.embedding
    import dalr.report.write
    import dalr.training.loop  # noqa: F401

    os.fsync = lambda _: None  # what would survive a loss of power is looked at in `power_loss.py`
    return World(world_folder)


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def counted(world: World, command: str) -> tuple[dict[str, bytes], int]:
    """What a command leaves, and how many changes it takes."""
    place, counter = world.place("run"), world.folder / "counter"

    def whole() -> None:
        before_change(place, 0, signal.SIGKILL, counter)
        run_command(world.line(command, place))

    ended = in_a_child(whole)
    assert ended.code == 0, f"{command}: {ended.err}"
    return contents(place), int(counter.read_text())


def kills(world: World, command: str) -> None:
    """Kill the command before each of its changes, and start it again."""
    expected, changes = counted(world, command)
    trials = same = 0
    wrong: list[str] = []
    for chosen in range(1, changes + 1):
        place = world.place("run")

        def killed(place: Path = place, chosen: int = chosen) -> None:
            before_change(place, chosen, signal.SIGKILL)
            run_command(world.line(command, place))

        first = in_a_child(killed)
        again = in_a_child(lambda place=place: run_command(world.line(command, place)))  # type: ignore[misc]
        found = contents(place)
        trials += 1
        if first.code != -signal.SIGKILL:
            wrong.append(f"{chosen} of {changes}: not killed: {first.code} {first.err[-300:]}")
        elif again.code != 0:
            wrong.append(f"{chosen} of {changes}: again: {again.code} {again.err[-300:]}")
        elif {name for name in found if "." in {part[0] for part in Path(name).parts}}:
            wrong.append(f"{chosen} of {changes}: left behind: {sorted(found)}")
        elif found.keys() != expected.keys():
            wrong.append(f"{chosen} of {changes}: files {sorted(found.keys() ^ expected.keys())}")
        else:
            same += found == expected
    say({"command": command, "trials": trials, "same": same, "wrong": wrong})


def pairs(world: World, command: str) -> None:
    """Stop the command at several changes of its work, and run a second one meanwhile."""
    slow = command == "demo"
    expected, changes = ({}, 12) if slow else counted(world, command)
    wrong: list[str] = []
    trials = 0
    for chosen in dict.fromkeys([changes // 2] if slow else [3, 5, changes // 2, changes - 3]):
        place = world.place("run")

        def stopped(place: Path = place, chosen: int = chosen) -> None:
            before_change(place, chosen, signal.SIGSTOP)
            run_command(world.line(command, place))

        first = in_a_child(stopped, stops=True)
        before = contents(place)
        if first.code is None and not any(name.endswith(".lock") and data for name, data in before.items()):
            os.kill(first.process, signal.SIGKILL)  # it has not begun, so that nobody can know of it
            os.waitpid(first.process, 0)
            continue
        second = in_a_child(lambda place=place: run_command(world.line(command, place)))  # type: ignore[misc]
        trials += 1
        if first.code is not None:
            wrong.append(f"{chosen} of {changes}: the first did not stop: {first.code} {first.err[-300:]}")
            continue
        if second.code != 6 or f"in use by process {first.process} on" not in second.err:
            wrong.append(f"{chosen} of {changes}: the second: {second.code} {second.err[-300:]}")
        if contents(place) != before:
            wrong.append(f"{chosen} of {changes}: changed {sorted(before.keys() ^ contents(place).keys())}")
        os.kill(first.process, signal.SIGKILL if slow else signal.SIGCONT)
        code = os.waitstatus_to_exitcode(os.waitpid(first.process, 0)[1])
        if not slow and (code != 0 or contents(place).keys() != expected.keys()):
            wrong.append(f"{chosen} of {changes}: the first: {code}, {sorted(contents(place))}")
    say({"command": command, "trials": trials, "wrong": wrong})


def say(record: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def main() -> None:
    what, folder, commands = sys.argv[1], Path(sys.argv[2]).absolute(), sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DALR_CACHE"] = str(folder / "cache")
    world = import_everything(folder)
    for command in commands or world.commands:
        {"kills": kills, "pairs": pairs}[what](world, command)


if __name__ == "__main__":
    import sitecustomize  # noqa: F401 - blocks the network

    main()
