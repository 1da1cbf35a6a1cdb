"""Generated command lines: every option that takes a path × hostile paths, every key of a recipe × hostile values,
every number × extreme ones. Run in one process without the privileges of root:

    python sweep.py FOLDER [EVERY]

FOLDER is new; everything that is read and written lies in it. EVERY takes one invocation of so many. For each that
ends otherwise than in success or an error of ours, a line of JSON is printed, and at the end one with the counts.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

CODES = {0, 2, 3, 4, 5, 6}
SECONDS = 60
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class HangError(BaseException):
    """An invocation took longer than `SECONDS`."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A command line, and what of it is hostile."""

    about: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def without_privileges() -> None:
    """Give up what root may do to files in spite of their permissions, for good; nothing where there is no root."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)(0, 0, 0, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "cannot give up the privileges of root")


class World:
    """The folder of a sweep: good inputs of every kind, and hostile things that each invocation finds anew."""

    def __init__(self, folder: Path) -> None:
        from published_checkpoints import simcse
        from senteval import write_senteval
        from tiny import Toys, save_tiny_bert, write_data, write_recipe
        from tiny_images import save_photos, save_tiny_image_model

        self.folder = folder
        folder.mkdir(parents=True)
        good = self.good = folder / "good"
        self.data = write_data(good / "data")
        self.bert = save_tiny_bert(good / "bert")
        self.recipe = Toys(data=self.data, student=self.bert, teacher=self.bert).recipe(good)
        self.senteval = write_senteval(good / "senteval")
        self.photos = good / "photos"
        self.photo_pairs = good / "photos.jsonl"
        names = save_photos(self.photos, 3)
        self.photo_pairs.write_text(
            "".join(json.dumps({"image": name, "caption": "a dog"}) + "\n" for name in names)
        )
        self.vision = save_tiny_image_model(good / "vision", "resnet")
        self.published = simcse(good / "published").folder
        self.results = good / "results.json"
        self.study = good / "study.yaml"
        self.study.write_text(
            "name: sweep\nseeds: [0]\nselect_by: tsv\nmethods:\n  one: {recipe: recipe.yaml}\n", encoding="utf-8"
        )
        self.extended = write_recipe(good / "extended.yaml", {"extends": "recipe.yaml"})
        self.hostile = folder / "hostile"
        self.devices: list[tuple[str, int]] = []
        self.drains: list[int] = []
        for name, minor in (("null", 3), ("zero", 5), ("full", 7)):
            with suppress(OSError):
                os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
                os.close(
                    os.open(folder / name, os.O_WRONLY)
                )  # where the file system has no devices, there are none
                self.devices.append((name, minor))
            with suppress(OSError):
                (folder / name).unlink()

    def renew(self) -> None:
        """Everything hostile as it was, and nothing of the last invocation's outputs."""
        for drain in self.drains:
            os.close(drain)
        self.drains = []
        here = self.hostile
        if here.exists():
            for path in [here, *here.rglob("*")]:
                with suppress(OSError):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(0o700)
            for path in here.rglob("*"):
                with suppress(OSError):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(0o700)
            shutil.rmtree(here)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        (self.folder / "work").mkdir()
        (self.folder / "home").mkdir()
        here.mkdir()
        (here / "empty-folder").mkdir()
        (here / "folder").mkdir()
        (here / "folder" / "something").write_text("else\n")
        for name, content in FILES.items():
            (here / name).write_bytes(content)
        (here / "closed").mkdir()
        (here / "closed" / "inside").write_text("a\n")
        (here / "unlisted").mkdir()
        (here / "read-only").mkdir()
        (here / "secret").write_text("a\n")
        os.symlink("loop", here / "loop")
        os.symlink("nowhere", here / "dangling")
        os.symlink("file.txt", here / "link")
        (here / "model").mkdir()
        (here / "model" / "config.json").write_text("{}")
        os.mkfifo(here / "model" / "model.safetensors")
        os.mkfifo(here / "pipe")
        os.mkfifo(here / LONE)
        self.drains = [os.open(here / "pipe", os.O_RDWR | os.O_NONBLOCK)]  # a reader, for whoever writes into it
        with suppress(OSError), socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(here / "socket"))
        (here / "closed").chmod(0)
        (here / "unlisted").chmod(0o300)
        (here / "read-only").chmod(0o500)
        (here / "secret").chmod(0)

    def paths(self) -> list[str]:
        """Hostile values of an option that takes a path."""
        here = self.hostile
        names = ["empty-folder", "folder", "closed", "closed/inside", "unlisted", "unlisted/x", "read-only/x"]
        names += ["secret", "loop", "loop/x", "dangling", "link", "pipe", LONE, "socket", "model", *FILES]
        names += [
            "nothing",
            "nothing/x",
            "file.txt/x",
            "n" * 256,
            "ü" * 128,
            "a\x1b[31mb",
            "line\nbreak",
            "x" * 300,
        ]
        names += ["‮gpj", "a b", " ", "-x", "e\u0301.txt", "*", "[a]{b}", "back\\slash", "'quote'", "..", "x/../y"]
        devices = [str(self.folder / "devices" / name) for name, _ in self.devices]
        others = ["", ".", "..", "~", "~/x", "~nosuchuser/x", "/proc/self/mem", "/proc/self/fd/0", "p" * 5000]
        others += ["a/" * 2000, "$UNSET/x", "${UNSET:-x}", "hf:a/b", "http://127.0.0.1:9/x", "C:\\x", "\udcff", "-"]
        return [*(f"{here}/{name}" for name in names), *devices, *others]


