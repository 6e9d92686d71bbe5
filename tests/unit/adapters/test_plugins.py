"""Callbacks by name: where they come from, what is known without running anything, and what is not loaded."""

from __future__ import annotations

import os
import py_compile
import sys
from importlib.metadata import EntryPoint
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from hermes_async.adapters.plugins import CallbackNames, callback_folder, load_callbacks
from hermes_async.adapters.plugins import names as plugin_names
from hermes_async.adapters.plugins.callbacks import KIND
from tests.support.plugins import installed, refusal

HANDLER = """\
raise_if_run = 1 / {zero}

def {name}(task_result, parent_context):
    return "{name}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / callback_folder.FOLDER).mkdir()
    return tmp_path / callback_folder.FOLDER


def write(folder: Path, file: str, source: str, mode: int = 0o644) -> Path:
    (folder / file).write_text(source)
    (folder / file).chmod(mode)
    return folder / file


def handler(name: str, zero: int = 1) -> str:
    return HANDLER.format(name=name, zero=zero)


def test_names_are_known_without_running_anything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, from_package="no.such.module:function")
    write(
        folder, "mine.py", handler("shown", zero=0) + "async def later(r, c): ...\ndef _hidden(r, c): ...\n"
    )
    write(folder, "_shared.py", handler("shared"))
    names = CallbackNames(folder, ("allowed.pkg",))
    assert list(names) == ["from_package", "later", "shown"]
    assert "shown" in names
    assert "allowed.pkg:f" in names
    assert "allowed.pkg.deep.f" in names
    assert "allowed.pkgs:f" not in names
    assert "os:system" not in names


def test_an_entry_point_comes_before_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, told="operator:add")
    write(folder, "mine.py", handler("told") + handler("own"))
    loaded = load_callbacks(CallbackNames(folder), ["told", "own"])
    assert loaded["told"](1, 2) == 3
    assert loaded["own"](1, 2) == "own"


def test_two_packages_that_bring_one_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [EntryPoint("told", place, KIND.group) for place in ("a:f", "a:f", "b:f")]
    monkeypatch.setattr(plugin_names, "entry_points", lambda group: twice[:2])
    assert "told" in CallbackNames(folder)  # one that is found twice on the path
    monkeypatch.setattr(plugin_names, "entry_points", lambda group: twice)
    assert refusal(lambda: "told" in CallbackNames(folder)) == (
        "two packages bring a callback 'told': a:f and b:f; uninstall one of the two"
    )


def test_a_package_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, KIND.group, told="no_such_module:f")
    message = refusal(lambda: load_callbacks(CallbackNames(folder), ["told"]))
    assert message.startswith("callback 'told': cannot load no_such_module:f: No module named")


def test_a_place_in_an_allowed_module(folder: Path) -> None:
    loaded = load_callbacks(CallbackNames(folder, ("operator",)), ["operator:add", "operator.mul"])
    assert loaded["operator:add"](2, 3) == 5
    assert loaded["operator.mul"](2, 3) == 6
    message = refusal(lambda: load_callbacks(CallbackNames(folder, ("json",)), ["operator:add"]))
    assert message == (
        "no callback is named 'operator:add'; allow its module with HERMES_CALLBACK_MODULES=operator"
    )
    message = refusal(lambda: load_callbacks(CallbackNames(folder, ("operator",)), ["operator:ad"]))
    assert message == "callback 'operator:ad': module 'operator' has no 'ad'; did you mean 'add'?"


def test_a_callback_takes_two_arguments(folder: Path) -> None:
    write(folder, "mine.py", "def told(result): ...\n")
    message = refusal(lambda: load_callbacks(CallbackNames(folder), []))
    assert message.startswith("callback 'told': too many positional arguments; a callback is a function")


def test_the_files_are_no_modules_for_others(folder: Path) -> None:
    write(folder, "lonely_file.py", handler("told"))
    load_callbacks(CallbackNames(folder), [])
    assert str(folder) not in sys.path
    assert "lonely_file" not in sys.modules
    assert not (folder / "__pycache__").exists()


def test_no_folder_is_no_fault(tmp_path: Path) -> None:
    assert "told" not in CallbackNames(tmp_path / "nowhere")
    assert load_callbacks(CallbackNames(tmp_path / "nowhere"), []) == {}


def test_a_name_in_two_files(folder: Path) -> None:
    write(folder, "a.py", handler("told"))
    write(folder, "b.py", handler("told"))
    for act in (lambda: "told" in CallbackNames(folder), lambda: callback_folder.load(folder)):
        assert refusal(act) == (
            f"{folder}/b.py:3: a callback 'told' is already defined in {folder}/a.py:3; rename one of the two"
        )


def test_a_file_that_fails(folder: Path) -> None:
    path = write(folder, "broken.py", "\ndef told(result:\n")
    assert refusal(lambda: "told" in CallbackNames(folder)).startswith(f"{path}:2:")
    path = write(folder, "broken.py", handler("told", zero=0))
    assert refusal(lambda: callback_folder.load(folder)) == (
        f"{path}:1: cannot be loaded: ZeroDivisionError: division by zero"
    )
    write(folder, "broken.py", "raise SystemExit\ndef told(r, c): ...\n")
    assert refusal(lambda: callback_folder.load(folder)) == f"{path}:1: cannot be loaded: SystemExit"


def test_what_others_could_have_written_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "mine.py", handler("told"), 0o664)
    assert refusal(lambda: callback_folder.load(folder)).startswith(f"{path}: others may write it (mode 664)")
    path.chmod(0o644)
    folder.chmod(0o777)
    assert refusal(lambda: callback_folder.load(folder)).startswith(
        f"{folder}: others may write it (mode 777)"
    )
    folder.chmod(0o755)
    assert callback_folder.load(folder)
    os.chown(path, 12_345, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert "belongs to user" in refusal(lambda: callback_folder.load(folder))
    assert "told" in CallbackNames(folder)  # whoever only dispatches may be another user


def test_links_must_stay_inside(folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path, "outside.py", handler("told"))
    (folder / "mine.py").symlink_to(outside)
    assert refusal(lambda: callback_folder.load(folder)).startswith(
        f"{folder}/mine.py: is a link that leaves"
    )
    (folder / "mine.py").unlink()
    (folder / "..data").mkdir(0o755)  # as Kubernetes mounts a ConfigMap
    write(folder / "..data", "mine.py", handler("told"))
    (folder / "mine.py").symlink_to("..data/mine.py")
    assert callback_folder.load(folder)
    (folder / "..data").chmod(0o777)
    assert "others may write it" in refusal(lambda: callback_folder.load(folder))


def test_the_folder_must_not_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/hermes_callbacks").symlink_to(tmp_path / "elsewhere")
    assert "is a link that leaves" in refusal(
        lambda: "x" in CallbackNames(tmp_path / "project/hermes_callbacks")
    )


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "mine.py", 0o600)
    assert refusal(lambda: callback_folder.load(folder)).endswith(
        "is not a file; take it out of hermes_callbacks"
    )


def test_bytecode_beside_the_source_is_not_run(folder: Path) -> None:
    """Whoever plants a .pyc with the right size and date would be run by Python's own loader."""
    path = write(folder, "mine.py", handler("told"))
    planted = write(folder, "other.py", handler("told").replace('"told"', '"evil"'))
    py_compile.compile(str(planted), cfile=cache_from_source(str(path)))
    os.utime(path, (planted.stat().st_mtime, planted.stat().st_mtime))
    planted.unlink()
    assert callback_folder.load(folder)["told"](None, None) == "told"
