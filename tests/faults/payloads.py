"""Files that leave a marker behind if anything runs what is in them.

Each payload is armed: `test_canaries.py` fires every kind by hand and finds its marker, so that a test which finds
none has found something out. They differ in who would run them: an unpickler, an import, a template engine, a YAML
loader.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import torch


class Touch:
    """Makes `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


def raw_pickle(marker: Path) -> bytes:
    return pickle.dumps(Touch(marker), protocol=2)


def torch_file(marker: Path, *, zipped: bool = True) -> bytes:
    """Tensors with a payload among them, as `torch.save` writes."""
    file = io.BytesIO()
    content = {"embeddings.word_embeddings.weight": torch.zeros(2, 2), "payload": Touch(marker)}
    torch.save(content, file, pickle_protocol=2, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def object_array(marker: Path) -> bytes:
    file = io.BytesIO()
    array = np.empty((1, 1), object)
    array[0, 0] = Touch(marker)
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def module(marker: Path) -> str:
    """Python source with the classes that configurations ask for."""
    classes = "".join(f"class {name}:\n    load = from_pretrained = print\n" for name in ("Evil", "EvilConfig"))
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\n{classes}"


def yaml_tag(marker: Path) -> str:
    return f"!!python/object/apply:os.system ['touch {marker}']"


def template(marker: Path) -> str:
    """A way out of a template engine without a sandbox."""
    return f"{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}"


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def change_json(path: Path, **changes: object) -> None:
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | changes))