LONE = "lone-pipe"
"""Nobody reads it or writes into it: whoever opens it waits for ever."""
OUTPUTS = ("--out", "--json", "--markdown", "--latex")
FILES = {
    "empty": b"",
    "empty.json": b"",
    "file.txt": b"a dog runs\n",
    "bytes.txt": b"\xff\xfe\x00\x01" * 20,
    "bytes.npy": b"\x93NUMPY\x01\x00\xff\xff{",
    "deep.json": b"[" * 50_000,
    "object.json": b"{}",
    "list.json": b"[1, null]",
    "null.json": b"null",
    "number.json": b'{"format": 1e999, "version": "x"}',
    "lines.jsonl": b'{"image": "a\\u001b[2J.jpg", "caption": "a\\u0007b"}\n{"image": 1}\n',
    "cut.gz": b"\x1f\x8b\x08\x00abc",
    "table.tsv": b"a\tb\n1\t\x1b]0;x\x07\n",
    "table.csv": b"image,caption\nx.jpg,\x1b[31mred\n",
    "fake.parquet": b"PAR1" + bytes(20),
    "fake.hdf5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "fake.safetensors": b"\xff" * 30,
    "recipe.yaml": b'name: "\\e[31mx"\ndata: {pairs: "\\e]0;x\\a"}\n',
    "keys.yaml": b'"a\\eb": 1\n',
    "deep.yaml": b"[" * 1000,
    "large.yaml": b"a: b\n" * 20_000,
}


def path_invocations(world: World) -> Iterator[Invocation]:
    """Every option and argument that takes a path."""
    w, out = world, str(world.folder / "work" / "out")
    data, few = w.data, ("-s", "training.max_steps=1", "-s", "validation=null")
    quick = (str(w.bert), "--pooling", "cls", "--tasks", "STS-B", "--map", "none", "--allow-changed-data", "-q")
    shapes: dict[str, tuple[str, ...]] = {
        "check RECIPE": ("check", "{}"),
        "check --against": ("check", str(w.recipe), "--against", "{}"),
        "check --against of a wrong recipe": ("check", str(w.recipe), "-s", "seed=x", "--against", "{}"),
        "check --json": ("check", str(w.recipe), "--json", "{}"),
        "train RECIPE": ("train", "{}", "--dry-run"),
        "train --out": ("train", str(w.recipe), *few, "-q", "--out", "{}"),
        "train --resume --out": ("train", str(w.recipe), *few, "-q", "--resume", "--out", "{}"),
        "evaluate MODEL": ("evaluate", "{}", *quick[1:], "--data", str(w.senteval)),
        "evaluate --data": ("evaluate", *quick, "--data", "{}"),
        "evaluate --json": ("evaluate", *quick, "--data", str(w.senteval), "--json", "{}"),
        "evaluate --exclude-overlap": (
            *("evaluate", *quick, "--data", str(w.senteval)),
            *("--exclude-overlap", "{}"),
        ),
        "evaluate --heads": (
            *("evaluate", str(w.bert), "--pooling", "cls", "--tasks", "retrieval", "--heads", "{}"),
            *("--pairs", str(data.pairs), "--features", str(data.matrix)),
        ),
        "evaluate --pairs": (
            *("evaluate", str(w.bert), "--pooling", "cls", "--tasks", "retrieval", "--heads", str(w.results)),
            *("--pairs", "{}", "--features", str(data.matrix)),
        ),
        "evaluate --features": (
            *("evaluate", str(w.bert), "--pooling", "cls", "--tasks", "retrieval", "--heads", str(w.results)),
            *("--pairs", str(data.pairs), "--features", "{}"),
        ),
        "evaluate --image-ids": (
            *("evaluate", str(w.bert), "--pooling", "cls", "--tasks", "retrieval", "--heads", str(w.results)),
            *("--pairs", str(data.pairs), "--features", str(data.matrix), "--image-ids", "{}"),
        ),
        "report RUN": ("report", "{}", "--out", out),
        "report --out": ("report", str(w.results), "-q", "--out", "{}"),
        "report --markdown": ("report", str(w.results), "-q", "--out", out, "--markdown", "{}"),
        "report --latex": ("report", str(w.results), "-q", "--out", out, "--latex", "{}"),
        "init --pairs": ("init", "--pairs", "{}", "--out", out),
        "init --images": ("init", "--pairs", str(data.pairs), "--images", "{}", "--out", out),
        "init --text": ("init", "--pairs", str(data.pairs), "--text", "{}", "--out", out),
        "init --features": ("init", "--pairs", str(data.pairs), "--features", "{}", "--out", out),
        "init --out": ("init", "--pairs", str(data.pairs), "--out", "{}"),
        "import CHECKPOINT": ("import", "{}", "--out", out),
        "import --out": ("import", str(w.published), "--out", "{}"),
        "features import FILE": ("features", "import", "{}", "--ids", str(data.ids), "--out", out),
        "features import --ids": ("features", "import", str(data.matrix), "--ids", "{}", "--out", out),
        "features import --out": ("features", "import", str(data.matrix), "--ids", str(data.ids), "--out", "{}"),
        "features images --pairs": images(w, pairs="{}", out=out),
        "features images --images": images(w, images="{}", out=out),
        "features images --model": images(w, model="{}", out=out),
        "features images --out": images(w, out="{}"),
        "features text --model": ("features", "text", "--model", "{}", "--text", str(data.text), "--out", out),
        "features text --text": text(w, "--text", "{}", out),
        "features text --pairs": text(w, "--pairs", "{}", out),
        "features text --out": text(w, "--text", str(data.text), "{}"),
        "data get --from": ("data", "get", "sts", "--from", "{}", "--out", out, "--accept-licences"),
        "data get --out": (
            *("data", "get", "sts", "--from", str(w.senteval), "--out", "{}"),
            *("--accept-licences", "--allow-changed-data"),
        ),
        "data verify": ("data", "verify", "{}"),
        "study STUDY": ("study", "{}", "--dry-run", "--out", out),
        "study --out": ("study", str(w.study), "--dry-run", "--out", "{}"),
        "recipe show": ("recipe", "show", "{}"),
        "recipe show --resolved": ("recipe", "show", "{}", "--resolved"),
    }
    for about, shape in shapes.items():
        for value in world.paths():
            if value.endswith(LONE) and shape[shape.index("{}") - 1] in OUTPUTS:
                continue  # a reader is waited for, as every program does
            if value.startswith("-") and shape[1] == "{}":
                continue  # an option
            yield Invocation(about=about, arguments=tuple(value if part == "{}" else part for part in shape))


def images(w: World, *, out: str, pairs: str = "", images: str = "", model: str = "") -> tuple[str, ...]:
    named = ("--pairs", pairs or str(w.photo_pairs), "--images", images or str(w.photos))
    return ("features", "images", *named, "--model", model or str(w.vision), "--out", out, "--workers", "0", "-q")


def text(w: World, option: str, value: str, out: str) -> tuple[str, ...]:
    return ("features", "text", "--model", str(w.bert), "--pooling", "cls", option, value, "--out", out, "-q")


NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "7",
    "1e20",
    "1e8",
    "99999999",
    "4000000000",
    "9" * 64,
    "9" * 100,
    "-9223372036854775809",
]
NUMBERS += [
    "0.5",
    "1e-320",
    "1e308",
    "-0.0",
    ".nan",
    ".inf",
    "nan",
    "inf",
    "1e999",
    "null",
    "true",
    "abc",
    "[]",
    "{}",
]
NUMBERS += ["''", "[1, 1]", "[-1]", "[[1]]", "{a: 1}", "0x10", "1_000", "１", "\x1b[31m", "[", '"\\ud800"', '"\\0"']


def recipe_invocations(world: World) -> Iterator[Invocation]:
    """Every key of a recipe: paths for keys of text, numbers and other things for all."""
    for key in recipe_keys():
        for value in NUMBERS:
            yield Invocation(about=f"-s {key}", arguments=("check", str(world.recipe), "-s", f"{key}={value}"))
    for key in ("data.root", "data.pairs", "data.text", "features.image", "features.image_ids", "student.model"):
        for value in world.paths():
            yield Invocation(about=f"-s {key}", arguments=("check", str(world.recipe), "-s", f"{key}={value}"))
    for value in world.paths():
        arguments = ("check", str(world.recipe), "-s", f"validation.data={value}")
        yield Invocation(about="-s validation.data", arguments=arguments)
        sts = ("-s", f"validation={{kind: sts-b, data: {json.dumps(value)}}}")
        yield Invocation(about="-s validation (sts-b)", arguments=("check", str(world.recipe), *sts))
        teachers = ("-s", f"teachers=[{{features: {json.dumps(value)}}}]")
        yield Invocation(about="-s teachers features", arguments=("check", str(world.recipe), *teachers))


def recipe_keys() -> list[str]:
    """Dotted keys of everything that a recipe may say."""
    from dalr.recipe.checks import Recipe
    from dalr.recipe.document import _section_in

    def below(section: Any, prefix: str) -> Iterator[str]:
        for name, known in section.model_fields.items():
            yield f"{prefix}{name}"
            inner = _section_in(known.annotation)
            if inner is not None:
                yield from below(inner, f"{prefix}{name}.")

    return list(below(Recipe, ""))


def trained_invocations(world: World) -> Iterator[Invocation]:
    """Numbers that a recipe may have, in the one step of a dry run and in a training."""
    keys = ["seed", "training.max_steps", "training.epochs", "training.batch_size", "training.mini_batch_size"]
    keys += ["training.learning_rate", "training.clip_norm", "training.warmup_steps", "training.warmup_ratio"]
    keys += ["training.weight_decay", "training.save_every", "training.keep", "training.log_every"]
    keys += [
        "heads.grounding_dim",
        "heads.aligner_dim",
        "data.max_tokens",
        "data.holdout.last",
        "student.dropout",
    ]
    keys += ["data.captions_per_image", "student.num_layers", "student.freeze_layers", "validation.every"]
    keys += ["validation.patience", "objective.infonce.temperature", "objective.infonce.weight"]
    keys += [
        "objective.grounding.weight",
        "objective.grounding.margin",
        "training.schedule.k",
        "student.max_tokens",
    ]
    for key in keys:
        for value in ("1", "2", "3", "64", "65536", "1e-6", "0.999", "99999999", "1e30", "1e8"):
            arguments = ("train", str(world.recipe), "-s", f"{key}={value}", "--dry-run", "-q")
            yield Invocation(about=f"dry run, -s {key}", arguments=arguments)


def option_invocations(world: World) -> Iterator[Invocation]:
    """Options that take no path."""
    w = world
    numbers = ["0", "-1", "1", "3", "1e3", "99999999999", "9" * 5000, "", "abc", "nan", "１", "\x1b[31m"]
    names = [
        "",
        ",",
        "a",
        "sts,sts",
        "nothing",
        "\x1b[31m",
        "all",
        "x" * 5000,
        "‮",
        "sts-b-dev",
        "retrieval",
        "=",
        "\n",
    ]
    evaluate = ("evaluate", str(w.bert), "--pooling", "cls", "--data", str(w.senteval), "-q")
    evaluate += ("--tasks", "STS-B", "--map", "none", "--allow-changed-data")
    shown = images(w, out=str(w.folder / "work" / "out"))
    for value in numbers:
        yield Invocation(
            about="demo --seed", arguments=("demo", "--out", str(w.hostile / "file.txt"), "--seed", value)
        )
        yield Invocation(about="evaluate --num-layers", arguments=(*evaluate, "--num-layers", value))
        for option in ("--max-bad-images", "--batch-size"):
            yield Invocation(about=option, arguments=(*shown, option, value))
        more = text(w, "--text", str(w.data.text), str(w.folder / "work" / "out"))
        yield Invocation(about="features text --max-tokens", arguments=(*more, "--max-tokens", value))
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            yield Invocation(
                about=f"{name} in the environment",
                arguments=("train", str(w.recipe), "-q", "--out", str(w.hostile / "file.txt")),
                environment={name: value},
            )
    for value in names:
        for option in ("--tasks", "--map", "--classifier", "--pooling", "--device", "--mteb"):
            yield Invocation(about=f"evaluate {option}", arguments=(*evaluate, option, value))
        for option in ("--format", "--columns", "--split"):
            arguments = ("init", "--pairs", str(w.data.pairs), "--out", str(w.folder / "work" / "r.yaml"), option)
            yield Invocation(about=f"init {option}", arguments=(*arguments, value))
        yield Invocation(about="-s", arguments=("check", str(w.recipe), "-s", value))
        yield Invocation(about="-s KEY", arguments=("check", str(w.recipe), "-s", f"{value}=1"))
        yield Invocation(about="evaluate MODEL", arguments=("evaluate", value, *evaluate[2:]))
        yield Invocation(
            about="import --method", arguments=("import", str(w.published), "--out", "o", "--method", value)
        )
        yield Invocation(about="data get", arguments=("data", "get", value, "--out", "o", "--accept-licences"))
        yield Invocation(
            about="data verify --group", arguments=("data", "verify", str(w.senteval), "--group", value)
        )
        yield Invocation(about="a command", arguments=(value,))
        yield Invocation(about="an argument too many", arguments=("check", str(w.recipe), value))
        yield Invocation(about="an unknown option", arguments=("check", str(w.recipe), f"--{value}"))
        yield Invocation(about="report --title", arguments=("report", str(w.results), "-q", "--title", value))


GENERATORS: tuple[Callable[[World], Iterator[Invocation]], ...] = (
    path_invocations,
    recipe_invocations,
    trained_invocations,
    option_invocations,
)


def make_results(world: World) -> None:
    """A result file and a result of one model, for reports."""
    arguments = ("evaluate", str(world.bert), "--pooling", "cls", "--data", str(world.senteval), "--tasks", "STS-B")
    arguments += ("--allow-changed-data", "-q", "--json", str(world.results), "--map", "none")
    code, _, err = run(arguments)
    assert code == 0, err


def run(arguments: tuple[str, ...]) -> tuple[object, str, str]:
    """(exit code or what came instead of it, standard output, standard error) of a command in this process."""
    from dalr.cli import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["dalr", *arguments]
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        signal.alarm(SECONDS)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:  # noqa: BLE001 - whatever comes out of it is what the sweep looks for
            code = f"{type(error).__name__}: {error}"[:300]
        finally:
            signal.alarm(0)
    return code, out.getvalue(), err.getvalue()


def faults(code: object, out: str, err: str) -> list[str]:
    """What is wrong with the way that a command ended."""
    found = [] if code in CODES else [f"ended with {code!r}"]
    found += ["a traceback"] if "Traceback" in err else []
    found += ["the last net"] if "internal error" in err else []
    found += ["an error without words"] if code not in (0, None) and not err.strip() else []
    found += [f"a control character {found[0]!r}" for found in [COMMANDS.search(out + err)] if found is not None]
    return found


def sweep(world: World, every: int) -> int:
    """Run the invocations; how many were faulty."""
    faulty = count = 0
    codes: dict[str, int] = {}
    started = time.monotonic()
    place = 0
    for generate in GENERATORS:
        for invocation in generate(world):
            place += 1
            if (place * 7919) % every:
                continue
            world.renew()
            make_devices(world)
            os.chdir(world.folder / "work")
            kept = dict(os.environ)
            os.environ |= invocation.environment
            code, out, err = run(invocation.arguments)
            os.environ.clear()
            os.environ |= kept
            os.chdir(world.folder)
            count += 1
            codes[str(code)[:20]] = codes.get(str(code)[:20], 0) + 1
            if found := faults(code, out, err):
                faulty += 1
                shown = {"about": invocation.about, "arguments": invocation.arguments, "faults": found}
                say(shown | {"code": str(code), "err": err[-1500:]})
    seconds = round(time.monotonic() - started, 1)
    say({"invocations": count, "faulty": faulty, "codes": codes, "seconds": seconds})
    return faulty


def say(record: dict[str, object]) -> None:
    sys.__stdout__.write(json.dumps(record) + "\n")
    sys.__stdout__.flush()


def make_devices(world: World) -> None:
    """Copies of devices, which a command may have replaced; made by a helper that still may."""
    folder = world.folder / "devices"
    for name, minor in world.devices:
        found = (folder / name).stat() if (folder / name).exists() else None
        if found is None or found.st_rdev != os.makedev(1, minor):
            DEVICE_MAKER.write(f"{name} {minor}\n".encode())
            DEVICE_MAKER.flush()
            DEVICE_ANSWERS.readline()


def _answer(maker: int, answers: int, folder: Path) -> None:
    """Make the devices that are asked for, with the privileges of root, until nobody asks."""
    with os.fdopen(maker, "rb") as asked, os.fdopen(answers, "wb") as answer:
        for line in asked:
            name, minor = line.split()
            place = folder / name.decode()
            with suppress(FileNotFoundError):
                place.unlink()
            os.mknod(place, stat.S_IFCHR, os.makedev(1, int(minor)))
            place.chmod(0o666)
            answer.write(b"\n")
            answer.flush()


def main() -> None:
    global DEVICE_MAKER, DEVICE_ANSWERS
    folder, every = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.environ["DALR_CACHE"] = str(folder / "cache")
    os.environ["HOME"] = str(folder / "home")
    os.environ["HF_HOME"] = str(folder / "hub")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "UNSET"):
        os.environ.pop(name, None)
    world = World(folder)
    (folder / "devices").mkdir()
    asked, maker = os.pipe()
    answers, answer = os.pipe()
    if os.fork() == 0:
        os.close(maker)
        os.close(answers)
        _answer(asked, answer, folder / "devices")
        os._exit(0)
    os.close(asked)
    os.close(answer)
    DEVICE_MAKER, DEVICE_ANSWERS = os.fdopen(maker, "wb"), os.fdopen(answers, "rb")
    without_privileges()

    def hang(*_: object) -> None:
        raise HangError(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    world.renew()
    make_results(world)
    sys.exit(1 if sweep(world, every) else 0)


if __name__ == "__main__":
    import sitecustomize  # noqa: F401 - blocks the network

    main()
